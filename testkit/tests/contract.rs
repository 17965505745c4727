//! The fake engine keeps the contract that the real one keeps.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use trackbed_core::image::Image;
use trackbed_core::instance::{AppTree, Exit, InstanceKind, InstanceSpec, VolumeMount};
use trackbed_core::ports::Engine;
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{InstanceId, ServiceId, Timestamp, VolumeId};
use trackbed_testkit::contract::{Fixture, Script, engine_contract};
use trackbed_testkit::{App, FakeEngine, Faults, World};

struct Fake {
    world: World,
    next: AtomicU8,
}

impl Fixture for Fake {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(FakeEngine::new(self.world.clone(), Faults::default()))
    }

    fn spec(&self, script: Script, with_volume: bool) -> InstanceSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut app = App::new(&format!("{script:?} {number}"));
        match script {
            Script::Exits(code) => app = app.ends(Duration::ZERO, Exit::Code { code }),
            Script::Runs => {}
            Script::IgnoresTerm => app.ignores_term = true,
            Script::Prints(lines) => app.prints = (0..lines).map(|line| format!("line {line}")).collect(),
        }
        let volume = VolumeId::from_random([1; 10]);
        let mount = VolumeMount {
            host_path: format!("/volumes/{volume}"),
            lock_path: format!("/volumes/{volume}.lock"),
            volume,
            mount: "/data".parse().expect("it is a mount path"),
            shared: false,
        };
        let image = Image {
            digest: self.world.push(&app),
            provider: "fake".into(),
            layers: Vec::new(),
            host_paths: Vec::new(),
            env: Vec::new(),
            site: None,
            built_at: Timestamp(0),
            container: None,
        };
        InstanceSpec {
            id: InstanceId::from_random([number; 10]),
            kind: InstanceKind::Service,
            service: ServiceId::from_random([2; 10]),
            service_number: 1,
            title: app.name,
            command: script.command(),
            formation: Formation::default(),
            app: AppTree::Image { image: Box::new(image) },
            volumes: if with_volume { vec![mount] } else { Vec::new() },
            binds: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            port: Some(9000),
            offline: false,
            links: Vec::new(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_engine_keeps_the_contract() {
    engine_contract(&Fake { world: World::new(), next: AtomicU8::new(0) }).await;
}

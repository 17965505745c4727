//! Containers keep the contract that the sandbox and the control plane's fake engine keep.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod world;

use std::sync::Arc;

use trackbed_core::instance::{InstanceSpec, VolumeMount};
use trackbed_core::ports::Engine;
use trackbed_testkit::contract::{Fixture, Script, engine_contract};
use world::{Daemon, World};

struct Containers {
    world: World,
    volume: VolumeMount,
}

impl Fixture for Containers {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.world.docker.clone())
    }

    fn spec(&self, script: Script, with_volume: bool) -> InstanceSpec {
        let volumes = if with_volume { vec![self.volume.clone()] } else { Vec::new() };
        InstanceSpec { volumes, ..self.world.spec(&script.command()) }
    }

    fn shares_ports(&self) -> bool {
        false
    }
}

async fn check(daemon: Option<Daemon>) {
    let Some(daemon) = daemon else { return };
    let world = World::new(&daemon).await;
    let containers = Containers { volume: world.volume("/data"), world };
    engine_contract(&containers).await;
    containers.world.close(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_docker_keep_the_contract() {
    check(Daemon::start("the contract of engines, on containers")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_podman_keep_the_contract() {
    check(Daemon::start_podman("the contract of engines, on containers of Podman")).await;
}

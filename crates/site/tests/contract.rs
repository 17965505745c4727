//! The engine of sites lets everything else through as it is, and its own instances live by the same rules.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use trackbed_core::image::{Image, Layer, Site, SiteFallback};
use trackbed_core::instance::{
    AppTree, Exit, InstanceKind, InstanceSpec, InstanceState, InstanceStats, LogCursor, LogStream,
    VolumeMount,
};
use trackbed_core::ports::{BuildLog, Engine};
use trackbed_core::settings::Limits;
use trackbed_core::{Digest, InstanceId, ServiceId, Timestamp, VolumeId};
use trackbed_site::Sites;
use trackbed_testkit::contract::{Fixture, Script, engine_contract};
use trackbed_testkit::{App, FakeEngine, Faults, World};

/// A data directory with one layer in it, and an engine.
struct Scene {
    world: World,
    data_dir: tempfile::TempDir,
    engine: Arc<Sites>,
    next: AtomicU8,
}

impl Scene {
    fn new() -> Self {
        let (world, data_dir) = (World::new(), tempfile::tempdir().unwrap());
        fs::create_dir_all(data_dir.path().join("layers/abc")).unwrap();
        let engine = Self::open(&world, &data_dir);
        Self { world, data_dir, engine, next: AtomicU8::new(0) }
    }

    fn open(world: &World, data_dir: &tempfile::TempDir) -> Arc<Sites> {
        let behind = Arc::new(FakeEngine::new(world.clone(), Faults::default()));
        Arc::new(Sites::open(data_dir.path(), behind).unwrap())
    }

    fn image(&self, digest: Digest, site: Option<Site>) -> Image {
        let layer = Layer { digest: digest.clone(), path: "layers/abc".into(), size_bytes: 1 };
        Image {
            digest,
            provider: "fake".into(),
            layers: site.iter().map(|_| layer.clone()).collect(),
            host_paths: Vec::new(),
            env: Vec::new(),
            site,
            container: None,
            built_at: Timestamp(0),
        }
    }

    fn spec_of(&self, image: Image, command: String, volumes: Vec<VolumeMount>) -> InstanceSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        InstanceSpec {
            id: InstanceId::from_random([number; 10]),
            kind: InstanceKind::Service,
            service: ServiceId::from_random([2; 10]),
            service_number: 1,
            title: format!("site v{number}"),
            command,
            formation: trackbed_core::process::Formation::default(),
            app: AppTree::Image { image: Box::new(image) },
            volumes,
            binds: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            port: Some(9000),
            offline: false,
            links: Vec::new(),
        }
    }

    fn site(&self) -> InstanceSpec {
        let site = Site { fallback: SiteFallback::Index };
        self.spec_of(self.image(Digest::from_bytes([7; 32]), Some(site)), String::new(), Vec::new())
    }
}

impl Fixture for Scene {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn spec(&self, script: Script, with_volume: bool) -> InstanceSpec {
        let mut app = App::new(&format!("{script:?} {}", self.next.load(Ordering::Relaxed)));
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
            mount: "/data".parse().unwrap(),
            shared: false,
        };
        let volumes = if with_volume { vec![mount] } else { Vec::new() };
        self.spec_of(self.image(self.world.push(&app), None), script.command(), volumes)
    }
}

#[tokio::test(start_paused = true)]
async fn the_engine_behind_keeps_its_contract() {
    engine_contract(&Scene::new()).await;
}

struct Silent;

impl BuildLog for Silent {
    fn line(&self, _: LogStream, _: &str) {}
}

#[tokio::test]
async fn a_site_lives_from_its_start_to_its_stop_without_a_process() {
    let scene = Scene::new();
    let (engine, spec) = (&scene.engine, scene.site());
    engine.start(&spec).await.unwrap();
    engine.start(&spec).await.unwrap();
    let status = engine.inspect(&spec.id).await.unwrap().unwrap();
    assert_eq!((status.state, status.pids, status.port), (InstanceState::Running, Vec::new(), Some(9000)));
    assert_eq!(engine.list().await.unwrap().len(), 1);
    let folder = scene.data_dir.path().join("layers/abc");
    let address = engine.address(&spec.id, 9000).await.unwrap();
    assert_eq!(address.0, format!("files:index:{}", folder.display()));
    assert_eq!(engine.stats(&spec.id).await.unwrap(), InstanceStats::default());
    assert_eq!(engine.listeners(&spec.id).await.unwrap()[0].port, 9000);
    assert!(engine.stray_files(&spec.id, 10).await.unwrap().is_empty());
    let page = engine.logs(&spec.id, LogCursor::START, 10).await.unwrap();
    assert!(page.lines[0].text.contains("the edge serves its files"));
    assert!(engine.logs(&spec.id, page.next, 10).await.unwrap().lines.is_empty());
    let frozen = engine.freeze(&spec.id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(frozen.thaw().await.unwrap(), Duration::ZERO);
    let refused = engine.exec(&spec.id, &["ls".into()], &[], &Silent).await.unwrap_err();
    assert!(refused.message.contains("no process"), "{refused}");
    engine.remove(&spec.id).await.expect_err("it runs");
    engine.stop(&spec.id, Duration::ZERO).await.unwrap();
    engine.stop(&spec.id, Duration::ZERO).await.unwrap();
    engine.wait(&spec.id).await;
    engine.address(&spec.id, 9000).await.expect_err("it has ended");
    engine.stats(&spec.id).await.expect_err("it has ended");
    engine.start(&spec).await.unwrap();
    let ended = engine.inspect(&spec.id).await.unwrap().unwrap();
    assert!(matches!(ended.state, InstanceState::Ended { .. }), "an id that ended never runs again");
    engine.remove(&spec.id).await.unwrap();
    assert!(engine.inspect(&spec.id).await.unwrap().is_none());
}

#[tokio::test]
async fn whoever_waits_for_a_site_hears_of_its_end() {
    let scene = Scene::new();
    let (engine, spec) = (scene.engine.clone(), scene.site());
    engine.start(&spec).await.unwrap();
    let (waiting, id) = (engine.clone(), spec.id.clone());
    let waiting = tokio::spawn(async move { waiting.wait(&id).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    engine.stop(&spec.id, Duration::ZERO).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_control_plane_finds_its_sites_as_they_were() {
    let scene = Scene::new();
    let (running, ended) = (scene.site(), scene.site());
    for spec in [&running, &ended] {
        scene.engine.start(spec).await.unwrap();
    }
    scene.engine.stop(&ended.id, Duration::ZERO).await.unwrap();
    let before = scene.engine.list().await.unwrap();
    fs::write(scene.data_dir.path().join("sites/broken.json"), "{").unwrap();
    let again = Scene::open(&scene.world, &scene.data_dir);
    assert_eq!(again.list().await.unwrap(), before);
    let address = again.address(&running.id, 9000).await.unwrap();
    assert_eq!(address, scene.engine.address(&running.id, 9000).await.unwrap());
}

#[tokio::test]
async fn a_site_without_its_files_is_lost_and_not_started() {
    let scene = Scene::new();
    let running = scene.site();
    scene.engine.start(&running).await.unwrap();
    fs::remove_dir(scene.data_dir.path().join("layers/abc")).unwrap();
    let error = scene.engine.start(&scene.site()).await.unwrap_err();
    assert!(error.message.contains("are gone") && error.hint.is_some(), "{error}");
    let again = Scene::open(&scene.world, &scene.data_dir);
    let status = again.inspect(&running.id).await.unwrap().unwrap();
    assert!(matches!(status.state, InstanceState::Ended { exit: Exit::Lost, .. }), "{status:?}");
    assert_eq!(again.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_command_of_a_site_runs_behind() {
    let scene = Scene::new();
    let site = Site { fallback: SiteFallback::NotFound };
    let image = scene.image(scene.world.push(&App::new("prepares")), Some(site));
    let spec = scene.spec_of(image, "true".into(), Vec::new());
    scene.engine.start(&spec).await.unwrap();
    assert!(!scene.data_dir.path().join(format!("sites/{}.json", spec.id)).exists());
    assert!(scene.engine.inspect(&spec.id).await.unwrap().is_some());
}

//! A box of its own on a Docker of its own, and a check that nothing of it is left.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trackbed_core::image::{ContainerImage, Image};
use trackbed_core::instance::*;
use trackbed_core::ports::{BuildLog, Dockerfile, Engine, Images};
use trackbed_core::settings::Limits;
use trackbed_core::{Digest, InstanceId, Secret, ServiceId, Timestamp, VolumeId};
use trackbed_docker::{Config, Docker};
use trackbed_stdx::tasks::Tasks;
use trackbed_stdx::{files, random};

pub use trackbed_testkit::dockerd::Daemon;

pub fn hex() -> String {
    random::bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A box of its own on a daemon.
pub struct World {
    pub data: PathBuf,
    pub run: PathBuf,
    pub docker: Docker,
    pub tasks: Tasks,
    pub image: ContainerImage,
    pub host: String,
}

pub struct Said(pub std::sync::Mutex<Vec<String>>);

impl BuildLog for Said {
    fn line(&self, _: LogStream, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

pub fn said() -> Said {
    Said(std::sync::Mutex::default())
}

impl World {
    pub async fn new(daemon: &Daemon) -> World {
        let data = PathBuf::from(format!("/var/tmp/trackbed-box-{}", hex()));
        std::fs::create_dir_all(&data).unwrap();
        let run = PathBuf::from(format!("/tmp/tb-{}", hex()));
        let tasks = Tasks::default();
        let docker = open(&data, &run, &daemon.host(), &tasks);
        daemon.make_base("base", false);
        let image = docker.pull("base", &said()).await.unwrap();
        World { data, run, docker, tasks, image, host: daemon.host() }
    }

    /// As a new control plane finds it.
    pub fn open_again(&self) -> Docker {
        open(&self.data, &self.run, &self.host, &self.tasks)
    }

    pub fn volume(&self, mount: &str) -> VolumeMount {
        let id = VolumeId::from_random(random::bytes());
        let folder = self.data.join("volumes").join(id.as_str());
        std::fs::create_dir_all(&folder).unwrap();
        VolumeMount {
            volume: id,
            lock_path: format!("{}.lock", folder.display()),
            host_path: folder.display().to_string(),
            mount: mount.parse().unwrap(),
            shared: false,
        }
    }

    pub fn spec(&self, command: &str) -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::from_random(random::bytes()),
            kind: InstanceKind::Service,
            service: ServiceId::from_random(random::bytes()),
            service_number: 1,
            title: "assistant v1".into(),
            command: command.into(),
            formation: trackbed_core::process::Formation::default(),
            app: AppTree::Image { image: Box::new(as_image(&self.image)) },
            volumes: Vec::new(),
            binds: Vec::new(),
            env: vec![("PATH".into(), Secret::new("/usr/local/bin:/usr/bin:/bin".into()))],
            limits: Limits::default(),
            port: Some(8080),
            offline: false,
            links: Vec::new(),
        }
    }

    pub fn dockerfile(&self, files: &[(&str, &str)]) -> Dockerfile {
        let context = self.data.join("sources").join(hex());
        for (name, text) in files {
            let path = context.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        Dockerfile {
            context,
            path: "Dockerfile".into(),
            target: String::new(),
            args: Vec::new(),
            given: Vec::new(),
            wants_buildkit: false,
        }
    }

    pub async fn log(&self, id: &InstanceId) -> Vec<(LogStream, String)> {
        let page = self.docker.logs(id, LogCursor::START, 100_000).await.unwrap();
        page.lines.into_iter().map(|line| (line.stream, line.text)).collect()
    }

    pub async fn until_logged(&self, id: &InstanceId, text: &str) {
        wait_for(text, async || {
            let lines = self.log(id).await;
            lines.iter().any(|(_, line)| line.contains(text)).then_some(())
        })
        .await;
    }

    pub async fn ended(&self, id: &InstanceId) -> Exit {
        wait_for("the instance to end", async || {
            match self.docker.inspect(id).await.unwrap().unwrap().state {
                InstanceState::Ended { exit, .. } => Some(exit),
                InstanceState::Starting | InstanceState::Running => None,
            }
        })
        .await
    }

    pub async fn close(self, daemon: &Daemon) {
        for instance in self.docker.list().await.unwrap() {
            self.docker.stop(&instance.id, Duration::ZERO).await.unwrap();
            self.docker.remove(&instance.id).await.unwrap();
        }
        // What a busy engine did not hear goes when it is looked for again.
        wait_for("every container to be removed", async || {
            self.docker.reconcile().await.unwrap();
            daemon.containers().is_empty().then_some(())
        })
        .await;
        files::remove_tree(&self.data).unwrap();
        files::remove_tree(&self.run).unwrap();
    }
}

pub fn as_image(image: &ContainerImage) -> Image {
    Image {
        digest: Digest::from_bytes([2; 32]),
        provider: "docker".into(),
        layers: Vec::new(),
        host_paths: Vec::new(),
        env: Vec::new(),
        built_at: Timestamp(0),
        site: None,
        container: Some(image.clone()),
    }
}

fn open(data: &Path, run: &Path, host: &str, tasks: &Tasks) -> Docker {
    let config = Config {
        data_dir: data.to_owned(),
        run_dir: run.to_owned(),
        binary: env!("CARGO_BIN_EXE_docker-keeper").into(),
        environment: vec![("DOCKER_HOST".into(), host.to_owned())],
    };
    Docker::open(config, tasks.clone()).unwrap()
}

pub async fn wait_for<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

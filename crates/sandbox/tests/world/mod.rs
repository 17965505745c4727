//! A box of its own for each test: data directory, layers, volumes, and a check that nothing of it is left.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use trackbed_core::image::{Image, Layer};
use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::{BuildLog, Engine, PortError};
use trackbed_core::process::Formation;
use trackbed_core::settings::Limits;
use trackbed_core::{Digest, InstanceId, Secret, ServiceId, Timestamp, VolumeId};
use trackbed_sandbox::{Config, Sandbox};
use trackbed_stdx::{files, random};

pub struct World {
    pub data: PathBuf,
    pub run: PathBuf,
    pub sandbox: Sandbox,
    pub level: IsolationLevel,
}

pub fn shim_binary() -> PathBuf {
    env!("CARGO_BIN_EXE_sandbox-shim").into()
}

pub fn hex() -> String {
    random::bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Drop for World {
    /// A test that failed must not leave anything for the next one either.
    fn drop(&mut self) {
        let _ = self.sandbox.reconcile(&|_| false);
        self.sandbox.dismantle();
        let _ = files::remove_tree(&self.data);
        let _ = files::remove_tree(&self.run);
    }
}

impl World {
    pub fn new(level: IsolationLevel) -> World {
        let data = PathBuf::from(format!("/var/tmp/trackbed-test-{}", hex()));
        std::fs::create_dir_all(&data).unwrap();
        // As a box does: others may pass through, not look.
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        World::at(level, data)
    }

    /// A world at level `full`, or none, said aloud, when this is not root.
    #[allow(clippy::print_stderr, reason = "a test that does not test says so")]
    pub fn full() -> Option<World> {
        if nix::unistd::geteuid().is_root() {
            return Some(Self::new(IsolationLevel::Full));
        }
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("NOT TESTED (needs root): {test}");
        None
    }

    /// A box whose control groups lack controllers, at level `full` or none: its shims find nothing of them in their
    /// orders.
    pub fn lacking(level: IsolationLevel, controllers: &[&str]) -> Option<World> {
        let mut world = if level == IsolationLevel::Full { World::full()? } else { World::new(level) };
        if controllers.is_empty() {
            return Some(world);
        }
        let script = world.data.join("shim");
        let filter = format!(r#"s/,\["({})","[^"]*"\]//g"#, controllers.join("|"));
        let text = format!(
            "#!/bin/sh\nsed -i -E '{filter}' \"$2/spec.json\" && exec {} \"$@\"\n",
            shim_binary().display()
        );
        // By another process: a program that is open for writing somewhere cannot be executed.
        let write = r#"printf %s "$0" > "$1" && chmod 755 "$1""#;
        assert!(Command::new("/bin/sh").args(["-c", write, &text]).arg(&script).status().unwrap().success());
        let config = Config {
            data_dir: world.data.clone(),
            run_dir: world.run.clone(),
            binary: script,
            level: Some(level),
        };
        world.sandbox = Sandbox::open(config).unwrap();
        Some(world)
    }

    pub fn at(level: IsolationLevel, data: PathBuf) -> World {
        let run =
            PathBuf::from(format!("/tmp/tb-{}", data.file_name().unwrap().to_str().unwrap().split_at(14).1));
        let config = Config {
            data_dir: data.clone(),
            run_dir: run.clone(),
            binary: shim_binary(),
            level: Some(level),
        };
        let sandbox =
            Sandbox::open(config).unwrap_or_else(|error| panic!("level {}: {error}", level.as_str()));
        World { data, run, sandbox, level }
    }

    /// A layer with files in it.
    pub fn layer(&self, files: &[(&str, &str)]) -> Layer {
        let name = format!("layers/{}", hex());
        for (file, text) in files {
            let path = self.data.join(&name).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        std::fs::create_dir_all(self.data.join(&name)).unwrap();
        Layer { digest: Digest::from_bytes([1; 32]), path: name, size_bytes: 0 }
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
        let image = Image {
            digest: Digest::from_bytes([2; 32]),
            provider: "test".into(),
            layers: vec![self.layer(&[("hello.txt", "hello\n"), ("sub/file", "old\n")])],
            host_paths: Vec::new(),
            env: Vec::new(),
            site: None,
            built_at: Timestamp(0),
            container: None,
        };
        InstanceSpec {
            id: InstanceId::from_random(random::bytes()),
            kind: InstanceKind::Service,
            service: ServiceId::from_random(random::bytes()),
            service_number: 1,
            title: "assistant v1".into(),
            command: command.into(),
            formation: Formation::default(),
            app: AppTree::Image { image: Box::new(image) },
            volumes: Vec::new(),
            binds: Vec::new(),
            env: vec![("PATH".into(), Secret::new("/usr/local/bin:/usr/bin:/bin".into()))],
            limits: Limits::default(),
            port: Some(8080),
            offline: false,
            links: Vec::new(),
        }
    }

    pub fn job(&self, command: &str) -> InstanceSpec {
        InstanceSpec { kind: InstanceKind::Job, port: None, ..self.spec(command) }
    }

    /// Runs to the end and returns it with the text of the log.
    pub async fn run(&self, spec: &InstanceSpec) -> (Exit, String) {
        if let Err(error) = self.sandbox.start(spec).await {
            return (Exit::Setup { message: error.message }, String::new());
        }
        let exit = self.ended(&spec.id).await;
        (exit, self.log(&spec.id).await)
    }

    pub async fn ended(&self, id: &InstanceId) -> Exit {
        wait_for("the instance to end", async || {
            match self.sandbox.inspect(id).await.unwrap().unwrap().state {
                InstanceState::Ended { exit, .. } => Some(exit),
                _ => None,
            }
        })
        .await
    }

    /// What the app wrote; not what its supervisor adds, such as how it ended.
    pub async fn log(&self, id: &InstanceId) -> String {
        let page = self.sandbox.logs(id, LogCursor::START, 1_000_000).await.unwrap();
        let said = page.lines.iter().filter(|line| line.stream != LogStream::System);
        said.map(|line| format!("{}\n", line.text)).collect()
    }

    /// What the supervisor added to the app's log.
    pub async fn notices(&self, id: &InstanceId) -> Vec<String> {
        let page = self.sandbox.logs(id, LogCursor::START, 1_000_000).await.unwrap();
        page.lines.into_iter().filter(|line| line.stream == LogStream::System).map(|line| line.text).collect()
    }

    pub async fn until_logged(&self, id: &InstanceId, text: &str) {
        wait_for(text, async || self.log(id).await.contains(text).then_some(())).await;
    }

    pub async fn pids(&self, id: &InstanceId) -> Vec<u32> {
        self.sandbox.inspect(id).await.unwrap().unwrap().pids
    }

    /// Ends everything and checks that nothing of this box is left.
    pub async fn close(self) {
        for status in self.sandbox.list().await.unwrap() {
            self.sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
            self.sandbox.remove(&status.id).await.unwrap();
        }
        let mark = self.data.file_name().unwrap().to_str().unwrap().to_owned();
        wait_for("shims to go", async || (!processes_mention(&mark)).then_some(())).await;
        let left: Vec<_> = std::fs::read_dir(&self.run).unwrap().flatten().collect();
        assert!(left.is_empty(), "sockets left: {left:?}");
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&mark), "mounts left");
        self.sandbox.dismantle();
        let tag = trackbed_stdx::paths::tag(&self.data);
        // Links have room for the first letters alone.
        for (place, mark) in [("/sys/fs/cgroup", &tag[..]), ("/sys/class/net", &tag[..5])] {
            let found =
                Command::new("find").args([place, "-maxdepth", "2", "-name", &format!("*{mark}*")]).output();
            let found = String::from_utf8_lossy(&found.unwrap().stdout).into_owned();
            assert_eq!(found, "", "left in {place}");
        }
        files::remove_tree(&self.data).unwrap();
        files::remove_tree(&self.run).unwrap();
    }
}

pub fn processes_mention(mark: &str) -> bool {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name != me
            && std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    })
}

pub async fn wait_for<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl BuildLog for Lines {
    fn line(&self, stream: LogStream, text: &str) {
        self.0.lock().unwrap().push(format!("{stream:?}: {text}"));
    }
}

pub fn refused(result: Result<(), PortError>) -> String {
    result.expect_err("it should have been refused").message
}

pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

pub fn kill(pid: u32) {
    signal(pid, nix::sys::signal::Signal::SIGKILL);
}

pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

//! A Docker, or a Podman, of a test's own: daemon, images and data below one folder, all of it gone at the end. Images are
//! made of this machine's own programs, so that no registry is needed. Both are spoken to by the command `docker`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a fixture panics when it must, says what it does not do, and needs no crash safety"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Programs that the base image has.
const PROGRAMS: [&str; 8] = [
    "/bin/sh",
    "/bin/sleep",
    "/bin/cat",
    "/bin/echo",
    "/usr/bin/head",
    "/bin/mkdir",
    "/usr/bin/id",
    "/bin/ls",
];
/// Debian's Python, which the base image may have, too.
const PYTHON: &str = "/usr/bin/python3";
const DAEMON_LIMIT: Duration = Duration::from_secs(60);

/// What Podman is told: a limit above this process's own could not be set without a capability that containers of test
/// machines have not.
const PODMAN_SETTINGS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";

/// A daemon.
pub struct Daemon {
    process: Child,
    folder: PathBuf,
    /// Docker's own bridge: builds by BuildKit are in the daemon's network.
    bridge: Option<String>,
}

impl Daemon {
    /// Starts one; where that cannot be, says aloud that `what` is not tested.
    pub fn start(what: &str) -> Option<Daemon> {
        let drawn = able("dockerd", "docker.io", what)?;
        let folder = PathBuf::from(format!("/var/tmp/trackbed-docker-{drawn}"));
        std::fs::create_dir_all(&folder).unwrap();
        let bridge = format!("tbk{drawn}");
        make_bridge(&bridge, &drawn);
        let mut daemon = Daemon { process: spawn(&folder, &bridge), folder, bridge: Some(bridge) };
        daemon.await_answer();
        Some(daemon)
    }

    /// Starts a Podman, with the same words where that cannot be.
    pub fn start_podman(what: &str) -> Option<Daemon> {
        let drawn = able("podman", "podman netavark catatonit", what)?;
        let folder = PathBuf::from(format!("/var/tmp/trackbed-podman-{drawn}"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut daemon = Daemon { process: spawn_podman(&folder), folder, bridge: None };
        daemon.await_answer();
        Some(daemon)
    }

    /// Kills it with SIGKILL and starts it anew on what it left.
    pub fn crash(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // Where the first process of a machine reaps nobody, dockerd takes the dead containerd for a living one.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.folder.join(left));
        }
        self.process = match &self.bridge {
            Some(bridge) => spawn(&self.folder, bridge),
            None => spawn_podman(&self.folder),
        };
        self.await_answer();
    }

    /// Has it stand still until [`Daemon::wake`]: it is there, and answers nobody.
    pub fn hang(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn wake(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {signal}");
    }

    /// Returns whether it is a Podman.
    pub fn is_podman(&self) -> bool {
        self.bridge.is_none()
    }

    fn await_answer(&mut self) {
        let deadline = Instant::now() + DAEMON_LIMIT;
        while self.ask(&["version"]).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            assert!(Instant::now() < deadline, "it does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Returns where it listens, as `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}/sock", self.folder.display())
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let said = Command::new("docker").args(["--host", &self.host()]).args(arguments).output().unwrap();
        if said.status.success() {
            return Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&said.stderr).into_owned())
    }

    /// Runs a command of `docker` and returns what it prints.
    pub fn docker(&self, arguments: &[&str]) -> String {
        self.ask(arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
    }

    /// Returns all containers, a line for each: name and state.
    pub fn containers(&self) -> String {
        self.docker(&["ps", "--all", "--format", "{{.Names}} {{.Status}}"])
    }

    /// Runs a command of `docker` and returns whether it went well.
    pub fn try_docker(&self, arguments: &[&str]) -> bool {
        self.ask(arguments).is_ok()
    }

    /// Makes an image of this machine's own programs, with or without Debian's Python.
    pub fn make_base(&self, name: &str, with_python: bool) {
        let script = "{ for p in \"$@\"; do echo \"$p\"; ldd \"$p\" | grep -o '/[^ ]*'; done; \
             test -z \"$PYTHON\" || find /usr/lib/python3.* /usr/lib/x86_64-linux-gnu/libsqlite3.so* \
             /usr/lib/x86_64-linux-gnu/libffi.so* -type f -o -type l | grep -v -e /test/ -e /__pycache__/ -e /lib2to3/; } | sort -u | \
             tar -chf - --absolute-names --no-recursion -T - | docker --host \"$HOST\" import - \"$NAME\"";
        let mut made = Command::new("sh");
        made.args(["-c", script, "sh"]).args(PROGRAMS).env("HOST", self.host()).env("NAME", name);
        if with_python {
            made.arg(PYTHON).env("PYTHON", "yes");
        }
        let said = made.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

/// Returns the letters by which a daemon's own things are known; none where there can be no daemon, which is said aloud.
fn able(program: &str, packages: &str, what: &str) -> Option<String> {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let has = |program: &str| {
        Command::new(program).arg("--version").output().is_ok_and(|said| said.status.success())
    };
    if !is_root || !has(program) || !has("docker") {
        eprintln!(
            "NOT TESTED (needs root, {program} and docker, `apt install {packages} docker.io`): {what}"
        );
        return None;
    }
    Some(std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap()[..8].to_owned())
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn make_bridge(name: &str, drawn: &str) {
    let part = |at: usize| u8::from_str_radix(&drawn[at..at + 2], 16).unwrap();
    let address = format!("10.{}.{}.1/24", 192 | part(0), part(2));
    assert!(ip(&["link", "add", name, "type", "bridge"]), "a bridge {name}");
    assert!(ip(&["address", "add", &address, "dev", name]) && ip(&["link", "set", name, "up"]), "{address}");
}

fn spawn(folder: &Path, bridge: &str) -> Child {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    std::fs::write(folder.join("daemon.json"), "{}").unwrap();
    Command::new("dockerd")
        .args(["--config-file", &at("daemon.json"), "--data-root", &at("data"), "--exec-root", &at("exec")])
        .args(["--pidfile", &at("pid"), "--host", &format!("unix://{}", at("sock"))])
        .args(["--bridge", bridge, "--iptables=false", "--ip-masq=false"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn spawn_podman(folder: &Path) -> Child {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    std::fs::write(folder.join("containers.conf"), PODMAN_SETTINGS).unwrap();
    Command::new("podman")
        .env("CONTAINERS_CONF", at("containers.conf"))
        .env("TMPDIR", folder)
        .current_dir(folder)
        .args(["--root", &at("data"), "--runroot", &at("run"), "--tmpdir", &at("tmp")])
        .args(["--network-config-dir", &at("net"), "--cgroup-manager=cgroupfs", "--events-backend=file"])
        .args(["system", "service", "--time=0", &format!("unix://{}", at("sock"))])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for (list, remove) in [
            (&["ps", "--all", "--quiet"][..], &["rm", "--force"][..]),
            (&["network", "ls", "--quiet", "--filter", "driver=bridge"], &["network", "rm"]),
        ] {
            for id in self.ask(list).unwrap_or_default().lines() {
                let _ = self.ask(&[remove, &[id]].concat());
            }
        }
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        if let Some(bridge) = &self.bridge {
            ip(&["link", "delete", bridge]);
        }
        // They leave some mounted, more so after a crash.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in below.filter(|place| Path::new(place).starts_with(&self.folder)) {
            let _ = Command::new("umount").args(["--lazy", place]).stderr(Stdio::null()).status();
        }
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.folder).status();
    }
}

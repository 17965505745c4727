//! A box under test: `trackbed serve` as a child on a folder of its own, and `trackbed` commands against it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::leftovers::Leftovers;
use crate::small_disk::{FileSystem, SmallDisk};
use crate::{Process, Response, http, wait_for};

/// Who the box runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The user of the test itself.
    Own,
    /// The ordinary user `trackbed-test`, made when it is missing. Only root can ask for it.
    Ordinary,
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

/// What `trackbed up --json` said.
#[derive(Debug, Clone)]
pub struct Up {
    /// Exit code.
    pub code: i32,
    /// Every object but the last.
    pub events: Vec<Value>,
    /// The last object: status, service, deployment, release, url, and on failure stage, reason, hint.
    pub last: Value,
}

impl Up {
    /// Returns a text of the last object, empty when there is none.
    pub fn text(&self, key: &str) -> &str {
        self.last[key].as_str().unwrap_or_default()
    }
}

/// A running box. Dropping it ends it and everything on it; a test that is not failing already fails on leftovers.
pub struct TestBox {
    /// Before the folder that it lies in: what is mounted below it must be gone first.
    disk: Option<SmallDisk>,
    home: TempDir,
    user: User,
    env: Vec<(String, String)>,
    serve_arguments: Vec<String>,
    binary: PathBuf,
    serve: Option<Child>,
}

const START_LIMIT: Duration = Duration::from_secs(20);
/// How long `serve` may take to end once `down --all` has answered.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Name of the ordinary user.
const ORDINARY: &str = "trackbed-test";

impl TestBox {
    /// Starts a box as the test's own user.
    pub fn start() -> TestBox {
        Self::start_with(User::Own, &[], &[])
    }

    /// Starts a box as a user, with further variables and arguments of `serve`.
    pub fn start_with(user: User, env: &[(&str, &str)], serve_arguments: &[&str]) -> TestBox {
        let mut prepared = Self::prepare(user, env, serve_arguments);
        prepared.start_serve();
        prepared
    }

    /// Starts a box that takes pushes and webhooks at a port of its own. The usual one goes to another test's box when this
    /// one is away for a moment.
    pub fn start_with_port_for_git() -> TestBox {
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        // Below those that the kernel gives away, in a range for each program of tests.
        let first = 12_000 + u16::try_from(std::process::id() % 180).expect("it is small") * 100;
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let mut ports =
            std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 100).take(100);
        let port = ports.find(free).expect("a free port");
        Self::start_with(User::Own, &[], &["--git-listen", &format!("127.0.0.1:{port}")])
    }

    /// Makes the folder of a box without starting it.
    pub fn prepare(user: User, env: &[(&str, &str)], serve_arguments: &[&str]) -> TestBox {
        let home = tempfile::Builder::new().prefix("tbx-").tempdir_in("/tmp").expect("a temporary folder");
        // As `/var/lib` is: without mounts, apps pass through it.
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(home.path(), passable).expect("our own folder");
        if user == User::Ordinary {
            make_ordinary_user();
            let path = home.path().to_string_lossy().into_owned();
            let status = Command::new("chown").args([ORDINARY, &path]).status().expect("chown runs");
            assert!(status.success(), "chown {path}");
        }
        TestBox {
            disk: None,
            home,
            user,
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            serve_arguments: serve_arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            binary: binary(),
            serve: None,
        }
    }

    /// Starts a box whose data directory is on a disk of its own.
    pub fn start_on(file_system: FileSystem, megabytes: u64) -> TestBox {
        let mut town = TestBox::prepare(User::Own, &[], &[]);
        town.disk = Some(SmallDisk::mount(town.home.path(), file_system, megabytes));
        town.start_serve();
        town
    }

    /// Returns the disk of [`TestBox::start_on`].
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("a box on a disk of its own")
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> PathBuf {
        // Below the mount point: what the box may leave mounted has the data directory in its path.
        self.disk.as_ref().map_or_else(|| self.home.path(), SmallDisk::path).join("data")
    }

    /// Where the commands of this box keep what only makes them quicker.
    pub fn cache(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// Sets a variable for every later command and `serve`; an empty value removes it.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.env.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Installs the binary under test into the box's folder, in place of what is there, and uses it from then on. What is
    /// added to its end changes nothing but what program it is.
    pub fn install(&mut self, added: &[u8]) {
        let (installed, fresh) = (self.home.path().join("trackbed"), self.home.path().join("trackbed.new"));
        // Written by another process: a test that starts a program at this moment would inherit our file, and one that is
        // open for writing cannot be executed.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat \"$0\" - > \"$1\" && chmod 755 \"$1\""])
            .args([&binary(), &fresh])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut input = writer.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, added).expect("a shell that reads");
        drop(input);
        assert!(writer.wait().expect("our child").success(), "no room for a copy of the binary");
        std::fs::rename(&fresh, &installed).expect("our own folder");
        self.binary = installed;
    }

    /// Starts `serve` and waits until it answers. The edge takes a free port, and keeps it across restarts.
    pub fn start_serve(&mut self) {
        self.spawn_serve();
        let log = self.home.path().join("serve.log");
        wait_for("serve answers", START_LIMIT, || {
            let ended = self.serve.as_mut().and_then(|child| child.try_wait().expect("our child"));
            assert!(
                ended.is_none(),
                "serve ended ({ended:?}): {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            self.trackbed(&["status", "--json"]).code == 0
        });
    }

    /// Starts `serve` without waiting for anything.
    pub fn spawn_serve(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("serve.log"));
        let log = log.expect("serve.log");
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(&self.serve_arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.serve =
            Some(command.spawn().expect("the binary under test runs; build it with `cargo build --release`"));
    }

    /// Kills `serve` with SIGKILL, as the kernel or an administrator might.
    pub fn kill_serve(&mut self) {
        if let Some(mut child) = self.serve.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until `serve` ends by itself and returns its exit code (128 + signal).
    pub fn wait_serve(&mut self) -> i32 {
        let mut child = self.serve.take().expect("serve was started");
        code_of(child.wait().expect("our child"))
    }

    /// Asks `serve` to end (SIGTERM) and returns its exit code.
    pub fn stop_serve(&mut self) -> i32 {
        kill(self.serve_process(), Signal::SIGTERM).expect("our child");
        self.wait_serve()
    }

    /// Stops `serve` where it stands.
    pub fn suspend_serve(&self) {
        kill(self.serve_process(), Signal::SIGSTOP).expect("our child");
    }

    /// Lets a stopped `serve` go on.
    pub fn resume_serve(&self) {
        kill(self.serve_process(), Signal::SIGCONT).expect("our child");
    }

    fn serve_process(&self) -> Pid {
        pid(self.serve.as_ref().expect("serve was started").id())
    }

    /// Kills a process with SIGKILL.
    pub fn kill_pid(&self, process: u64) {
        let _ = kill(pid(u32::try_from(process).expect("a process id")), Signal::SIGKILL);
    }

    /// Kills a process with SIGKILL if it still lives.
    pub fn kill_process(&self, process: Process) {
        if process.is_alive() {
            self.kill_pid(process.pid);
        }
    }

    /// Runs a command against this box.
    pub fn trackbed(&self, arguments: &[&str]) -> Output {
        self.trackbed_in(Path::new("/"), arguments)
    }

    /// Runs a command against this box from a folder.
    pub fn trackbed_in(&self, folder: &Path, arguments: &[&str]) -> Output {
        let mut command = self.command();
        let output = command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        Output {
            code: code_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command against this box without waiting for it.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command.args(arguments).current_dir("/").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    /// A command of the binary under test as the box's user, with the box chosen by its environment.
    pub fn command(&self) -> Command {
        let data_dir = self.data_dir();
        let mut command = match self.user {
            User::Own => Command::new(&self.binary),
            User::Ordinary => {
                let mut command = Command::new("setpriv");
                command.args([
                    "--reuid",
                    ORDINARY,
                    "--regid",
                    ORDINARY,
                    "--init-groups",
                    "--no-new-privs",
                    "--",
                ]);
                command
                    .arg(&self.binary)
                    .env("HOME", self.home.path())
                    .env("USER", ORDINARY)
                    .env("LOGNAME", ORDINARY);
                command
            }
        };
        command.env("TRACKBED_DATA_DIR", data_dir).env_remove("TRACKBED_HOST");
        command.env("XDG_CACHE_HOME", self.cache());
        if let Some(uv) = crate::uv_folder() {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", uv.display()));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command that prints JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.trackbed(arguments);
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("`{arguments:?}`: {error}: {output:?}"))
    }

    /// Deploys a folder, also when nothing has changed: a test wants a deployment.
    pub fn up(&self, source: &Path, arguments: &[&str]) -> Up {
        let source = source.to_string_lossy().into_owned();
        let mut all = vec!["up", &source, "--json", "--anew"];
        all.extend(arguments);
        let output = self.trackbed(&all);
        let mut events: Vec<Value> =
            output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let last = events.pop().unwrap_or_else(|| panic!("`up` said nothing: {output:?}"));
        Up { code: output.code, events, last }
    }

    /// Deploys a folder and expects it to become live.
    pub fn up_ok(&self, source: &Path) -> Up {
        let up = self.up(source, &[]);
        assert_eq!(
            (up.code, up.text("status")),
            (0, "success"),
            "{:#}\nserve: {}",
            up.last,
            self.serve_log()
        );
        up
    }

    /// What `status --json` says of a service.
    pub fn service(&self, name: &str) -> Value {
        let status = self.json(&["status", "--json"]);
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services.into_iter().find(|service| service["service"] == name).unwrap_or(Value::Null)
    }

    /// Waits until a service is in a state.
    pub fn wait_state(&self, name: &str, state: &str, limit: Duration) {
        wait_for(&format!("{name} is {state}"), limit, || self.service(name)["state"] == state);
    }

    /// The edge's port.
    pub fn port(&self) -> u16 {
        let status = self.json(&["status", "--json"]);
        let listen = status["box"]["edge"]["listen"].as_str().expect("an edge").to_owned();
        listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address")
    }

    /// The edge's process; waits for one when the last was killed a moment ago.
    pub fn edge_pid(&self) -> u64 {
        let mut pid = None;
        wait_for("there is an edge", START_LIMIT, || {
            pid = self.json(&["status", "--json"])["box"]["edge"]["pid"].as_u64();
            pid.is_some()
        });
        pid.expect("waited for")
    }

    /// Sends a request to a service through the edge.
    pub fn request(&self, service: &str, method: &str, path: &str, body: &str) -> Response {
        let port = self.port();
        http::request(port, &format!("{service}.localhost:{port}"), method, path, body)
            .expect("the edge answers")
    }

    /// A GET to a service through the edge.
    pub fn get(&self, service: &str, path: &str) -> Response {
        self.request(service, "GET", path, "")
    }

    /// What is written on the disk of the living instances: the folder of each, with its shim's process id.
    pub fn living_instances(&self) -> Vec<(PathBuf, u64)> {
        let folders = std::fs::read_dir(self.data_dir().join("instances")).into_iter().flatten().flatten();
        let shim_of = |folder: &Path| {
            let state: Value =
                serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()?;
            let shim = state["shim"]["pid"].as_u64()?;
            let line = std::fs::read(format!("/proc/{shim}/cmdline")).ok()?;
            String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy()).then_some(shim)
        };
        folders.filter_map(|entry| Some((entry.path(), shim_of(&entry.path())?))).collect()
    }

    /// The process of `serve`.
    pub fn serve_pid(&self) -> u64 {
        self.serve.as_ref().expect("serve was started").id().into()
    }

    /// What `serve` wrote to its log.
    pub fn serve_log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("serve.log")).unwrap_or_default()
    }

    /// Ends everything with `down --all` and returns what is left of it.
    pub fn end(&mut self) -> Leftovers {
        if self.serve.is_none() && self.trackbed(&["status", "--json"]).code != 0 && self.data_dir().exists()
        {
            self.start_serve();
        }
        let down = self.trackbed(&["down", "--all"]);
        if down.code != 0 {
            eprintln!("down --all: {down:?}\nserve: {}", self.serve_log());
        }
        if let Some(mut child) = self.serve.take() {
            let deadline = std::time::Instant::now() + END_LIMIT;
            while child.try_wait().expect("our child").is_none() {
                if std::time::Instant::now() > deadline {
                    eprintln!("serve did not end; killed");
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let mut left = Leftovers::default();
        // Killed processes are gone only when their new parent has waited for them.
        for _ in 0..100 {
            left = Leftovers::of(&self.data_dir(), &tag(&self.data_dir()));
            if left.0.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        left
    }
}

impl Drop for TestBox {
    fn drop(&mut self) {
        if !self.data_dir().exists() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("serve said:\n{}", self.serve_log());
        }
        let left = self.end();
        if !std::thread::panicking() {
            assert_eq!(left, Leftovers::default(), "the box left something behind");
        }
    }
}

/// The binary under test: `TRACKBED_BIN`, or what `cargo build --release` made.
pub(crate) fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("TRACKBED_BIN") {
        return named.into();
    }
    target_folder().join("release/trackbed")
}

/// The folder that cargo builds into.
pub(crate) fn target_folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// The mark that the box puts into kernel names: FNV-1a of its data directory, as `stdx::paths::tag` computes it.
fn tag(data_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = data_dir.as_os_str().as_bytes();
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

fn make_ordinary_user() {
    let known = Command::new("id").arg(ORDINARY).output().is_ok_and(|output| output.status.success());
    if !known {
        // Two tests may try at once: what counts is that the user is there afterwards.
        let _ = Command::new("useradd").args(["--create-home", ORDINARY]).output();
        let made = Command::new("id").arg(ORDINARY).output().is_ok_and(|output| output.status.success());
        assert!(made, "cannot make the ordinary user `{ORDINARY}`");
    }
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("a process id"))
}

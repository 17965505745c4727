//! The witnesses of two writers are believed only because they speak when there are two.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use trackbed_tests::{App, Process, Writers, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// Processes that end with the test.
struct Ended(Vec<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn writer(app: &App, volume: &Path, instance: &str) -> Child {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = port.local_addr().expect("it is bound").port();
    let mut command = Command::new("python3");
    command.arg(app.path().join("app.py")).env("TRACKBED_VOLUME_MOUNT_PATH", volume);
    command.env("TRACKBED_SERVICE", "ledger").env("TRACKBED_RELEASE", "v1");
    command.env("TRACKBED_INSTANCE_ID", instance).env("PORT", port.to_string());
    command.spawn().expect("python3 runs")
}

#[test]
fn the_writer_app_accuses_another_one_of_the_same_volume() {
    let (app, volume) = (App::writer("ledger"), tempfile::tempdir().expect("a temporary folder"));
    let accusations = || std::fs::read_to_string(volume.path().join("violations")).unwrap_or_default();
    let mut writers = Ended(vec![writer(&app, volume.path(), "ins_one")]);
    wait_for("the first one writes", PATIENCE, || volume.path().join("app.db").exists());
    writers.0.push(writer(&app, volume.path(), "ins_two"));
    // By the lock, which a newcomer does not get, and by the claim, which the other finds gone.
    wait_for("both find out", PATIENCE, || {
        accusations().contains("ins_two: the lock is taken")
            && accusations().contains("ins_one: ins_two writes")
    });
}

#[test]
fn the_writer_app_accuses_nobody_when_one_follows_the_other_by_kill() {
    let (app, volume) = (App::writer("ledger"), tempfile::tempdir().expect("a temporary folder"));
    let claimed = |instance: &str| {
        let asked = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT instance FROM writer').fetchone())";
        let said = Command::new("python3").args(["-c", asked]).arg(volume.path().join("app.db")).output();
        String::from_utf8_lossy(&said.expect("python3 runs").stdout).trim() == instance
    };
    for instance in ["ins_one", "ins_two", "ins_three"] {
        let writer = Ended(vec![writer(&app, volume.path(), instance)]);
        wait_for("it writes", PATIENCE, || claimed(instance));
        drop(writer);
    }
    assert!(!volume.path().join("violations").exists());
}

/// Puts an instance on record whose "app" is a child of the shell that stands for its init.
#[allow(clippy::disallowed_methods, reason = "records that need no crash safety")]
fn pretend(data_dir: &Path, id: &str, lock: &Path) -> Group {
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 600 & wait"]).stdin(Stdio::null());
    let init = Group(shell.process_group(0).spawn().expect("sh runs"));
    let folder = data_dir.join("instances").join(id);
    std::fs::create_dir_all(&folder).expect("our own folder");
    let order = json!({
        "id": id, "kind": "service", "title": "ledger v1",
        "volumes": [{ "lock_path": lock }], "cgroup": { "dirs": [] },
    });
    let of = |pid: u32| {
        let process = Process::find(pid.into()).expect("it lives");
        json!({ "pid": process.pid, "start_time": process.start })
    };
    let state = json!({ "shim": of(std::process::id()), "init": of(init.0.id()) });
    std::fs::write(folder.join("spec.json"), order.to_string()).expect("our own folder");
    std::fs::write(folder.join("state.json"), state.to_string()).expect("our own folder");
    init
}

/// A process and all of its group, which end with the test.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Watches pretended instances until something is said or the time is over.
fn accusations(count: usize, locked: bool) -> Vec<String> {
    let data_dir = tempfile::tempdir().expect("a temporary folder");
    let lock = data_dir.path().join("lock");
    let file = std::fs::File::create(&lock).expect("our own folder");
    let _held =
        locked.then(|| nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).expect("free"));
    let inits: Vec<Group> =
        (0..count).map(|number| pretend(data_dir.path(), &format!("ins_{number}"), &lock)).collect();
    let writers = Writers::watch(data_dir.path());
    wait_for("it has looked", PATIENCE, || writers.looks() > 20);
    let watched = writers.end();
    drop(inits);
    watched.violations
}

#[test]
fn the_watcher_accuses_an_app_without_the_lock_and_two_apps_at_once_and_nobody_else() {
    assert_eq!(accusations(1, true), Vec::<String>::new());
    assert!(
        accusations(1, false)
            .iter()
            .any(|said| said.contains("ins_0 runs") && said.contains("without its lock"))
    );
    let two = accusations(2, true);
    assert!(two.iter().any(|said| said.contains("ins_0 ran") && said.contains("when ins_1 ran")), "{two:?}");
}

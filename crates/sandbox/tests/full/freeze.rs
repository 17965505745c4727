//! How instances are made to stand still, by every means that a box may have, and who lets them go.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use trackbed_core::InstanceId;
use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel::Full;
use trackbed_core::ports::{Engine, Frozen, PortError};
use trackbed_sandbox::{Config, Sandbox};

use crate::world::{self, Lines, World, wait_for};

/// Longer than any test needs; the engine has a limit of its own.
const LONG: Duration = Duration::from_secs(60);
/// Controllers that a box may lack: none, the switch of v2, both switches.
const LACKS: [&[&str]; 3] = [&[], &["unified"], &["freezer", "unified"]];

/// Appends to a file as fast as it can.
const WRITER: &str = "echo up; while :; do echo x >> /data/x; done";

/// Processes with threads, all of which write; children that live for a moment; and children that have not yet got a
/// program of their own.
const CROWD: &str = r#"
import os, subprocess, threading, time
def write(name):
    with open("/data/" + name, "ab", buffering=0) as file:
        while True:
            file.write(b"x")
            time.sleep(0.001)
def threads(name):
    for number in range(3):
        threading.Thread(target=write, args=(f"{name}-{number}",), daemon=True).start()
def storm():
    while True:
        if os.fork() == 0:
            if os.fork() == 0:
                with open("/data/storm", "ab") as file:
                    file.write(b"x")
            os._exit(0)
        os.wait()
def programs():
    while True:
        subprocess.run(["/bin/true"])
        with open("/data/programs", "ab") as file:
            file.write(b"x")
for body in [storm, programs]:
    if os.fork() == 0:
        body()
for number in range(3):
    if os.fork() == 0:
        threads(f"child{number}")
        time.sleep(1000)
threads("parent")
print("up", flush=True)
time.sleep(1000)
"#;

/// An app with a volume, and the volume's directory.
async fn start(world: &World, command: &str) -> (InstanceSpec, std::path::PathBuf) {
    let volume = world.volume("/data");
    let folder = volume.host_path.clone().into();
    let mut app = InstanceSpec { volumes: vec![volume], ..world.spec(command) };
    let AppTree::Image { image } = &mut app.app else { panic!("an image") };
    image.layers = vec![world.layer(&[("crowd.py", CROWD)])];
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    (app, folder)
}

/// Sizes and names of all files.
fn state_of(folder: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len())
        })
        .collect();
    files.sort();
    files
}

async fn grows(folder: &Path) {
    let before = state_of(folder);
    wait_for("the app to write", async || (state_of(folder) != before).then_some(())).await;
}

/// Nothing may be written for a while: a test of what does not happen can only look long enough.
async fn stands_still(folder: &Path) {
    let before = state_of(folder);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(state_of(folder), before, "it writes although it is frozen");
    }
}

async fn are_gone(pids: &[u32]) {
    let any = || pids.iter().any(|pid| world::exists(&format!("/proc/{pid}")));
    wait_for("the processes to go", async || (!any()).then_some(())).await;
}

/// The controller that keeps an instance still now, or none when signals do.
fn frozen_by(id: &InstanceId) -> Option<&'static str> {
    let switches = [("unified", "cgroup.freeze", "1"), ("freezer", "freezer.state", "FROZEN")];
    let is_on = |controller: &str, file: &str, on: &str| {
        let pattern = format!("/sys/fs/cgroup/{controller}/trackbed-*/{id}/{file}");
        let found = Command::new("/bin/sh").args(["-c", &format!("cat {pattern} 2>/dev/null")]).output();
        String::from_utf8_lossy(&found.unwrap().stdout).trim() == on
    };
    switches.into_iter().find(|(controller, file, on)| is_on(controller, file, on)).map(|switch| switch.0)
}

/// A box that has more to do than it can may not let every process come to its stop in time: asked again, it does.
async fn freeze(world: &World, id: &InstanceId) -> Box<dyn Frozen> {
    wait_for("the app to stand still", async || match world.sandbox.freeze(id, LONG).await {
        Ok(frozen) => Some(frozen),
        Err(error) if error.message.contains("did not stand still within") => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

fn why(result: Result<Duration, PortError>) -> String {
    result.expect_err("it did not stand still until the end").message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_app_writes_nothing_and_then_goes_on() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, WRITER).await;
        grows(&folder).await;
        for _ in 0..3 {
            let frozen = freeze(&world, &app.id).await;
            stands_still(&folder).await;
            // On a box with v2 alone the path is another one, and nothing is lacking here.
            if std::path::Path::new("/sys/fs/cgroup/unified").exists() {
                let best = ["unified", "freezer"].into_iter().find(|switch| !lacks.contains(switch));
                assert_eq!(frozen_by(&app.id), best);
            }
            let stood_still = frozen.thaw().await.unwrap();
            assert!(stood_still >= Duration::from_millis(200), "{stood_still:?}");
            grows(&folder).await;
        }
        world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_processes_and_threads_stands_still_together() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, "exec python3 crowd.py").await;
        grows(&folder).await;
        for _ in 0..5 {
            let frozen = freeze(&world, &app.id).await;
            stands_still(&folder).await;
            frozen.thaw().await.unwrap();
            for name in ["storm", "programs", "child1-1", "parent-2"] {
                let before = std::fs::metadata(folder.join(name)).map_or(0, |data| data.len());
                let size = async || Some(std::fs::metadata(folder.join(name)).ok()?.len());
                wait_for(name, async || size().await.filter(|size| *size > before)).await;
            }
        }
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_never_sees_its_child_stopped() {
    let script = r#"
import os, signal, time
child = os.fork()
if child == 0:
    while True:
        time.sleep(0.01)
signal.signal(signal.SIGCHLD, lambda *_: None)
print("up", flush=True)
while True:
    pid, status = os.waitpid(-1, os.WUNTRACED | os.WNOHANG)
    if pid:
        print("saw", status, flush=True)
    open("/data/x", "a").write("x")
"#;
    let Some(world) = World::lacking(Full, &["freezer", "unified"]) else { return };
    let (app, folder) = start(&world, &format!("exec python3 -c '{script}'")).await;
    for _ in 0..20 {
        freeze(&world, &app.id).await.thaw().await.unwrap();
        grows(&folder).await;
    }
    assert_eq!(world.log(&app.id).await, "up\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_has_stopped_itself_stays_stopped() {
    let Some(world) = World::lacking(Full, &["freezer", "unified"]) else { return };
    let command = "(while :; do echo x >> /data/stopped; done) & kill -STOP $!; \
                   until grep -q '^State:.T' /proc/$!/status; do :; done; echo up; \
                   while :; do echo x >> /data/x; done";
    let (app, folder) = start(&world, command).await;
    let stopped = || std::fs::metadata(folder.join("stopped")).map_or(0, |data| data.len());
    let before = stopped();
    freeze(&world, &app.id).await.thaw().await.unwrap();
    grows(&folder).await;
    assert_eq!(stopped(), before);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_limit_a_freeze_ends_and_its_holder_hears_so() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, WRITER).await;
        let frozen = world.sandbox.freeze(&app.id, Duration::from_millis(300)).await.unwrap();
        grows(&folder).await;
        let message = why(frozen.thaw().await);
        assert!(message.contains("let go at its limit of 300 ms"), "{message}");
        freeze(&world, &app.id).await.thaw().await.unwrap();
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_dropped_lets_the_app_go() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, WRITER).await;
        drop(freeze(&world, &app.id).await);
        grows(&folder).await;
        // And one that is given up before it came to be.
        tokio::select! {
            biased;
            () = std::future::ready(()) => {}
            _ = world.sandbox.freeze(&app.id, LONG) => {}
        }
        grows(&folder).await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_app_answers_questions_about_itself_and_is_frozen_once() {
    let Some(world) = World::full() else { return };
    let (app, folder) = start(&world, WRITER).await;
    let frozen = freeze(&world, &app.id).await;
    let looked = async {
        let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
        assert_eq!(status.state, InstanceState::Running);
        assert!(status.pids.len() > 1, "{status:?}");
        assert_eq!(world.sandbox.list().await.unwrap().len(), 1);
        assert!(world.log(&app.id).await.contains("up"));
        assert!(world.sandbox.stats(&app.id).await.unwrap().pids > 1);
        world.sandbox.listeners(&app.id).await.unwrap();
        world.sandbox.address(&app.id, 8080).await.unwrap();
        let message = world.sandbox.freeze(&app.id, LONG).await.err().unwrap().message;
        assert!(message.contains("it is frozen already"), "{message}");
        world.sandbox.reconcile(&|_| true).unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.unwrap();
    stands_still(&folder).await;
    frozen.thaw().await.expect("nobody else has let it go");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_runs_can_be_frozen() {
    let Some(world) = World::full() else { return };
    let app = world.spec("exit 3");
    let unknown = world.sandbox.freeze(&app.id, LONG).await.err().unwrap().message;
    assert!(unknown.contains("is unknown"), "{unknown}");
    world.run(&app).await;
    let ended = world.sandbox.freeze(&app.id, LONG).await.err().unwrap().message;
    assert!(ended.contains("does not run: it exited with code 3"), "{ended}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_end_a_frozen_app_is_obeyed() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let polite = "trap 'echo bye; exit 9' TERM; echo up; while :; do echo x >> /data/x; done";
        let (app, _) = start(&world, polite).await;
        let frozen = freeze(&world, &app.id).await;
        world.sandbox.stop(&app.id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(world.ended(&app.id).await, Exit::Code { code: 9 });
        assert!(why(frozen.thaw().await).contains("asked to end"));

        let (app, _) = start(&world, polite).await;
        let frozen = freeze(&world, &app.id).await;
        world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
        assert_eq!(world.ended(&app.id).await, Exit::Signal { signal: libc::SIGKILL });
        assert!(why(frozen.thaw().await).contains("killed"));
        assert!(!world.log(&app.id).await.contains("bye"));

        let (app, folder) = start(&world, WRITER).await;
        let frozen = freeze(&world, &app.id).await;
        let command = ["echo".to_owned(), "hello".to_owned()];
        let lines = Lines::default();
        assert!(world.sandbox.exec(&app.id, &command, &[], &lines).await.unwrap().is_success());
        grows(&folder).await;
        assert!(why(frozen.thaw().await).contains("a command was run"));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_app_whose_shim_is_killed_is_lost_and_leaves_nothing() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, _) = start(&world, "exec python3 crowd.py").await;
        let frozen = freeze(&world, &app.id).await;
        let pids = world.pids(&app.id).await;
        assert!(pids.len() > 5, "{pids:?}");
        world::kill(pids[0]);
        // Nobody asks: it is let go, and dies, by itself.
        are_gone(&pids).await;
        assert!(why(frozen.thaw().await).contains("closed the line"));
        assert_eq!(world.ended(&app.id).await, Exit::Lost);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_shim_cannot_freeze_is_left_alone_and_the_way_out_is_told() {
    let Some(world) = World::full() else { return };
    let (app, folder) = start(&world, WRITER).await;
    let socket = world.run.join(format!("{}.sock", app.id));
    let aside = world.run.join("aside");
    std::fs::rename(&socket, &aside).unwrap();
    // What a shim of the version before says to a request that it does not know.
    let earlier = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        let (stream, _) = earlier.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&stream).read_line(&mut asked).unwrap();
        let error = "cannot read the request: unknown variant `freeze`, expected one of `status`, `stop`";
        writeln!(&stream, r#"{{"version":1,"error":"{error}","exit":null}}"#).unwrap();
        asked
    });
    let error = world.sandbox.freeze(&app.id, LONG).await.err().unwrap();
    assert!(error.hint.unwrap().contains("restart the service once"), "{}", error.message);
    assert!(answering.join().unwrap().contains(r#""ask":"freeze","limit_ms":5000"#));
    grows(&folder).await;
    std::fs::rename(&aside, &socket).unwrap();
    freeze(&world, &app.id).await.thaw().await.unwrap();
    world.close().await;
}

/// Another control plane of the same box, which has frozen an instance.
struct Holder(Child);

impl Holder {
    fn freeze(world: &World, id: &InstanceId) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "freeze::holds_an_instance_still", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asked = format!("{}\n{}\n{id}\n", world.data.display(), world.run.display());
        child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("it stands still")), "the other process has failed");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below, as another process"]
async fn holds_an_instance_still() {
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let [data, run, id] = std::array::from_fn(|_| lines.next().unwrap());
    let config = Config {
        data_dir: data.into(),
        run_dir: run.into(),
        binary: world::shim_binary(),
        level: Some(Full),
    };
    let sandbox = Sandbox::open(config).unwrap();
    let _frozen = sandbox.freeze(&id.parse().unwrap(), LONG).await.unwrap();
    println!("it stands still");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_killed_lets_the_app_go() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, WRITER).await;
        let holder = Holder::freeze(&world, &app.id);
        stands_still(&folder).await;
        drop(holder);
        grows(&folder).await;
        freeze(&world, &app.id).await.thaw().await.unwrap();
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_control_plane_and_a_dead_shim_left_frozen_is_ended_by_the_next_one() {
    for lacks in LACKS {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, _) = start(&world, "exec python3 crowd.py").await;
        let holder = Holder::freeze(&world, &app.id);
        let pids = world.pids(&app.id).await;
        // Stopped, so that it cannot mend what happens to the shim.
        world::signal(holder.0.id(), Signal::SIGSTOP);
        world::kill(pids[0]);
        drop(holder);
        world.sandbox.reconcile(&|_| true).unwrap();
        assert_eq!(world.ended(&app.id).await, Exit::Lost);
        are_gone(&pids).await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hanging_shim_keeps_frozen_is_let_go_by_the_next_control_plane() {
    for lacks in [LACKS[0], LACKS[1]] {
        let Some(world) = World::lacking(Full, lacks) else { return };
        let (app, folder) = start(&world, WRITER).await;
        let holder = Holder::freeze(&world, &app.id);
        let shim = world.pids(&app.id).await[0];
        world::signal(shim, Signal::SIGSTOP);
        drop(holder);
        stands_still(&folder).await;
        world.sandbox.reconcile(&|_| true).unwrap();
        grows(&folder).await;
        world::signal(shim, Signal::SIGCONT);
        // The one that hung notices that its holder has gone, and all is as before.
        let refreeze = async || world.sandbox.freeze(&app.id, LONG).await.ok();
        let frozen = wait_for("the shim to go on", refreeze).await;
        stands_still(&folder).await;
        frozen.thaw().await.unwrap();
        world.close().await;
    }
}

//! The lower levels: root with user namespaces, with nothing, and an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod beside;
mod data;
mod world;

use std::process::Command;
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel::{self, Landlock, Plain, Userns};
use trackbed_core::ports::{Engine, JobEnd, JobRunner};
use trackbed_core::route::Address;
use world::{Lines, World, refused, wait_for};

const USER: &str = "trackbed-test";

/// What every level must do, whoever runs it.
async fn check(level: IsolationLevel) {
    let world = World::new(level);
    assert_eq!(world.sandbox.isolation().level, level);
    assert!(!world.sandbox.isolation().missing.is_empty());
    let inside = level == Userns;
    let mount = if inside { "/data" } else { "/app/data" };
    let volume = world.volume(mount);
    let with_volume = |command: &str| InstanceSpec { volumes: vec![volume.clone()], ..world.spec(command) };

    let (exit, log) = world
        .run(&with_volume(&format!(
            "cat hello.txt; echo new > sub/file && cat sub/file; echo kept > {}; ls /root /home; \
             grep -E 'CapEff|NoNew|Seccomp:' /proc/self/status; unshare -U true; exit 7",
            if inside { "/data/f" } else { "data/f" }
        )))
        .await;
    assert_eq!(exit, Exit::Code { code: 7 }, "{log}");
    for wanted in [
        "hello\n",
        "new\n",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Operation not permitted",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in\n{log}");
    }
    match level {
        Userns => assert!(log.contains("'/root': No such file"), "{log}"),
        Landlock => assert!(log.contains("Permission denied"), "{log}"),
        IsolationLevel::Full | Plain => {}
    }
    assert_eq!(std::fs::read_to_string(format!("{}/f", volume.host_path)).unwrap(), "kept\n");

    // A daemon that left its session keeps the volume until the instance is ended, and is ended with it.
    let daemon = with_volume("setsid sh -c 'trap \"\" TERM HUP; sleep 1001' & echo up; wait");
    world.sandbox.start(&daemon).await.unwrap();
    world.until_logged(&daemon.id, "up").await;
    assert!(refused(world.sandbox.start(&with_volume("true")).await).contains("is in use by assistant v1"));
    let pids = world.pids(&daemon.id).await;
    assert!(pids.len() >= 3, "{pids:?}");
    world.sandbox.stop(&daemon.id, Duration::from_millis(200)).await.unwrap();
    for pid in pids {
        // A zombie is nobody; its parent is pid 1 of the box.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    }
    assert!(trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().is_some());

    // A shim that is killed takes everything along, at the latest when somebody looks.
    let orphan = with_volume("setsid sh -c 'trap \"\" TERM HUP; sleep 1002' & echo up; wait");
    world.sandbox.start(&orphan).await.unwrap();
    world.until_logged(&orphan.id, "up").await;
    let pids = world.pids(&orphan.id).await;
    world::kill(pids[0]);
    assert_eq!(world.ended(&orphan.id).await, Exit::Lost);
    for pid in pids {
        wait_for("the processes to go", async || (!world::exists(&format!("/proc/{pid}"))).then_some(()))
            .await;
    }

    let port = world.sandbox.free_port().await.unwrap();
    assert_ne!(port, world.sandbox.free_port().await.unwrap());
    let server = world.spec(&format!("exec /usr/bin/python3 -m http.server --bind 127.0.0.1 {port}"));
    world.sandbox.start(&server).await.unwrap();
    wait_for("the server to listen", async || {
        (world.sandbox.listeners(&server.id).await.unwrap() == [Listener { port, loopback_only: true }])
            .then_some(())
    })
    .await;
    let address = world.sandbox.address(&server.id, port).await.unwrap();
    assert_eq!(address, Address(format!("tcp:127.0.0.1:{port}")));
    assert!(world.sandbox.stats(&server.id).await.unwrap().memory_bytes > 0);
    let lines = Lines::default();
    let command = ["cat".to_owned(), "hello.txt".to_owned()];
    assert!(world.sandbox.exec(&server.id, &command, &[], &lines).await.unwrap().is_success());
    assert_eq!(lines.0.into_inner().unwrap(), ["Out: hello"]);
    // SIGTERM ends a program that has no handler, because it is not pid 1.
    world.sandbox.stop(&server.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.ended(&server.id).await, Exit::Signal { signal: libc::SIGTERM });

    check_processes(&world, level).await;
    let staging = world.data.join("staging");
    std::fs::create_dir_all(&staging).unwrap();
    let mut job = world.job("echo made > made; pwd; exit 3");
    job.app = AppTree::Directory { path: staging.display().to_string() };
    let end = world.sandbox.run_job(job, Duration::from_secs(20), &Lines::default()).await.unwrap();
    assert_eq!(end, JobEnd::Exit(Exit::Code { code: 3 }));
    assert_eq!(std::fs::read_to_string(staging.join("made")).unwrap(), "made\n");
    if !inside {
        let mut outside = world.spec("true");
        outside.volumes = vec![world.volume("/data")];
        assert!(refused(world.sandbox.start(&outside).await).contains("no mounts"));
    }
    world.close().await;
}

/// What multiplies without end is refused wherever the kernel can count it: by group, or in a user namespace of its own.
async fn check_processes(world: &World, level: IsolationLevel) {
    let unlimited = world.sandbox.isolation().missing.iter().any(|what| what.starts_with("process limit"));
    let is_root = nix::unistd::geteuid().is_root();
    if unlimited {
        assert!(is_root || level != Userns, "an ordinary user's namespaces count");
        return;
    }
    let mut bomb = world.job("while :; do sleep 1000 & done");
    bomb.limits.pids = Some(40);
    let lines = Lines::default();
    let end = world.sandbox.run_job(bomb, Duration::from_secs(60), &lines).await.unwrap();
    let said = lines.0.into_inner().unwrap();
    assert!(matches!(end, JobEnd::Exit(Exit::Code { code: 1.. })), "{end:?}: {said:?}");
    assert_eq!(said.last().map(String::as_str), Some("System: was refused more than 40 processes at once"));
    // Another one has a count of its own.
    let mut many = world.job("for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2 & done; wait");
    many.limits.pids = Some(40);
    let end = world.sandbox.run_job(many, Duration::from_secs(60), &Lines::default()).await.unwrap();
    assert_eq!(end, JobEnd::Exit(Exit::Code { code: 0 }));
}

/// Says goodbye when it is asked to end, and takes a moment for it.
const POLITE: &str = r#"
import signal, sys, time
def end(*_):
    time.sleep(0.3)
    print("said goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    time.sleep(1)
"#;

#[tokio::test]
async fn an_app_behind_a_shell_ends_gracefully() {
    for level in [IsolationLevel::Full, Userns, Landlock, Plain] {
        let world = match level {
            IsolationLevel::Full => World::full(),
            _ => Some(World::new(level)),
        };
        let Some(world) = world else { continue };
        for command in ["python3 app.py", "true && python3 app.py", "setsid python3 app.py & wait"] {
            let mut app = world.spec(command);
            let AppTree::Image { image } = &mut app.app else { panic!("an image") };
            image.layers = vec![world.layer(&[("app.py", POLITE)])];
            world.sandbox.start(&app).await.unwrap();
            world.until_logged(&app.id, "up").await;
            let begun = std::time::Instant::now();
            world.sandbox.stop(&app.id, Duration::from_secs(20)).await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(10), "{level:?} {command}");
            let exit = world.ended(&app.id).await;
            assert_ne!(exit, Exit::Signal { signal: libc::SIGKILL }, "{level:?} {command}");
            assert!(world.log(&app.id).await.contains("said goodbye"), "{level:?} {command}: {exit}");
        }
        world.close().await;
    }
}

#[tokio::test]
async fn root_at_userns() {
    check(Userns).await;
}

#[tokio::test]
async fn the_data_of_apps_at_userns() {
    data::check(Userns).await;
}

#[tokio::test]
async fn root_at_landlock() {
    check(Landlock).await;
}

#[tokio::test]
async fn the_data_of_apps_at_landlock() {
    data::check(Landlock).await;
}

#[tokio::test]
async fn root_at_plain() {
    check(Plain).await;
}

#[tokio::test]
async fn the_data_of_apps_at_plain() {
    data::check(Plain).await;
}

#[tokio::test]
async fn several_processes_at_every_level() {
    for level in [Userns, Landlock, Plain] {
        beside::check(level).await;
    }
}

#[tokio::test]
#[ignore = "run by the test below, as another user"]
async fn as_somebody_else() {
    for level in [Userns, Landlock, Plain] {
        check(level).await;
        data::check(level).await;
        beside::check(level).await;
    }
}

#[test]
fn an_ordinary_user() {
    // Without root, every test of this file already runs as an ordinary user.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let known = Command::new("id").args(["-u", USER]).output().unwrap();
    if !known.status.success() {
        assert!(Command::new("useradd").args(["--no-create-home", USER]).status().unwrap().success());
    }
    let output = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "as_somebody_else", "--ignored", "--nocapture"])
        .current_dir("/")
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

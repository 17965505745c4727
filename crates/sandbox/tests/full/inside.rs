//! What an instance sees of the box, and what it may do to it.

use std::process::Command;
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel::Full;
use trackbed_core::ports::{Engine, JobEnd, JobRunner};
use trackbed_sandbox::{Config, Sandbox};

use crate::world::{self, Lines, World, refused, wait_for};

#[tokio::test]
async fn the_inside_shows_nothing_of_the_box() {
    let Some(world) = World::full() else { return };
    assert_eq!(world.sandbox.isolation().missing, Vec::<String>::new());
    let (exit, log) = world
        .run(&world.spec(
            "cat /etc/shadow; ls /root; cat hello.txt; id -u; pwd; mount -t tmpfs x /tmp; touch /usr/x; \
             echo 1 > /proc/sys/kernel/hostname; unshare -U true; ls /proc | grep -c '^[0-9]'; \
             grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; echo new > sub/file && cat sub/file; echo $PATH; hostname; \
             ls /; cat /etc/passwd; ls -la /dev; python3 -c 'import socket;socket.socket(socket.AF_INET,socket.SOCK_RAW,1)'; exit 7",
        ))
        .await;
    println!("{log}");
    assert_eq!(exit, Exit::Code { code: 7 });
    for wanted in [
        "/etc/shadow: No such file",
        "'/root': No such file",
        "hello\n",
        "\n10001\n",
        "\n/app\n",
        "Read-only file system",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapBnd:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "unshare: unshare failed: Operation not permitted",
        "\nnew\n",
        "trackbed\n",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in\n{log}");
    }
    world.close().await;
}

#[tokio::test]
async fn each_service_has_its_own_user_and_jobs_have_theirs() {
    let Some(world) = World::full() else { return };
    let mut second = world.spec("id -u; cat sub/file; echo x > sub/y; ls -ln");
    second.service_number = 2;
    second.env = Vec::new();
    let (exit, log) = world.run(&second).await;
    assert!(exit.is_success() && log.starts_with("10002\nold\n"), "{exit} {log}");
    let staging = world.data.join("staging");
    std::fs::create_dir_all(&staging).unwrap();
    let mut job = world.job("id -u; echo made > made; cat /etc/resolv.conf | head -1; echo oops >&2; exit 3");
    job.app = AppTree::Directory { path: staging.display().to_string() };
    let lines = Lines::default();
    let end = world.sandbox.run_job(job.clone(), Duration::from_secs(20), &lines).await.unwrap();
    assert_eq!(end, JobEnd::Exit(Exit::Code { code: 3 }));
    let lines = lines.0.into_inner().unwrap();
    assert!(lines.contains(&"Out: 60002".to_owned()) && lines.contains(&"Err: oops".to_owned()), "{lines:?}");
    assert_eq!(std::fs::read_to_string(staging.join("made")).unwrap(), "made\n");
    assert!(world.sandbox.inspect(&job.id).await.unwrap().is_none());
    world.close().await;
}

#[tokio::test]
async fn a_flood_neither_fills_the_disk_nor_stops_the_control() {
    let Some(world) = World::full() else { return };
    let flood = world.spec(
        "yes 0123456789012345678901234567890123456789 | head -c 200000000; echo; echo done; sleep 1000",
    );
    world.sandbox.start(&flood).await.unwrap();
    for _ in 0..5 {
        assert_eq!(world.sandbox.inspect(&flood.id).await.unwrap().unwrap().state, InstanceState::Running);
        let lines = Lines::default();
        let command = ["echo".to_owned(), "here".to_owned()];
        let exec = world.sandbox.exec(&flood.id, &command, &[], &lines);
        assert!(
            tokio::time::timeout(Duration::from_secs(5), exec)
                .await
                .expect("control must answer")
                .unwrap()
                .is_success()
        );
    }
    let log = world.data.join("instances").join(flood.id.as_str()).join("log");
    wait_for("the last line", async || {
        let newest = std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
        String::from_utf8_lossy(&std::fs::read(newest).unwrap()).ends_with(" o done\n").then_some(())
    })
    .await;
    let size: u64 =
        std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(size <= 51 << 20, "{size}");
    world.sandbox.stop(&flood.id, Duration::from_secs(2)).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn variables_do_not_stay_on_disk() {
    let Some(world) = World::full() else { return };
    let with_secret = |command: &str| {
        let mut spec = world.spec(command);
        spec.env.push(("TOKEN".into(), trackbed_core::Secret::new("hush-hush".into())));
        spec
    };
    let on_disk = |id: &trackbed_core::InstanceId| {
        let folder = world.data.join("instances").join(id.as_str());
        let found = Command::new("grep").args(["-rl", "hush-hush"]).arg(&folder).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    };
    let app = with_secret("echo up; sleep 1000");
    world.sandbox.start(&app).await.unwrap();
    assert_eq!(on_disk(&app.id), "");
    let folder = world.data.join("instances").join(app.id.as_str());
    for (name, age) in [(".spec.json.0123.tmp", 100), (".spec.json.4567.tmp", 0)] {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        let now = Duration::from_millis(u64::try_from(trackbed_stdx::clock::now_ms()).unwrap());
        file.set_modified(std::time::UNIX_EPOCH + now - Duration::from_secs(age)).unwrap();
    }
    world.sandbox.reconcile(&|_| true).unwrap();
    assert!(!folder.join(".spec.json.0123.tmp").exists() && folder.join(".spec.json.4567.tmp").exists());
    // No supervisor can be started any more.
    let binary = world.data.join("shim");
    std::fs::copy(world::shim_binary(), &binary).unwrap();
    let gone = Sandbox::open(Config {
        data_dir: world.data.clone(),
        run_dir: world.run.clone(),
        binary: binary.clone(),
        level: Some(Full),
    })
    .unwrap();
    std::fs::remove_file(&binary).unwrap();
    let app = with_secret("true");
    assert!(refused(gone.start(&app).await).contains("start the supervisor"));
    assert_eq!(on_disk(&app.id), "");
    world.close().await;
}

#[tokio::test]
async fn sockets_that_leave_the_sandbox_are_refused() {
    let Some(world) = World::full() else { return };
    let (exit, log) = world
        .run(&world.spec(
            "python3 -c 'import errno, socket\nfor kind in (40, 38, 17, 1, 2, 10, 16):\n  \
             try: socket.socket(kind, socket.SOCK_DGRAM); print(kind, 1)\n  except OSError as e: print(kind, errno.errorcode[e.errno])'",
        ))
        .await;
    assert!(exit.is_success(), "{log}");
    let refused = ["40 EAFNOSUPPORT", "38 EAFNOSUPPORT", "17 EAFNOSUPPORT"];
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..3], refused);
    assert_eq!(lines[3..], ["1 1", "2 1", "10 1", "16 1"]);
    world.close().await;
}

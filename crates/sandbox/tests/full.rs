//! What root's instances get, seen from inside and outside.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod world;

use std::process::Command;
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel::Full;
use trackbed_core::ports::{Engine, JobEnd, JobRunner};
use trackbed_core::settings::Limits;
use trackbed_sandbox::{Config, Sandbox};
use world::{Lines, World, refused, wait_for};

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
async fn a_volume_is_written_kept_and_never_shared() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let with_volume = |command: &str| InstanceSpec { volumes: vec![volume.clone()], ..world.spec(command) };
    // A grandchild that ignores SIGTERM keeps the volume: the lock follows the last process, not the first.
    let first = with_volume("echo kept > /data/file; sh -c 'trap \"\" TERM; sleep 1000' & echo up; wait");
    world.sandbox.start(&first).await.unwrap();
    world.until_logged(&first.id, "up").await;
    let second = with_volume("cat /data/file; ls -ln /data");
    let message = refused(world.sandbox.start(&second).await);
    assert!(message.contains("is in use by assistant v1"), "{message}");
    assert!(matches!(world.ended(&second.id).await, Exit::Setup { .. }));
    world.sandbox.stop(&first.id, Duration::from_millis(300)).await.unwrap();
    assert!(
        trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().is_some(),
        "the lock is not free"
    );
    let third = with_volume("cat /data/file");
    let (exit, log) = world.run(&third).await;
    assert!(exit.is_success() && log == "kept\n", "{exit} {log}");
    let lock = std::fs::read_to_string(&volume.lock_path).unwrap();
    assert!(lock.contains("\"fence\":2"), "{lock}");
    world.close().await;
}

#[tokio::test]
async fn a_volume_is_shared_by_those_who_say_so_and_by_nobody_else() {
    let Some(world) = World::full() else { return };
    let alone = world.volume("/data");
    let shared = trackbed_core::instance::VolumeMount { shared: true, ..alone.clone() };
    let holds = |volume: &trackbed_core::instance::VolumeMount, command: &str| InstanceSpec {
        volumes: vec![volume.clone()],
        ..world.spec(command)
    };
    let place = trackbed_core::ports::VolumePlace {
        directory: alone.host_path.clone().into(),
        lock: alone.lock_path.clone().into(),
    };
    let told = async || {
        let lease = world.sandbox.lease(&place).await.unwrap();
        (lease.fence, lease.holders.into_iter().map(|holder| holder.instance).collect::<Vec<_>>())
    };
    assert_eq!(told().await, (0, vec![]));
    let one = holds(&shared, "echo one > /data/one; echo up; exec sleep 1000");
    let two = holds(&shared, "cat /data/one; echo up; exec sleep 1000");
    for spec in [&one, &two] {
        world.sandbox.start(spec).await.unwrap();
        world.until_logged(&spec.id, "up").await;
    }
    assert_eq!(told().await, (2, vec![two.id.clone(), one.id.clone()]));
    let message = refused(world.sandbox.start(&holds(&alone, "true")).await);
    assert!(message.contains("is in use by assistant v1"), "{message}");
    world.sandbox.stop(&two.id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(told().await, (2, vec![one.id.clone()]));
    // The one that took it last is gone, and the other keeps it still.
    refused(world.sandbox.start(&holds(&alone, "true")).await);
    world.sandbox.stop(&one.id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(told().await, (2, vec![]));
    let three = holds(&alone, "echo up; exec sleep 1000");
    world.sandbox.start(&three).await.unwrap();
    refused(world.sandbox.start(&holds(&shared, "true")).await);
    assert_eq!(told().await, (3, vec![three.id.clone()]));
    world.close().await;
}

#[tokio::test]
async fn every_kind_of_end_is_told_apart() {
    let Some(world) = World::full() else { return };
    let end = async |command: &str| world.run(&world.spec(command)).await.0;
    assert_eq!(end("exit 7").await, Exit::Code { code: 7 });
    assert_eq!(end("kill -SEGV $$").await, Exit::Signal { signal: libc::SIGSEGV });
    // An app that forks and leaves has ended; what it left is ended with it.
    assert_eq!(end("(sleep 1000 &) ; exit 0").await, Exit::Code { code: 0 });
    let mut hungry = world.spec("exec python3 -c 'x = bytearray(500 << 20)'");
    hungry.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    assert_eq!(world.run(&hungry).await.0, Exit::Oom);
    let told = world.notices(&hungry.id).await;
    assert_eq!(told, ["killed for using more memory than its limit of 64 MiB"]);
    let mut hungry = world.spec("python3 -c 'x = bytearray(500 << 20)'; exit $?");
    hungry.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    assert_eq!(world.run(&hungry).await.0, Exit::Oom);
    let deaf = world.spec("trap '' TERM; echo up; while :; do sleep 0.1; done");
    world.sandbox.start(&deaf).await.unwrap();
    world.until_logged(&deaf.id, "up").await;
    world.sandbox.stop(&deaf.id, Duration::from_millis(200)).await.unwrap();
    assert_eq!(world.ended(&deaf.id).await, Exit::Signal { signal: libc::SIGKILL });
    let polite = world.spec("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done");
    world.sandbox.start(&polite).await.unwrap();
    world.until_logged(&polite.id, "up").await;
    world.sandbox.stop(&polite.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.ended(&polite.id).await, Exit::Code { code: 9 });
    assert_eq!(world.notices(&polite.id).await, [] as [String; 0], "an end that was asked for is no news");
    let short = world.spec("exit 7");
    world.run(&short).await;
    assert_eq!(world.notices(&short.id).await, ["the app exited with code 7"]);
    let missing = world.spec("true");
    world.sandbox.stop(&missing.id, Duration::ZERO).await.unwrap();
    assert!(world.sandbox.inspect(&missing.id).await.unwrap().is_none());
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
async fn a_new_control_plane_finds_everything() {
    let Some(world) = World::full() else { return };
    let app = world.spec("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done");
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "line 3").await;
    let page = world.sandbox.logs(&app.id, LogCursor::START, 3).await.unwrap();
    let job = world.job("sleep 1000");
    world.sandbox.start(&job).await.unwrap();
    let again = Sandbox::open(Config {
        data_dir: world.data.clone(),
        run_dir: world.run.clone(),
        binary: world::shim_binary(),
        level: None,
    })
    .unwrap();
    assert_eq!(again.isolation().level, Full);
    again.reconcile(&|id| *id == app.id).unwrap();
    let statuses = again.list().await.unwrap();
    assert_eq!(statuses.len(), 1, "the job is gone: {statuses:?}");
    assert_eq!(statuses[0].state, InstanceState::Running);
    assert_eq!(again.logs(&app.id, page.next, 1).await.unwrap().lines[0].text, "line 4");
    again.start(&app).await.unwrap();
    again.stop(&app.id, Duration::from_secs(5)).await.unwrap();
    assert!(matches!(world.ended(&app.id).await, Exit::Signal { signal: libc::SIGTERM }));
    world.close().await;
}

#[tokio::test]
async fn when_the_shim_is_killed_the_app_is_gone_and_the_lock_free() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let app = InstanceSpec {
        volumes: vec![volume.clone()],
        ..world.spec("setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & echo up; wait")
    };
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let pids = world.pids(&app.id).await;
    assert!(pids.len() >= 3, "{pids:?}");
    world::kill(pids[0]);
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
    for pid in pids {
        wait_for("the processes to go", async || (!world::exists(&format!("/proc/{pid}"))).then_some(()))
            .await;
    }
    assert!(trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().is_some());
    world.sandbox.reconcile(&|_| true).unwrap();
    world.close().await;
}

#[tokio::test]
async fn a_dropped_or_late_job_is_killed() {
    let Some(world) = World::full() else { return };
    let job = world.job("echo up; sleep 1000");
    let lines = Lines::default();
    let run = world.sandbox.run_job(job.clone(), Duration::from_secs(100), &lines);
    assert!(tokio::time::timeout(Duration::from_millis(500), run).await.is_err());
    wait_for("the job to go", async || world.sandbox.inspect(&job.id).await.unwrap().is_none().then_some(()))
        .await;
    let job = world.job("echo up; sleep 1000");
    let end = world.sandbox.run_job(job, Duration::from_millis(200), &lines).await.unwrap();
    assert_eq!(end, JobEnd::TimedOut);
    world.close().await;
}

#[tokio::test]
async fn a_command_runs_inside_with_volume_user_and_limits() {
    let Some(world) = World::full() else { return };
    let mut app = world.spec("sleep 1000");
    app.volumes = vec![world.volume("/data")];
    world.sandbox.start(&app).await.unwrap();
    let lines = Lines::default();
    let command = [
        "sh",
        "-c",
        "id -u; pwd; echo x > /data/x; grep Seccomp: /proc/self/status; echo $A; printf no-end; exit 5",
    ];
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let env = [("A".to_owned(), trackbed_core::Secret::new("b".to_owned()))];
    let exit = world.sandbox.exec(&app.id, &command, &env, &lines).await.unwrap();
    assert_eq!(exit, Exit::Code { code: 5 });
    assert_eq!(
        lines.0.into_inner().unwrap(),
        ["Out: 10001", "Out: /app", "Out: Seccomp:\t2", "Out: b", "Out: no-end"]
    );
    let missing =
        world.sandbox.exec(&app.id, &["no-such-program".into()], &[], &Lines::default()).await.unwrap_err();
    assert!(missing.message.contains("No such file"), "{missing}");
    let lines = Lines::default();
    let command = ["sleep".to_owned(), "777".to_owned()];
    let long = world.sandbox.exec(&app.id, &command, &[], &lines);
    assert!(tokio::time::timeout(Duration::from_millis(300), long).await.is_err());
    let pids = world.pids(&app.id).await;
    wait_for("the dropped command to go", async || (world.pids(&app.id).await.len() <= 3).then_some(()))
        .await;
    assert!(pids.len() >= 2);
    let stats = world.sandbox.stats(&app.id).await.unwrap();
    assert!(stats.memory_bytes > 0 && stats.pids >= 2, "{stats:?}");
    world.close().await;
}

#[tokio::test]
async fn a_shim_that_is_asked_to_end_stops_its_app_politely() {
    let Some(world) = World::full() else { return };
    let app = world.spec("trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done");
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    world::signal(world.pids(&app.id).await[0], nix::sys::signal::Signal::SIGTERM);
    assert_eq!(world.ended(&app.id).await, Exit::Code { code: 4 });
    // Without its socket the supervisor is passed by, and the app still gets its grace.
    let app = InstanceSpec { id: trackbed_core::InstanceId::from_random([7; 10]), ..app };
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    std::fs::remove_file(world.run.join(format!("{}.sock", app.id))).unwrap();
    world.sandbox.stop(&app.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.ended(&app.id).await, Exit::Code { code: 4 });
    world.close().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_each_time_it_is_asked() {
    let Some(world) = World::full() else { return };
    let mut app = world.spec("true");
    let AppTree::Image { image } = &mut app.app else { panic!("an image") };
    image.layers[0].path = "layers/gone".into();
    for _ in 0..2 {
        let message = refused(world.sandbox.start(&app).await);
        assert!(message.contains("layers/gone") && message.contains("No such file"), "{message}");
    }
    let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
    assert!(matches!(status.state, InstanceState::Ended { exit: Exit::Setup { .. }, .. }), "{status:?}");
    let gone = Sandbox::open(Config {
        data_dir: world.data.clone(),
        run_dir: world.run.clone(),
        binary: "/no/such/binary".into(),
        level: None,
    });
    assert!(gone.err().unwrap().message.contains("no instance can be run"));
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
async fn an_end_is_told_at_once() {
    let Some(world) = World::full() else { return };
    for kill_the_shim in [false, true] {
        let app = world.spec("echo up; sleep 1000");
        world.sandbox.start(&app).await.unwrap();
        world.until_logged(&app.id, "up").await;
        let pids = world.pids(&app.id).await;
        let waited = world.sandbox.wait(&app.id);
        tokio::pin!(waited);
        assert!(tokio::time::timeout(Duration::from_millis(300), &mut waited).await.is_err());
        world::kill(pids[usize::from(!kill_the_shim)]);
        let begun = std::time::Instant::now();
        waited.await;
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
        let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
        assert!(matches!(status.state, InstanceState::Ended { .. }), "{status:?}");
        world.sandbox.wait(&app.id).await;
    }
    world.sandbox.wait(&trackbed_core::InstanceId::from_random([9; 10])).await;
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

#[tokio::test]
async fn a_job_dropped_at_any_moment_leaves_nothing() {
    let Some(world) = World::full() else { return };
    for delay_ms in 0..25 {
        let job = world.job("echo up; sleep 1000");
        let lines = Lines::default();
        let run = world.sandbox.run_job(job.clone(), Duration::from_secs(100), &lines);
        assert!(tokio::time::timeout(Duration::from_millis(delay_ms), run).await.is_err());
        wait_for("the job to go", async || {
            (!world.data.join("instances").join(job.id.as_str()).exists()).then_some(())
        })
        .await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_start_dropped_at_any_moment_and_stopped_leaves_nothing_alive() {
    let Some(world) = World::full() else { return };
    let mut began = 0;
    // From before its thread has come to it until it runs.
    for delay_us in (0..20_000).step_by(400) {
        let app = world.spec("echo up; sleep 1000");
        let start = world.sandbox.start(&app);
        let _ = tokio::time::timeout(Duration::from_micros(delay_us), start).await;
        world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
        let stopped = world.sandbox.inspect(&app.id).await.unwrap();
        // What was not begun by now never will be: what belongs to it would be found when the world is closed.
        assert!(
            stopped.as_ref().is_none_or(|status| matches!(status.state, InstanceState::Ended { .. })),
            "{delay_us} µs: {stopped:?}"
        );
        began += usize::from(stopped.is_some());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for status in world.sandbox.list().await.unwrap() {
        assert!(matches!(status.state, InstanceState::Ended { .. }), "{status:?}");
    }
    assert!(began > 0, "some of them had begun");
    world.close().await;
}

#[tokio::test]
async fn a_command_beside_the_app_neither_hears_its_signals_nor_holds_up_its_end() {
    let Some(world) = World::full() else { return };
    let app = world.spec("trap 'sleep 0.5; exit 3' TERM; echo up; while :; do sleep 0.05; done");
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let lines = Lines::default();
    let command = ["sh", "-c", "trap 'echo heard' TERM; echo beside; sleep 100 & while :; do wait; done"];
    let command = command.map(str::to_owned);
    let beside = world.sandbox.exec(&app.id, &command, &[], &lines);
    let stop = async {
        wait_for("the command", async || lines.0.lock().unwrap().first().cloned()).await;
        let begun = std::time::Instant::now();
        world.sandbox.stop(&app.id, Duration::from_secs(15)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    };
    let (ended, ()) = tokio::join!(beside, stop);
    assert!(ended.unwrap_err().message.contains("ended while the command ran"));
    assert_eq!(*lines.0.lock().unwrap(), ["Out: beside"]);
    assert_eq!(world.ended(&app.id).await, Exit::Code { code: 3 });
    world.close().await;
}

/// A freezer group, thawed and removed at the end, however the test ends.
struct Freezer(std::path::PathBuf);

impl Freezer {
    fn freeze(pids: &[u32]) -> Option<Freezer> {
        let path = std::path::PathBuf::from(format!("/sys/fs/cgroup/freezer/frozen-{}", world::hex()));
        std::fs::create_dir(&path).ok()?;
        let freezer = Freezer(path);
        for pid in pids {
            freezer.put("cgroup.procs", &pid.to_string());
        }
        freezer.put("freezer.state", "FROZEN");
        Some(freezer)
    }

    fn put(&self, file: &str, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().write(true).open(self.0.join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.put("freezer.state", "THAWED");
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_not_free_while_a_frozen_process_may_write_to_it() {
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let app = InstanceSpec { volumes: vec![volume.clone()], ..world.spec("sleep 1000 & echo up; wait") };
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let pids = world.pids(&app.id).await;
    // All but the shim; init is not among them.
    let Some(frozen) = Freezer::freeze(&pids[1..]) else {
        println!("no freezer group here: nothing tested");
        return world.close().await;
    };
    world::kill(pids[0]);
    wait_for("the lock", async || {
        trackbed_stdx::files::try_lock(volume.lock_path.as_ref()).unwrap().map(drop)
    })
    .await;
    let second = || InstanceSpec { volumes: vec![volume.clone()], ..world.spec("true") };
    let message = refused(world.sandbox.start(&second()).await);
    assert!(message.contains("is in use by assistant v1") && message.contains("has not ended"), "{message}");
    let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
    assert_eq!(status.state, InstanceState::Running, "not lost while it may come back");
    assert!(refused(world.sandbox.stop(&app.id, Duration::ZERO).await).contains("not go away"));
    assert!(refused(world.sandbox.remove(&app.id).await).contains("still runs"));
    drop(frozen);
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
    let (exit, _) = world.run(&second()).await;
    assert!(exit.is_success(), "{exit}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_while_strays_are_removed_are_left_alone() {
    let Some(world) = World::full() else { return };
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (sandbox, stop) = (world.sandbox.clone(), done.clone());
    let sweeping = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            sandbox.reconcile(&|_| true).unwrap();
        }
    });
    for _ in 0..25 {
        let app = world.spec("echo up; sleep 1000");
        world.sandbox.start(&app).await.unwrap();
        world.until_logged(&app.id, "up").await;
        assert_eq!(world.sandbox.inspect(&app.id).await.unwrap().unwrap().state, InstanceState::Running);
        assert!(world::exists(&format!("{}/{}.sock", world.run.display(), app.id)));
    }
    for status in world.sandbox.list().await.unwrap() {
        assert_eq!(status.state, InstanceState::Running);
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    sweeping.join().unwrap();
    world.close().await;
}

#[tokio::test]
async fn a_command_is_found_by_the_path_that_it_gets() {
    let Some(world) = World::full() else { return };
    let mut app = world.spec("chmod +x tools/*; echo up; sleep 1000");
    let AppTree::Image { image } = &mut app.app else { panic!("an image") };
    image.layers =
        vec![world.layer(&[("tools/greet", "#!/bin/sh\necho hello $1\n"), ("tools/bare", "echo bare $1\n")])];
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let path = [("PATH".to_owned(), trackbed_core::Secret::new("/app/tools:/usr/bin:/bin".to_owned()))];
    for (program, said) in [("greet", "Out: hello x"), ("bare", "Out: bare x"), ("echo", "Out: x")] {
        let lines = Lines::default();
        let command = [program.to_owned(), "x".to_owned()];
        assert!(world.sandbox.exec(&app.id, &command, &path, &lines).await.unwrap().is_success());
        assert_eq!(lines.0.into_inner().unwrap(), [said]);
    }
    let failed = world.sandbox.exec(&app.id, &["greet".into()], &[], &Lines::default()).await.unwrap_err();
    assert!(failed.message.contains("No such file"), "{failed}");
    world.close().await;
}

#[tokio::test]
async fn a_command_with_many_variables_runs_or_is_refused() {
    let Some(world) = World::full() else { return };
    let app = world.spec("sleep 1000");
    world.sandbox.start(&app).await.unwrap();
    let command = ["sh", "-c", "env | grep -c ^BIG_"].map(str::to_owned);
    for (kib, runs) in [
        (60, true),
        (127, true),
        (129, true),
        (131, true),
        (400, true),
        (1500, true),
        (6000, false),
        (9000, false),
    ] {
        let env: Vec<_> = (0..kib)
            .map(|number| (format!("BIG_{number}"), trackbed_core::Secret::new("x".repeat(1010))))
            .collect();
        let lines = Lines::default();
        let exec = world.sandbox.exec(&app.id, &command, &env, &lines);
        let ended = tokio::time::timeout(Duration::from_secs(20), exec).await.expect("an answer");
        assert_eq!(ended.is_ok(), runs, "{kib} KiB: {ended:?}");
        if runs {
            assert_eq!(lines.0.into_inner().unwrap(), [format!("Out: {kib}")]);
        }
    }
    world.close().await;
}

#[tokio::test]
async fn many_silent_clients_neither_keep_the_shim_busy_nor_shut_others_out() {
    let Some(world) = World::full() else { return };
    let app = world.spec("sleep 1000");
    world.sandbox.start(&app).await.unwrap();
    let socket = world.run.join(format!("{}.sock", app.id));
    let silent: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let shim = world.pids(&app.id).await[0];
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ticks() - before < 20, "it spins");
    wait_for("the silent ones to be turned away", async || {
        world.sandbox.exec(&app.id, &["true".into()], &[], &Lines::default()).await.ok()
    })
    .await;
    drop(silent);
    world.close().await;
}

#[tokio::test]
#[ignore = "takes half a minute"]
async fn a_long_preparation_is_waited_for_as_long_as_it_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let Some(world) = World::full() else { return };
    // Stands for a shim that hands over a very big volume: a sign of life, and the rest past the limit for a start.
    let slow = world.data.join("slow-shim");
    let script = format!(
        "#!/bin/sh\n(sleep 14; printf .; sleep 14; exec {} \"$@\") &\n",
        world::shim_binary().display()
    );
    let quick = Config {
        data_dir: world.data.clone(),
        run_dir: world.run.clone(),
        binary: slow.clone(),
        level: Some(Full),
    };
    std::fs::copy(world::shim_binary(), &slow).unwrap();
    let sandbox = Sandbox::open(quick).unwrap();
    std::fs::remove_file(&slow).unwrap();
    trackbed_stdx::files::write_atomic(&slow, script.as_bytes(), 0o755).unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
    let app = world.spec("sleep 1000");
    sandbox.start(&app).await.unwrap();
    assert_eq!(sandbox.inspect(&app.id).await.unwrap().unwrap().state, InstanceState::Running);
    world.close().await;
}

#[tokio::test]
async fn a_volume_of_another_user_is_handed_over_once() {
    use std::os::unix::fs::{MetadataExt, chown};
    let Some(world) = World::full() else { return };
    let volume = world.volume("/data");
    let folder = std::path::PathBuf::from(&volume.host_path);
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for name in ["a", "sub/b"] {
        std::fs::File::create(folder.join(name)).unwrap();
    }
    let app = || InstanceSpec { volumes: vec![volume.clone()], ..world.spec("true") };
    assert!(world.run(&app()).await.0.is_success());
    let owner = |name: &str| std::fs::metadata(folder.join(name)).unwrap().uid();
    assert_eq!(["", "a", "sub", "sub/b"].map(owner), [10001; 4]);
    // Once its top is right, nobody walks it again.
    chown(folder.join("sub/b"), Some(12), None).unwrap();
    assert!(world.run(&app()).await.0.is_success());
    assert_eq!(owner("sub/b"), 12);
    world.close().await;
}

//! How instances start and end, and how a new control plane finds them.

use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel::Full;
use trackbed_core::ports::Engine;
use trackbed_core::settings::Limits;
use trackbed_sandbox::{Config, Sandbox};

use crate::world::{self, Lines, World, refused, wait_for};

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

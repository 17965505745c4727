//! Jobs, and commands inside a running instance.

use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::ports::{Engine, JobEnd, JobRunner};

use crate::world::{Lines, World, wait_for};

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

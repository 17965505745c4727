//! What every level must do about processes beside the main one: names, new starts, signals, ends, standing still.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test panics when it must"
)]

use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::Engine;
use trackbed_core::process::{Beside, Formation, ProcessStatus};

use crate::world::{self, World, wait_for};

pub async fn check(level: IsolationLevel) {
    let world = match level {
        IsolationLevel::Full => World::full(),
        _ => Some(World::new(level)),
    };
    let Some(world) = world else { return };
    lines_have_names_and_sigterm_reaches_all(&world).await;
    the_end_of_the_main_one_ends_all(&world).await;
    one_that_ends_is_started_again_and_leaves_nothing(&world).await;
    nothing_is_started_while_all_stands_still(&world).await;
    nothing_outlives_the_shim(&world).await;
    only_the_main_one_is_expected_to_listen(&world).await;
    world.close().await;
}

fn spec(world: &World, main: &str, beside: &[(&str, &str)]) -> InstanceSpec {
    let beside =
        beside.iter().map(|(name, command)| Beside { name: (*name).into(), command: (*command).into() });
    let formation = Formation { main: "web".parse().unwrap(), beside: beside.collect() };
    InstanceSpec { formation, ..world.spec(main) }
}

async fn processes(world: &World, id: &InstanceId) -> Vec<ProcessStatus> {
    world.sandbox.inspect(id).await.unwrap().unwrap().processes
}

async fn said(world: &World, id: &InstanceId, text: &str) -> Vec<String> {
    let page = world.sandbox.logs(id, LogCursor::START, 1_000_000).await.unwrap();
    let lines = page.lines.into_iter().filter(|line| line.stream != LogStream::System && line.text == text);
    let mut names: Vec<String> = lines.map(|line| line.process.unwrap_or_default()).collect();
    names.sort();
    names
}

async fn gone(pids: &[u32]) {
    for pid in pids {
        wait_for("the processes to go", async || (!world::exists(&format!("/proc/{pid}"))).then_some(()))
            .await;
    }
}

const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo up $TRACKBED_PROCESS; while :; do sleep 0.05; done";

async fn lines_have_names_and_sigterm_reaches_all(world: &World) {
    let app = spec(world, POLITE, &[("worker.1", POLITE), ("worker.2", POLITE)]);
    world.sandbox.start(&app).await.unwrap();
    for name in ["web", "worker.1", "worker.2"] {
        world.until_logged(&app.id, &format!("up {name}\n")).await;
        assert_eq!(said(world, &app.id, &format!("up {name}")).await, [name]);
    }
    let both = wait_for("both to count as running", async || {
        let both = processes(world, &app.id).await;
        both.iter().all(|process| process.since.is_some()).then_some(both)
    })
    .await;
    let names: Vec<_> = both.iter().map(|process| (process.name.as_str(), process.ends)).collect();
    assert_eq!(names, [("worker.1", 0), ("worker.2", 0)]);
    let pids = world.pids(&app.id).await;
    world.sandbox.stop(&app.id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.ended(&app.id).await, Exit::Code { code: 0 });
    assert_eq!(said(world, &app.id, "bye").await, ["web", "worker.1", "worker.2"]);
    assert_eq!(world.notices(&app.id).await, [] as [String; 0], "an end that was asked for is no news");
    gone(&pids).await;
    let alone = spec(world, "echo alone", &[]);
    world.run(&alone).await;
    assert_eq!(said(world, &alone.id, "alone").await, [""]);
}

async fn the_end_of_the_main_one_ends_all(world: &World) {
    let main = "while [ ! -e /tmp/end ] && [ ! -e end ]; do sleep 0.02; done; exit 5";
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
    let app = spec(world, main, &[("worker.1", deaf), ("worker.2", POLITE)]);
    world.sandbox.start(&app).await.unwrap();
    for text in ["deaf\n", "up worker.2\n"] {
        world.until_logged(&app.id, text).await;
    }
    let pids = world.pids(&app.id).await;
    let command = ["touch".to_owned(), "end".to_owned()];
    // It ends the instance that it runs in, perhaps before it has told its own end.
    let _ = world.sandbox.exec(&app.id, &command, &[], &world::Lines::default()).await;
    assert_eq!(world.ended(&app.id).await, Exit::Code { code: 5 });
    assert_eq!(said(world, &app.id, "bye").await, ["worker.2"], "who listens gets to the end of its work");
    gone(&pids).await;
}

/// Processes of the box that sleep for this long.
fn sleepers(seconds: &str) -> usize {
    let is_one = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line == format!("sleep\0{seconds}\0").into_bytes()
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(is_one).count()
}

async fn one_that_ends_is_started_again_and_leaves_nothing(world: &World) {
    // Nobody else on this box sleeps for so long.
    let seconds = format!("90{}", std::process::id());
    let failing = format!("echo began; sleep {seconds} & sleep 0.1; exit 3");
    let app = spec(world, "sleep 1000", &[("beat.1", "exit 0"), ("worker.1", &failing)]);
    world.sandbox.start(&app).await.unwrap();
    let both = wait_for("three ends", async || {
        let both = processes(world, &app.id).await;
        assert!(sleepers(&seconds) <= 1, "what the one before had started goes on");
        both.iter().all(|process| process.ends >= 3).then_some(both)
    })
    .await;
    assert_eq!(both[0].failures, 0);
    assert_eq!(both[0].last, Some(Exit::Code { code: 0 }));
    assert!(both[1].failures >= 3);
    assert_eq!(both[1].last, Some(Exit::Code { code: 3 }));
    let notices = world.notices(&app.id).await;
    for (text, wait) in [
        ("worker.1 exited with code 3", "0.5"),
        ("worker.1 exited with code 3", "1"),
        ("beat.1 exited with code 0", "2"),
    ] {
        let notice = format!("{text}, and is started again in {wait} s");
        assert!(notices.contains(&notice), "{notice} is not in {notices:?}");
    }
    let status = world.sandbox.inspect(&app.id).await.unwrap().unwrap();
    assert_eq!(status.state, InstanceState::Running);
    wait_for("no zombie", async || {
        let pids = world.pids(&app.id).await;
        let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (!pids.iter().any(|pid| stat(pid).contains(") Z "))).then_some(())
    })
    .await;
    world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
    wait_for("the sleepers to go", async || (sleepers(&seconds) == 0).then_some(())).await;
}

async fn nothing_is_started_while_all_stands_still(world: &World) {
    let app = spec(world, "sleep 1000", &[("worker.1", "echo began; exit 3")]);
    world.sandbox.start(&app).await.unwrap();
    wait_for("an end", async || (processes(world, &app.id).await[0].ends >= 2).then_some(())).await;
    let frozen = world.sandbox.freeze(&app.id, Duration::from_secs(4)).await.unwrap();
    let before = said(world, &app.id, "began").await.len();
    // Longer than its wait.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(said(world, &app.id, "began").await.len(), before);
    frozen.thaw().await.unwrap();
    wait_for("the next start", async || (said(world, &app.id, "began").await.len() > before).then_some(()))
        .await;
    world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
}

async fn nothing_outlives_the_shim(world: &World) {
    let daemon = "setsid sh -c 'trap \"\" TERM HUP; echo up; sleep 1004' & wait";
    let app = spec(world, "sleep 1000", &[("worker.1", daemon)]);
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    let pids = world.pids(&app.id).await;
    world::kill(pids[0]);
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
    gone(&pids).await;
}

async fn only_the_main_one_is_expected_to_listen(world: &World) {
    let (port, other) = (world.sandbox.free_port().await.unwrap(), 18_000 + std::process::id() as u16 % 1000);
    let serve = |port: u16| format!("exec /usr/bin/python3 -u -m http.server --bind 127.0.0.1 {port}");
    let app = spec(world, "echo; exec sleep 1000", &[("flower.1", &serve(other))]);
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "Serving HTTP").await;
    assert_eq!(world.sandbox.listeners(&app.id).await.unwrap(), []);
    world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
    let app = spec(world, &serve(port), &[("flower.1", &serve(other))]);
    world.sandbox.start(&app).await.unwrap();
    wait_for("both to listen", async || {
        let said = world.log(&app.id).await;
        (said.matches("Serving HTTP").count() == 2).then_some(())
    })
    .await;
    assert_eq!(world.sandbox.listeners(&app.id).await.unwrap(), [Listener { port, loopback_only: true }]);
    world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
}

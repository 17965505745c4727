//! What every engine must do, whatever it is made of. Runs on the fake here and on the real sandbox elsewhere.
//!
//! It waits for conditions, never for a time, so that it runs on paused clocks and on real ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trackbed_core::InstanceId;
use trackbed_core::instance::{Exit, InstanceSpec, InstanceState, InstanceStatus, LogCursor, LogStream};
use trackbed_core::ports::Engine;

/// What an instance of the contract does. Each has a shell command, for engines that run commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Ends at once with this code.
    Exits(i32),
    /// Runs until it is told to end.
    Runs,
    /// Runs on after SIGTERM.
    IgnoresTerm,
    /// Writes `line 0`, `line 1`, … and runs on.
    Prints(u32),
}

impl Script {
    /// Returns the command for `/bin/sh -c`.
    pub fn command(self) -> String {
        match self {
            Script::Exits(code) => format!("exit {code}"),
            Script::Runs => "exec sleep 1000".into(),
            Script::IgnoresTerm => "trap '' TERM; while :; do sleep 1; done".into(),
            Script::Prints(lines) => {
                format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done; exec sleep 1000")
            }
        }
    }
}

/// Makes what the contract needs of one kind of engine.
pub trait Fixture: Send + Sync {
    /// The engine under test.
    fn engine(&self) -> Arc<dyn Engine>;

    /// A service instance with a fresh id that does what the script says; with a volume, always the same one.
    fn spec(&self, script: Script, with_volume: bool) -> InstanceSpec;

    /// Whether instances share one network; where each has its own, all may listen on the same port.
    fn shares_ports(&self) -> bool {
        true
    }
}

/// Longest wait for anything that must happen by itself.
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// Runs the whole contract.
///
/// # Panics
/// When the engine breaks it.
pub async fn engine_contract(fixture: &dyn Fixture) {
    starting_twice_starts_once(fixture).await;
    stopping_is_idempotent_and_the_unknown_is_fine(fixture).await;
    the_exit_code_is_reported(fixture).await;
    one_that_ignores_sigterm_is_killed_after_its_grace(fixture).await;
    a_volume_has_one_holder(fixture).await;
    the_log_goes_on_where_the_last_page_ended(fixture).await;
    what_runs_is_not_removed(fixture).await;
    ports_are_promised_once(fixture).await;
    only_the_living_have_addresses(fixture).await;
    one_that_is_frozen_stands_still_until_it_is_let_go(fixture).await;
    an_order_to_end_ends_a_freeze(fixture).await;
    only_the_known_have_stray_files(fixture).await;
}

async fn status(engine: &dyn Engine, id: &InstanceId) -> Option<InstanceStatus> {
    engine.inspect(id).await.expect("the engine can be asked")
}

fn runs(status: Option<&InstanceStatus>) -> bool {
    matches!(status.map(|status| &status.state), Some(InstanceState::Starting | InstanceState::Running))
}

async fn exit_of(engine: &dyn Engine, id: &InstanceId) -> Exit {
    let began = Instant::now();
    loop {
        if let Some(InstanceState::Ended { exit, .. }) = status(engine, id).await.map(|status| status.state) {
            return exit;
        }
        assert!(began.elapsed() < PATIENCE, "{id} did not end");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn start(engine: &dyn Engine, spec: &InstanceSpec) {
    engine.start(spec).await.expect("the instance starts");
}

async fn end(engine: &dyn Engine, spec: &InstanceSpec) {
    engine.stop(&spec.id, GRACE).await.expect("the instance stops");
    engine.remove(&spec.id).await.expect("an ended instance is removed");
    assert!(status(engine, &spec.id).await.is_none(), "a removed instance is forgotten");
}

async fn starting_twice_starts_once(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, true));
    start(&*engine, &spec).await;
    let first = status(&*engine, &spec.id).await.expect("it is known");
    start(&*engine, &spec).await;
    let second = status(&*engine, &spec.id).await.expect("it is known");
    assert_eq!((first.started_at, first.pids), (second.started_at, second.pids), "it is the same run");
    assert_eq!((second.service, second.port), (spec.service.clone(), spec.port));
    let listed = engine.list().await.expect("the engine lists");
    assert_eq!(listed.iter().filter(|known| known.id == spec.id).count(), 1);
    end(&*engine, &spec).await;
}

async fn stopping_is_idempotent_and_the_unknown_is_fine(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, false));
    engine.stop(&spec.id, GRACE).await.expect("stopping what never was is fine");
    start(&*engine, &spec).await;
    engine.stop(&spec.id, GRACE).await.expect("the instance stops");
    let ended = status(&*engine, &spec.id).await.expect("an ended instance is known");
    assert!(matches!(ended.state, InstanceState::Ended { .. }), "{ended:?}");
    assert!(ended.pids.is_empty());
    engine.stop(&spec.id, GRACE).await.expect("stopping it again is fine");
    assert_eq!(status(&*engine, &spec.id).await, Some(ended), "its end is what it was");
    start(&*engine, &spec).await;
    assert!(!runs(status(&*engine, &spec.id).await.as_ref()), "an id that ended never runs again");
    end(&*engine, &spec).await;
}

async fn the_exit_code_is_reported(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for code in [0, 3] {
        let spec = fixture.spec(Script::Exits(code), false);
        start(&*engine, &spec).await;
        assert_eq!(exit_of(&*engine, &spec.id).await, Exit::Code { code });
        end(&*engine, &spec).await;
    }
}

async fn one_that_ignores_sigterm_is_killed_after_its_grace(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::IgnoresTerm, true));
    start(&*engine, &spec).await;
    // The trap is set by the command itself, a moment after its start.
    sleep(Duration::from_millis(300)).await;
    let (began, grace) = (Instant::now(), Duration::from_secs(1));
    engine.stop(&spec.id, grace).await.expect("the instance is killed");
    assert!(began.elapsed() >= grace, "it had its grace");
    assert_eq!(exit_of(&*engine, &spec.id).await, Exit::Signal { signal: 9 });
    end(&*engine, &spec).await;
}

async fn a_volume_has_one_holder(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let (first, second) = (fixture.spec(Script::Runs, true), fixture.spec(Script::Runs, true));
    start(&*engine, &first).await;
    engine.start(&second).await.expect_err("the volume is held by the first");
    assert!(!runs(status(&*engine, &second.id).await.as_ref()), "nothing of the refused one runs");
    assert!(runs(status(&*engine, &first.id).await.as_ref()), "the holder is not disturbed");
    engine.stop(&first.id, GRACE).await.expect("the first stops");
    let third = fixture.spec(Script::Runs, true);
    start(&*engine, &third).await;
    end(&*engine, &first).await;
    end(&*engine, &second).await;
    end(&*engine, &third).await;
}

async fn the_log_goes_on_where_the_last_page_ended(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Prints(50), false));
    start(&*engine, &spec).await;
    let (mut from, mut lines, began) = (LogCursor::START, Vec::new(), Instant::now());
    while lines.len() < 50 {
        let page = engine.logs(&spec.id, from, 7).await.expect("a known instance has a log");
        assert!(page.lines.len() <= 7 && page.next >= from, "{page:?}");
        from = page.next;
        let said = page.lines.into_iter().filter(|line| line.stream == LogStream::Out);
        lines.extend(said.map(|line| line.text));
        assert!(began.elapsed() < PATIENCE, "only {lines:?}");
        sleep(Duration::from_millis(5)).await;
    }
    let expected: Vec<String> = (0..50).map(|line| format!("line {line}")).collect();
    assert_eq!(lines, expected, "every line once, in order");
    end(&*engine, &spec).await;
    engine.logs(&spec.id, LogCursor::START, 1).await.expect_err("a removed instance has no log");
}

async fn what_runs_is_not_removed(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, false));
    start(&*engine, &spec).await;
    engine.remove(&spec.id).await.expect_err("it runs");
    assert!(runs(status(&*engine, &spec.id).await.as_ref()), "and goes on running");
    end(&*engine, &spec).await;
}

async fn ports_are_promised_once(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let (first, second) = (engine.free_port().await, engine.free_port().await);
    let (first, second) = (first.expect("a port is free"), second.expect("another is free"));
    assert!(first != 0 && second != 0, "a port is a number");
    assert!(first != second || !fixture.shares_ports(), "port {first} was promised twice");
}

async fn only_the_living_have_addresses(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, false));
    let port = spec.port.unwrap_or(8080);
    engine.address(&spec.id, port).await.expect_err("it is unknown");
    start(&*engine, &spec).await;
    engine.address(&spec.id, port).await.expect("it can be reached");
    engine.listeners(&spec.id).await.expect("its sockets can be read");
    engine.stop(&spec.id, GRACE).await.expect("the instance stops");
    engine.address(&spec.id, port).await.expect_err("it has ended");
    engine.stats(&spec.id).await.expect_err("it has ended");
    end(&*engine, &spec).await;
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(4);

async fn one_that_is_frozen_stands_still_until_it_is_let_go(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, true));
    engine.freeze(&spec.id, LONG).await.err().expect("it is unknown");
    start(&*engine, &spec).await;
    let frozen = engine.freeze(&spec.id, LONG).await.expect("what runs can be frozen");
    engine.freeze(&spec.id, LONG).await.err().expect("it is frozen already");
    assert!(runs(status(&*engine, &spec.id).await.as_ref()), "it still counts as running");
    sleep(Duration::from_millis(50)).await;
    let stood_still = frozen.thaw().await.expect("it stood still all the time");
    assert!(stood_still >= Duration::from_millis(50), "{stood_still:?}");
    // One that is dropped lets it go, too; not at once, because nobody waits for it.
    drop(engine.freeze(&spec.id, LONG).await.expect("it can be frozen again"));
    let began = Instant::now();
    let frozen = loop {
        match engine.freeze(&spec.id, Duration::from_millis(100)).await {
            Ok(frozen) => break frozen,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    };
    sleep(Duration::from_millis(300)).await;
    frozen.thaw().await.expect_err("it was let go at its limit");
    engine.stop(&spec.id, GRACE).await.expect("the instance stops");
    engine.freeze(&spec.id, LONG).await.err().expect("it has ended");
    end(&*engine, &spec).await;
}

async fn an_order_to_end_ends_a_freeze(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, true));
    start(&*engine, &spec).await;
    let frozen = engine.freeze(&spec.id, LONG).await.expect("what runs can be frozen");
    engine.stop(&spec.id, GRACE).await.expect("the instance stops, frozen or not");
    let ended = status(&*engine, &spec.id).await.expect("an ended instance is known");
    assert!(matches!(ended.state, InstanceState::Ended { .. }), "{ended:?}");
    frozen.thaw().await.expect_err("it was let go before");
    end(&*engine, &spec).await;
}

async fn only_the_known_have_stray_files(fixture: &dyn Fixture) {
    let (engine, spec) = (fixture.engine(), fixture.spec(Script::Runs, true));
    engine.stray_files(&spec.id, 10).await.expect_err("it is unknown");
    start(&*engine, &spec).await;
    assert_eq!(engine.stray_files(&spec.id, 10).await, Ok(Vec::new()));
    engine.stop(&spec.id, GRACE).await.expect("the instance stops");
    assert_eq!(engine.stray_files(&spec.id, 10).await, Ok(Vec::new()), "an ended one is known, too");
    end(&*engine, &spec).await;
}

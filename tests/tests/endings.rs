//! Deployments that end before they are live, and releases that end in a bad moment: cancelled, superseded, crashed
//! soon after, deaf to SIGTERM, two at once.

use std::time::{Duration, Instant};

use serde_json::Value;
use trackbed_tests::{App, Output, TestBox, Traffic, Up, User, wait_for};

/// Above every build, start and grace that is waited for here.
const SOON: Duration = Duration::from_secs(40);
/// A build or start that nobody waits out.
const AGES: &str = "1000";

fn ok(output: &Output) -> &Output {
    assert_eq!(output.code, 0, "{output:?}");
    output
}

fn set(town: &TestBox, service: &str, pair: &str) {
    ok(&town.trackbed(&["variables", "set", pair, "--service", service]));
}

fn settings(app: &App, more: &str) {
    app.write(
        "railway.json",
        format!("{{\"build\": {{{more}}}, \"deploy\": {{\"startCommand\": \"python app.py\", \"healthcheckPath\": \"/health\"}}}}"),
    );
}

/// Deploys beside the test until it is at a step, does something, and returns what `up` said and what was done.
fn during<T>(town: &TestBox, app: &App, step: &str, deed: impl FnOnce() -> T) -> (Up, T) {
    let name = app.path().file_name().expect("a name").to_string_lossy().into_owned();
    std::thread::scope(|scope| {
        let up = scope.spawn(|| town.up(&app.path(), &["--health-timeout", "120"]));
        wait_for(step, SOON, || town.service(&name)["deploying"]["step"] == step);
        let done = deed();
        (up.join().expect("no panic"), done)
    })
}

/// Waits until the build command itself runs, then returns.
fn await_command(town: &TestBox) {
    wait_for("the build command", SOON, || town.living_instances().len() == 2);
}

/// Nothing of a build is left: no job, no folder that it was made in.
fn assert_no_build_left(town: &TestBox) {
    wait_for("the end of the job", SOON, || town.living_instances().len() == 1);
    let staged = town.data_dir().join("build");
    wait_for("an empty folder for builds", SOON, || {
        std::fs::read_dir(&staged).map_or(0, |entries| entries.flatten().count()) == 0
    });
}

#[test]
fn a_cancelled_build_ends_at_once_and_the_old_release_serves_on() {
    // An ordinary user has no control groups to kill.
    for user in [User::Own, User::Ordinary] {
        if user == User::Own || nix::unistd::geteuid().is_root() {
            cancel_a_build(&TestBox::start_with(user, &[], &[]));
        }
    }
}

fn cancel_a_build(town: &TestBox) {
    let app = town.up_good("shop");
    settings(&app, &format!("\"buildCommand\": \"sleep {AGES}\""));
    let (up, cancelled) = during(town, &app, "build", || {
        await_command(town);
        town.trackbed(&["cancel", "shop"])
    });
    let talk = &ok(&cancelled).stderr;
    assert!(talk.contains("is cancelled; it was at build"), "{talk}");
    assert!(talk.contains("the previous release v1 keeps serving"), "{talk}");
    assert_eq!((up.code, up.text("status")), (1, "cancelled"), "{:#}", up.last);
    assert_no_build_left(town);
    town.assert_serves_on("shop");
    let list = ok(&town.trackbed(&["deployments", "--service", "shop"])).stdout.clone();
    assert!(list.lines().nth(1).is_some_and(|line| line.contains("cancelled")), "{list}");

    // The refusals say what to do.
    let refused = town.trackbed(&["cancel", "shop", "--json"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("no deployment under way"), "{refused:?}");
    assert!(refused.stderr.contains("trackbed rollback"), "{refused:?}");
    let live = town.service("shop")["last_deployment"]["id"].as_str().expect("an id").to_owned();
    let over = town.trackbed(&["cancel", "--deployment", &live]);
    assert!(over.code == 1 && over.stderr.contains("has ended already"), "{over:?}");

    settings(&app, "");
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("shop", "/version").body, "two");
}

#[test]
fn a_cancelled_start_gives_the_volume_and_the_waiting_requests_back() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    let port = town.port();
    let traffic = Traffic::get(port, "shop", 2, Duration::from_millis(20));
    set(&town, "shop", &format!("START_DELAY={AGES}"));
    let (up, cancelled) = during(&town, app.version("two"), "health", || town.trackbed(&["cancel", "shop"]));
    ok(&cancelled);
    assert_eq!((up.code, up.text("status")), (1, "cancelled"), "{:#}", up.last);
    town.assert_serves_on("shop");
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_eq!(town.living_instances().len(), 1);
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
}

#[test]
fn a_newer_deploy_ends_the_build_of_an_older_one() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    settings(&app, &format!("\"buildCommand\": \"sleep {AGES}\""));
    let better = App::plain_with_volume("shop");
    better.version("three");
    let (old, new) = during(&town, &app, "build", || {
        await_command(&town);
        town.up_ok(&better.path())
    });
    assert_eq!((old.code, old.text("status")), (1, "superseded"), "{:#}", old.last);
    assert_eq!(old.last["superseded_by"], new.last["deployment"], "{:#}", old.last);
    assert_eq!(town.get("shop", "/version").body, "three");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
    assert_no_build_left(&town);
}

#[test]
fn a_release_that_crashes_soon_after_it_was_healthy_is_reported_with_the_way_back() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    app.write("start.sh", "python app.py & sleep 4; echo 'the lazy part is broken' >&2; exit 7\n");
    app.write(
        "railway.json",
        "{\"deploy\": {\"startCommand\": \"sh start.sh\", \"healthcheckPath\": \"/health\", \"restartPolicyMaxRetries\": 1}}",
    );
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("shop", "/version").body, "two");
    town.wait_state("shop", "crashed", SOON);
    let detail = town.service("shop")["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("exited with code 7, after 1 restart"), "{detail}");
    assert!(detail.ends_with("to go back: trackbed rollback v1"), "{detail}");
    assert!(ok(&town.trackbed(&["status"])).stdout.contains("trackbed rollback v1"));
    ok(&town.trackbed(&["rollback", "v1", "--service", "shop"]));
    town.assert_serves_on("shop");
    assert_eq!(town.service("shop")["detail"], Value::Null);
}

#[test]
fn an_old_release_that_ignores_sigterm_is_killed_after_its_grace_and_the_new_one_serves() {
    for held in [true, false] {
        let town = TestBox::start();
        let app = if held { App::plain_with_volume("deaf") } else { App::plain("deaf") };
        ok(&town.trackbed(&["variables", "set", "MODE=stubborn", "--service", "deaf"]));
        town.up_ok(&app.path());
        let old = town.living_instances();
        let port = town.port();
        let traffic = Traffic::get(port, "deaf", 2, Duration::from_millis(20));
        set(&town, "deaf", "MODE=serve");
        let began = Instant::now();
        let up = town.up_ok(&app.version("two").path());
        assert_eq!(town.get("deaf", "/version").body, "two", "held: {held}");
        wait_for("the end of the old release", SOON, || {
            let living = town.living_instances();
            living.len() == 1 && living[0].0 != old[0].0
        });
        assert!(began.elapsed() >= Duration::from_secs(9), "it had its grace: {:?}", began.elapsed());
        assert_eq!(traffic.end().failures, Vec::<String>::new(), "held: {held}");
        if held {
            assert_eq!(town.get("deaf", "/two-at-once").body, "False");
        }
        assert_eq!(up.last["status"], "success");
    }
}

#[test]
fn two_services_with_volumes_hand_over_at_once_and_neither_loses_a_request_or_a_note() {
    let town = TestBox::start();
    let apps = ["north", "south"].map(|name| town.up_good(name));
    let port = town.port();
    let traffic = ["north", "south"].map(|name| {
        (
            name,
            Traffic::notes(port, name, 2, Duration::from_millis(15)),
            Traffic::get(port, name, 2, Duration::from_millis(15)),
        )
    });
    for round in ["two", "three", "four"] {
        std::thread::scope(|scope| {
            for app in &apps {
                let (town, app) = (&town, app.version(round));
                let up = scope.spawn(move || town.up(&app.path(), &[]));
                // Both at once, each with its own outcome.
                scope.spawn(move || {
                    let up = up.join().expect("no panic");
                    assert_eq!((up.code, up.text("status")), (0, "success"), "{:#}", up.last);
                });
            }
        });
        for name in ["north", "south"] {
            assert_eq!(town.get(name, "/version").body, round);
        }
    }
    for (name, notes, reads) in traffic {
        let (notes, reads) = (notes.end(), reads.end());
        assert_eq!((notes.failures, reads.failures), (Vec::new(), Vec::new()), "{name}");
        let kept: Vec<String> = serde_json::from_str(&town.get(name, "/notes").body).expect("notes");
        let lost: Vec<_> = notes.acknowledged.iter().filter(|note| !kept.contains(note)).collect();
        assert!(lost.is_empty() && !notes.acknowledged.is_empty(), "{name} lost {lost:?}");
        assert_eq!(town.get(name, "/two-at-once").body, "False", "{name}");
    }
    wait_for("one instance each", SOON, || town.living_instances().len() == 2);
}

//! Bad days: every process of the box is killed, `serve` in every step of every kind of deployment.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, Traffic, User, get, wait_for};

/// Steps of a first deployment or a redeploy.
const OVERLAP: [&str; 12] = [
    "plan",
    "build",
    "release",
    "check",
    "stage",
    "rehearse",
    "pin",
    "predeploy",
    "start",
    "health",
    "switch",
    "retire",
];
/// With a volume, the old release is stopped first.
const HELD: [&str; 16] = [
    "plan",
    "build",
    "release",
    "check",
    "stage",
    "rehearse",
    "drain",
    "park",
    "stop",
    "pin",
    "swap",
    "predeploy",
    "start",
    "health",
    "switch",
    "retire",
];
/// A rollback has its release already.
const AFTER_BUILD: usize = 3;
/// From the death of `serve` to the end of its deployment by the next one.
const RECOVERY: Duration = Duration::from_secs(30);
/// `abort()`.
const ABORTED: i32 = 134;

/// A box whose `serve` dies again and again.
struct Mortal {
    town: TestBox,
    port: u16,
    cases: usize,
    requests: usize,
}

impl Mortal {
    fn new() -> Mortal {
        let town = TestBox::start();
        let port = town.port();
        Mortal { town, port, cases: 0, requests: 0 }
    }

    /// Restarts `serve` as one that dies at a point, asks for a deployment, and waits for the death.
    fn die_at(&mut self, point: &str, ask: &[&str]) {
        self.town.kill_serve();
        self.town.set_env("TRACKBED_ABORT_AT", point);
        self.town.start_serve();
        // The answer may be lost with the one who gives it.
        let asked = self.town.trackbed(ask);
        let code = self.town.wait_serve();
        assert_eq!(code, ABORTED, "{point}: {asked:?}\n{}", self.town.serve_log());
        self.town.set_env("TRACKBED_ABORT_AT", "");
    }

    /// Starts a good `serve` and waits until the deployment has ended by itself.
    fn recover(&mut self, point: &str, service: &str, before: &Value) {
        self.town.start_serve();
        let deadline = std::time::Instant::now() + RECOVERY;
        loop {
            let status = self.town.service(service);
            let last = &status["last_deployment"];
            let ended = last["id"] != *before && !last["finished_at"].is_null();
            if ended && status["state"] == "running" {
                assert_eq!(last["status"], "success", "{point}: {last:#}");
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{point}: no end: {status:#}\n{}",
                self.town.serve_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.cases += 1;
    }

    fn version(&self, service: &str) -> String {
        let response = get(self.port, &format!("{service}.localhost:{}", self.port), "/version");
        let response = response.expect("the edge answers");
        format!("{} {}", response.status, response.body)
    }

    /// One deployment of a service that is live: who answers while `serve` is dead, and afterwards.
    fn replace(&mut self, held: bool, point: &str, service: &str, ask: &[&str], texts: [&str; 2]) {
        let before = self.town.service(service)["last_deployment"]["id"].clone();
        let traffic = Traffic::get(self.port, service, 1, Duration::from_millis(15));
        self.die_at(point, ask);
        let [old, new] = texts;
        match answers_while_dead(held, point) {
            Answers::Old => assert_eq!(self.version(service), format!("200 {old}"), "{point}"),
            Answers::New => assert_eq!(self.version(service), format!("200 {new}"), "{point}"),
            Answers::Parked => {}
        }
        let living = self.town.living_instances();
        assert!(!held || living.len() <= 1, "{point}: two hold the volume: {living:?}");
        self.recover(point, service, &before);
        let tally = traffic.end();
        assert_eq!(tally.failures, Vec::<String>::new(), "{point}");
        self.requests += tally.sent;
        assert_eq!(self.version(service), format!("200 {new}"), "{point}");
        wait_for(&format!("{point}: one instance"), RECOVERY, || self.town.living_instances().len() == 1);
        if held {
            let host = format!("{service}.localhost:{}", self.port);
            let asked = |path| get(self.port, &host, path).expect("the edge answers").body;
            assert_eq!(asked("/two-at-once"), "False", "{point}");
            assert_eq!(asked("/notes"), "[\"kept\"]", "{point}");
        }
    }

    fn say(&self, what: &str) {
        eprintln!("{what}: {} cases, {} requests, none failed", self.cases, self.requests);
    }
}

enum Answers {
    Old,
    New,
    /// Nobody until `serve` is back: the request waits, and is answered then.
    Parked,
}

fn answers_while_dead(held: bool, point: &str) -> Answers {
    match (held, point) {
        (_, "after:switch" | "before:retire" | "after:retire") => Answers::New,
        (
            true,
            "after:park" | "before:stop" | "after:stop" | "before:pin" | "after:pin" | "before:swap"
            | "after:swap" | "before:predeploy" | "after:predeploy" | "before:start" | "after:start"
            | "before:health" | "after:health" | "before:switch",
        ) => Answers::Parked,
        (true | false, _) => Answers::Old,
    }
}

fn points(steps: &[&str]) -> Vec<String> {
    steps.iter().flat_map(|step| [format!("before:{step}"), format!("after:{step}")]).collect()
}

fn app(held: bool) -> App {
    let app = App::plain("mortal");
    if held {
        app.with_volume("/data");
    }
    app
}

fn first_deployments(held: bool, steps: &[&str]) {
    let mut mortal = Mortal::new();
    for (number, point) in points(steps).into_iter().enumerate() {
        let (app, service) = (app(held), format!("first{number}"));
        let path = app.path().to_string_lossy().into_owned();
        mortal.die_at(&point, &["up", &path, "--detach", "--service", &service]);
        mortal.recover(&point, &service, &Value::Null);
        assert_eq!(mortal.version(&service), "200 one", "{point}");
        assert_eq!(mortal.town.service(&service)["release"]["version"], 1, "{point}");
        wait_for(&format!("{point}: one instance"), RECOVERY, || mortal.town.living_instances().len() == 1);
        let down = mortal.town.trackbed(&["down", "--service", &service]);
        assert_eq!(down.code, 0, "{down:?}");
    }
    mortal.say(if held { "first deployments with a volume" } else { "first deployments" });
}

fn redeploys(held: bool, steps: &[&str]) {
    let mut mortal = Mortal::new();
    let app = app(held);
    let path = app.path().to_string_lossy().into_owned();
    mortal.town.up_ok(&app.path());
    if held {
        assert_eq!(mortal.town.request("mortal", "POST", "/notes", "kept").status, 201);
    }
    let mut old = "one".to_owned();
    for (number, point) in points(steps).into_iter().enumerate() {
        let new = format!("version {number}");
        app.version(&new);
        mortal.replace(held, &point, "mortal", &["up", &path, "--detach"], [&old, &new]);
        old = new;
    }
    mortal.say(if held { "redeploys with a volume" } else { "redeploys" });
}

fn rollbacks(held: bool, steps: &[&str]) {
    let mut mortal = Mortal::new();
    let app = app(held);
    mortal.town.up_ok(&app.path());
    if held {
        assert_eq!(mortal.town.request("mortal", "POST", "/notes", "kept").status, 201);
    }
    mortal.town.up_ok(&app.version("two").path());
    for (number, point) in points(steps).into_iter().enumerate() {
        let (release, texts) = if number % 2 == 0 { ("v1", ["two", "one"]) } else { ("v2", ["one", "two"]) };
        let ask = ["rollback", release, "--detach", "--service", "mortal"];
        mortal.replace(held, &point, "mortal", &ask, texts);
    }
    mortal.say(if held { "rollbacks with a volume" } else { "rollbacks" });
}

#[test]
fn a_first_deployment_ends_whatever_step_serve_dies_in() {
    first_deployments(false, &OVERLAP);
}

#[test]
fn a_first_deployment_with_a_volume_ends_whatever_step_serve_dies_in() {
    first_deployments(true, &HELD);
}

#[test]
fn a_redeploy_drops_no_request_whatever_step_serve_dies_in() {
    redeploys(false, &OVERLAP);
}

#[test]
fn a_held_redeploy_keeps_data_and_requests_whatever_step_serve_dies_in() {
    redeploys(true, &HELD);
}

#[test]
fn a_rollback_drops_no_request_whatever_step_serve_dies_in() {
    rollbacks(false, &OVERLAP[AFTER_BUILD..]);
}

#[test]
fn a_held_rollback_keeps_data_and_requests_whatever_step_serve_dies_in() {
    rollbacks(true, &HELD[AFTER_BUILD..]);
}

/// A box with a live service that has a volume and one note.
fn keeper(user: User) -> (TestBox, App, u16) {
    let town = TestBox::start_with(user, &[], &[]);
    let app = App::plain("keeper");
    town.up_ok(&app.with_volume("/data").path());
    assert_eq!(town.request("keeper", "POST", "/notes", "kept").status, 201);
    let port = town.port();
    (town, app, port)
}

/// Waits until the service answers again, and with its data.
fn wait_kept(port: u16) {
    let host = format!("keeper.localhost:{port}");
    wait_for("the service is back with its data", Duration::from_secs(20), || {
        get(port, &host, "/notes")
            .is_ok_and(|response| response.status == 200 && response.body == "[\"kept\"]")
    });
    assert_eq!(get(port, &host, "/two-at-once").expect("the edge answers").body, "False");
}

fn pids(town: &TestBox) -> Vec<u64> {
    let pids = town.service("keeper")["pids"].as_array().cloned().unwrap_or_default();
    pids.iter().filter_map(Value::as_u64).collect()
}

#[test]
fn a_killed_edge_comes_back_on_its_port_with_its_routes() {
    let (town, _app, port) = keeper(User::Own);
    let edge = town.edge_pid();
    town.kill_pid(edge);
    wait_kept(port);
    assert_ne!(town.edge_pid(), edge);
    assert_eq!(town.port(), port);
}

#[test]
fn an_edge_killed_while_serve_is_away_comes_back_with_the_next_serve() {
    let (mut town, _app, port) = keeper(User::Own);
    let edge = town.edge_pid();
    town.kill_serve();
    town.kill_pid(edge);
    town.start_serve();
    wait_kept(port);
    assert_eq!(town.port(), port);
}

#[test]
fn an_app_ends_with_its_killed_shim_and_comes_back_with_its_data() {
    let (town, _app, port) = keeper(User::Own);
    let before = pids(&town);
    town.kill_pid(before[0]);
    wait_for("the app ends with its shim", Duration::from_secs(5), || {
        before.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists())
    });
    wait_kept(port);
    wait_for("another instance", Duration::from_secs(5), || {
        let now = pids(&town);
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
    });
}

#[test]
fn a_killed_app_is_restarted_with_its_data() {
    let (town, _app, port) = keeper(User::Own);
    town.kill_pid(*pids(&town).last().expect("the app runs"));
    wait_for("the restart is counted", Duration::from_secs(10), || {
        town.service("keeper")["instance"]["restarts"] == 1
    });
    wait_kept(port);
}

#[test]
fn a_killed_serve_is_not_missed_and_adopts_what_runs() {
    let (mut town, _app, port) = keeper(User::Own);
    let before = town.service("keeper");
    let traffic = Traffic::get(port, "keeper", 2, Duration::from_millis(5));
    for _ in 0..3 {
        town.kill_serve();
        std::thread::sleep(Duration::from_millis(200));
        town.start_serve();
    }
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let after = town.service("keeper");
    for key in ["pids", "state", "release"] {
        assert_eq!(before[key], after[key]);
    }
    assert_eq!(before["instance"]["id"], after["instance"]["id"]);
    assert_eq!(after["instance"]["restarts"], 0);
    wait_kept(port);
}

fn killed_all_at_once(user: User) {
    let (mut town, _app, port) = keeper(user);
    let mut all = vec![town.serve_pid(), town.edge_pid()];
    all.extend(pids(&town));
    for process in &all {
        town.kill_pid(*process);
    }
    town.kill_serve();
    town.start_serve();
    assert_eq!(town.port(), port, "the edge keeps its port");
    wait_kept(port);
    assert_eq!(town.living_instances().len(), 1);
}

#[test]
fn data_survives_when_every_process_is_killed_at_once() {
    killed_all_at_once(User::Own);
}

#[test]
fn data_survives_when_every_process_of_an_ordinary_user_is_killed_at_once() {
    if trackbed_tests::is_root("a box of an ordinary user, made by root") {
        killed_all_at_once(User::Ordinary);
    }
}

#[test]
fn supervisors_killed_while_serve_is_away_are_noticed_by_the_next_serve() {
    let (mut town, _app, port) = keeper(User::Own);
    let shim = pids(&town)[0];
    town.kill_serve();
    town.kill_pid(shim);
    town.start_serve();
    wait_kept(port);
    assert_eq!(town.living_instances().len(), 1);
}

#[test]
fn a_terminated_serve_leaves_apps_and_edge_alone_and_down_all_ends_them() {
    let (mut town, _app, port) = keeper(User::Own);
    let before = pids(&town);
    let traffic = Traffic::get(port, "keeper", 1, Duration::from_millis(5));
    assert_eq!(town.stop_serve(), 0);
    wait_kept(port);
    town.start_serve();
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_eq!(pids(&town), before);
    let down = town.trackbed(&["down", "--all"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!(town.wait_serve(), 0);
    assert_eq!(town.end().0, Vec::<String>::new());
    assert!(before.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists()));
    town.start_serve();
    assert_eq!(town.port(), port);
    wait_kept(port);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a record is made stale, not kept")]
fn after_a_reboot_the_service_comes_back_and_nobody_else_is_hurt() {
    let (mut town, _app, port) = keeper(User::Own);
    let mut all = vec![town.serve_pid(), town.edge_pid()];
    all.extend(pids(&town));
    let instances = town.living_instances();
    for process in &all {
        town.kill_pid(*process);
    }
    town.kill_serve();
    // The process ids of the records belong to others now.
    let mut innocent = std::process::Command::new("sleep").arg("600").spawn().expect("sleep runs");
    for (folder, _) in instances {
        let path = folder.join("state.json");
        let text = std::fs::read(&path).expect("a record");
        let mut state: Value = serde_json::from_slice(&text).expect("a record");
        state["boot_id"] = "another boot".into();
        state["shim"]["pid"] = innocent.id().into();
        state["init"]["pid"] = innocent.id().into();
        std::fs::write(&path, state.to_string()).expect("our own folder");
        let _ = std::fs::remove_file(folder.join("exit.json"));
    }
    let _ = std::fs::remove_dir_all(town.data_dir().join("run"));
    town.start_serve();
    wait_kept(port);
    assert!(innocent.try_wait().expect("our child").is_none(), "an innocent process was killed");
    innocent.kill().expect("our child");
    innocent.wait().expect("our child");
}

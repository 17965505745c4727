//! Several processes of one service: a web server and workers that share a database through deployments of every kind.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, Traffic, User, is_root, wait_for};

/// What a worker needs to work off what was noted last, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn done(town: &TestBox, arguments: &[&str]) -> String {
    let said = town.trackbed(arguments);
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    format!("{}{}", said.stdout, said.stderr)
}

fn refused(town: &TestBox, arguments: &[&str]) -> String {
    let said = town.trackbed(arguments);
    assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
    said.stderr
}

/// The processes beside the main one that run, by name.
fn running(town: &TestBox) -> Vec<String> {
    let service = town.service("crew");
    let processes = service["instance"]["processes"].as_array().cloned().unwrap_or_default();
    let runs = processes.iter().filter(|process| process["since"].is_i64());
    runs.filter_map(|process| Some(process["name"].as_str()?.to_owned())).collect()
}

fn list(town: &TestBox, path: &str) -> Vec<String> {
    let response = town.get("crew", path);
    let mut texts: Vec<String> =
        serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"));
    texts.sort();
    texts
}

fn version(app: &App, text: &str) {
    let code = std::fs::read_to_string(app.path().join("store.py")).unwrap();
    let lines = code.lines().map(|line| match line.starts_with("VERSION = ") {
        true => format!("VERSION = \"{text}\"\n"),
        false => format!("{line}\n"),
    });
    app.write("store.py", lines.collect::<String>());
}

/// Kills a worker with the pid that it has inside.
fn kill_inside(town: &TestBox, name: &str) {
    done(town, &["run", "--service", "crew", "--", "sh", "-c", &format!("kill -9 $(cat /data/{name})")]);
}

fn check(user: User) {
    let town = TestBox::start_with(user, &[], &[]);
    let app = App::crew("crew");
    let folder = app.path();
    let folder = folder.to_str().unwrap();
    let planned = done(&town, &["plan", folder]);
    for words in ["processes.worker", "python worker.py", "Procfile:3", "scale.worker"] {
        assert!(planned.contains(words), "no `{words}` in {planned}");
    }

    town.up_ok(&app.path());
    assert_eq!(running(&town), ["worker.1"]);
    let worker = done(&town, &["logs", "--service", "crew", "--process", "worker"]);
    assert!(worker.contains("worker.1 of one begins") && !worker.contains("gunicorn"), "{worker}");
    let web = done(&town, &["logs", "--service", "crew", "--process", "web"]);
    assert!(web.contains("gunicorn") && !web.contains("begins"), "{web}");

    // Whatever is done to it, nobody who writes a note notices, and no two releases work at once.
    let traffic = Traffic::notes(town.port(), "crew", 2, Duration::from_millis(20));
    assert!(done(&town, &["scale", "--service", "crew", "worker=2"]).contains("trackbed redeploy"));
    assert_eq!(running(&town), ["worker.1"], "it takes effect with the next deployment");
    assert!(done(&town, &["scale", "--service", "crew"]).contains("python worker.py"));
    done(&town, &["redeploy", "--service", "crew"]);
    assert_eq!(running(&town), ["worker.1", "worker.2"]);
    version(&app, "two");
    town.up_ok(&app.path());
    assert_eq!(town.get("crew", "/version").body, "two");
    assert_eq!(running(&town), ["worker.1", "worker.2"]);

    // A worker that fails fails its release.
    version(&app, "three");
    let good = std::fs::read(app.path().join("worker.py")).unwrap();
    app.write("worker.py", "raise RuntimeError('no broker')\n");
    let up = town.up_fails(&app.path(), &[], "health", &["`worker.", "exited with code 1"]);
    up.hints(&["trackbed scale worker=0"]);
    assert!(up.last["log_tail"].to_string().contains("no broker"), "{:#}", up.last);
    assert_eq!(town.get("crew", "/version").body, "two");
    wait_for("the workers of the release before", PATIENCE, || running(&town) == ["worker.1", "worker.2"]);
    app.write("worker.py", good);

    // One that dies in its life is started again, and that is told; its server goes on.
    let instance = town.service("crew")["instance"]["id"].clone();
    kill_inside(&town, "worker.1");
    let status = || done(&town, &["status", "--service", "crew"]);
    let told = || status().contains("! worker.1 crashed once, last it ");
    wait_for("the end to be told", PATIENCE, told);
    wait_for("the next one", PATIENCE, || running(&town) == ["worker.1", "worker.2"]);
    assert_eq!(town.service("crew")["instance"]["id"], instance);

    // A release is rolled back with its processes.
    done(&town, &["rollback", "v1", "--service", "crew"]);
    assert_eq!(running(&town), ["worker.1"]);
    assert_eq!(town.get("crew", "/version").body, "one");

    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let mut acknowledged = tally.acknowledged;
    acknowledged.sort();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    assert_eq!(list(&town, "/notes"), acknowledged);
    wait_for("every note to be worked off", PATIENCE, || list(&town, "/done") == acknowledged);
    assert_eq!(list(&town, "/meetings"), Vec::<String>::new());

    assert!(refused(&town, &["scale", "--service", "crew", "web=0"]).contains("trackbed down"));
    assert!(refused(&town, &["scale", "--service", "crew", "web=2"]).contains("WEB_CONCURRENCY"));
    assert!(refused(&town, &["scale", "--service", "crew", "clock=1"]).contains("it has web, worker"));
    done(&town, &["scale", "--service", "crew", "worker=0"]);
    version(&app, "four");
    town.up_ok(&app.path());
    assert_eq!(running(&town), Vec::<String>::new());
    assert_eq!(town.service("crew")["instance"]["processes"], Value::Array(Vec::new()));
}

#[test]
fn a_web_server_and_its_workers_share_a_database_through_every_deployment() {
    check(User::Own);
}

#[test]
fn an_ordinary_user_has_several_processes_too() {
    if is_root("several processes of an ordinary user's box") {
        check(User::Ordinary);
    }
}

//! Bad days in the middle of a `held` handover, told step by step: what is killed or stopped there, and what callers see.

use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{
    App, Connection, Instance, Load, Response, TestBox, User, Watched, Writers, edge_stats, wait_for,
};

/// Longest wait for a step of the box.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest stop of `serve` that callers must not notice.
const STOPPED: Duration = Duration::from_secs(10);
const SERVICE: &str = "ledger";

/// A box with the writer live on its volume, watched.
struct Scene {
    town: TestBox,
    app: App,
    port: u16,
    writers: Writers,
}

impl Scene {
    fn new(user: User) -> Scene {
        let town = TestBox::start_with(user, &[], &[]);
        let app = App::writer(SERVICE);
        town.up_ok(&app.with_volume("/data").path());
        let (port, writers) = (town.port(), Writers::watch(&town.data_dir()));
        Scene { town, app, port, writers }
    }

    /// From now on a new instance begins only once there is this file.
    fn start_after(&self, file: &str) {
        let set =
            self.town.trackbed(&["variables", "set", &format!("START_AFTER={file}"), "--service", SERVICE]);
        assert_eq!(set.code, 0, "{set:?}");
    }

    fn volume(&self) -> std::path::PathBuf {
        let mut volumes = std::fs::read_dir(self.town.data_dir().join("volumes")).expect("volumes");
        volumes.next().expect("one").expect("readable").path().join("data")
    }

    #[allow(clippy::disallowed_methods, reason = "a sign for the app, which needs no crash safety")]
    fn put(&self, file: &str) {
        std::fs::write(self.volume().join(file), "").expect("the volume is ours");
    }

    /// Begins to deploy version two.
    fn deploy(&self) -> Child {
        let path = self.app.version("two").path();
        self.town.spawn(&["up", &path.to_string_lossy(), "--json"])
    }

    fn await_step(&self, step: &str) {
        wait_for(&format!("the deployment is at {step}"), PATIENCE, || {
            self.town.json(&["deployments", "--json", "--service", SERVICE])[0]["step"] == step
        });
    }

    /// Waits until requests are parked. The step is on record a moment before that, so one is sent after the other until
    /// the first waits; it is answered when the others are.
    fn await_parking(&self) {
        self.await_step("park");
        wait_for("a request is parked", PATIENCE, || {
            let probe = self.ask("GET", "/identity", "");
            wait_for("it is answered or parked", PATIENCE, || probe.is_finished() || self.parked() > 0);
            self.parked() > 0
        });
    }

    fn parked(&self) -> u64 {
        let stats = edge_stats(&self.town.data_dir());
        let parked = stats["parked"].as_object().cloned().unwrap_or_default();
        parked.values().filter_map(|service| service["now"].as_u64()).sum()
    }

    /// Sends a request that is answered some time.
    fn ask(&self, method: &str, path: &str, body: &str) -> JoinHandle<std::io::Result<Response>> {
        let host = format!("{SERVICE}.localhost:{}", self.port);
        let sent = Connection::send(self.port, &host, method, path, "Connection: close\r\n", body.as_bytes());
        std::thread::spawn(move || sent?.read_all())
    }

    /// Sends rows that nobody answers for now, and waits until all are parked.
    fn park(&self, name: &str, count: u64) -> Vec<JoinHandle<std::io::Result<Response>>> {
        let already = self.parked();
        let rows = (0..count).map(|number| self.ask("POST", "/rows", &row(name, number))).collect();
        wait_for("all are parked", PATIENCE, || self.parked() >= already + count);
        rows
    }

    /// The deployment succeeded, version two serves, exactly the rows of these names are kept, and never were there two
    /// writers.
    fn ends_well(self, deploy: Child, names: &[(&str, u64)]) -> Watched {
        let said = deploy.wait_with_output().expect("our child");
        assert!(
            said.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&said.stdout),
            self.town.serve_log()
        );
        let identity = self.town.get(SERVICE, "/identity").body;
        assert!(identity.starts_with("ledger v2 two "), "{identity}");
        let mut kept: Vec<String> =
            serde_json::from_str(&self.town.get(SERVICE, "/keys").body).expect("JSON");
        kept.retain(|key| !key.starts_with("ledger-"));
        kept.sort();
        let expected = names.iter().flat_map(|(name, count)| (0..*count).map(|number| row(name, number)));
        let mut expected: Vec<String> = expected.collect();
        expected.sort();
        assert_eq!(kept, expected);
        assert!(!self.volume().join("violations").exists(), "the apps saw each other");
        let watched = self.writers.end();
        assert_eq!(watched.violations, Vec::<String>::new());
        watched
    }
}

fn row(name: &str, number: u64) -> String {
    format!("{name}.{number}")
}

fn all_kept(rows: Vec<JoinHandle<std::io::Result<Response>>>) {
    for row in rows {
        let answer = row.join().expect("a client does not panic").expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[test]
fn who_is_parked_when_the_edge_is_killed_is_lost_but_done_never_and_the_next_are_parked_again() {
    let scene = Scene::new(User::Own);
    scene.start_after("go");
    let deploy = scene.deploy();
    scene.await_step("health");
    let lost = scene.park("lost", 8);
    let edge = scene.town.edge_pid();
    scene.town.kill_pid(edge);
    // Their connections ended with the process that held them: nobody can answer these callers any more.
    for row in lost {
        let answer = row.join().expect("a client does not panic");
        assert!(answer.is_err(), "{answer:?}");
    }
    wait_for("there is another edge", PATIENCE, || scene.town.edge_pid() != edge);
    let parked = scene.park("kept", 8);
    scene.put("go");
    all_kept(parked);
    // None of the lost: a parked request reaches no app, so it is never done without an answer.
    scene.ends_well(deploy, &[("kept", 8)]);
}

fn supervisor_of_the_old_killed(user: User) {
    let scene = Scene::new(user);
    // Keeps the old release from ending.
    let unfinished = scene.ask("GET", "/wait?never", "");
    let deploy = scene.deploy();
    scene.await_parking();
    let parked = scene.park("kept", 8);
    let instances = Instance::all(&scene.town.data_dir());
    let old: Vec<&Instance> = instances.iter().filter(|instance| instance.is_alive()).collect();
    let [old] = old[..] else { panic!("one instance, not {old:?}") };
    scene.town.kill_process(old.shim);
    all_kept(parked);
    // What the old app had begun ended with it.
    match unfinished.join().expect("a client does not panic") {
        Ok(answer) => assert_eq!(answer.status, 502, "{answer:?}"),
        Err(error) => panic!("the edge answers: {error}"),
    }
    scene.ends_well(deploy, &[("kept", 8)]);
}

#[test]
fn an_old_supervisor_killed_while_requests_are_parked_costs_none_of_them() {
    supervisor_of_the_old_killed(User::Own);
}

#[test]
fn an_old_supervisor_of_an_ordinary_user_killed_while_requests_are_parked_costs_none_of_them() {
    if trackbed_tests::is_root("a box of an ordinary user, made by root") {
        supervisor_of_the_old_killed(User::Ordinary);
    }
}

/// Stops `serve` with SIGSTOP and lets it go on.
fn stop_serve_for(scene: &Scene, time: Duration, meanwhile: impl FnOnce()) {
    scene.town.suspend_serve();
    meanwhile();
    std::thread::sleep(time);
    scene.town.resume_serve();
}

#[test]
fn a_serve_that_hangs_while_the_old_release_finishes_makes_callers_wait_and_fails_none() {
    let scene = Scene::new(User::Own);
    let load = Load::start(scene.port, &[SERVICE]);
    let finishing = scene.ask("GET", "/wait?answer", "");
    let deploy = scene.deploy();
    scene.await_parking();
    let parked = scene.park("kept", 4);
    stop_serve_for(&scene, STOPPED, || {
        scene.put("answer");
        let answer = finishing.join().expect("a client does not panic").expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "waited"));
    });
    all_kept(parked);
    ends_well_under_load(scene, deploy, load);
}

#[test]
fn a_serve_that_hangs_while_the_new_release_starts_makes_callers_wait_and_fails_none() {
    let scene = Scene::new(User::Own);
    scene.start_after("go");
    let load = Load::start(scene.port, &[SERVICE]);
    let deploy = scene.deploy();
    scene.await_step("health");
    let parked = scene.park("kept", 4);
    // The new release becomes healthy, and nobody hears of it.
    stop_serve_for(&scene, STOPPED, || scene.put("go"));
    all_kept(parked);
    ends_well_under_load(scene, deploy, load);
}

fn ends_well_under_load(scene: Scene, deploy: Child, load: Load) {
    scene.await_step("retire");
    let seen = load.end();
    eprintln!("{} requests, slowest answer {:?}", seen.requests, seen.slowest);
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
    assert_eq!(seen.wrong, Vec::<String>::new());
    let kept: Value = serde_json::from_str(&scene.town.get(SERVICE, "/keys").body).expect("JSON");
    let kept: Vec<&str> = kept.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for (_, key) in &seen.acknowledged {
        assert_eq!(kept.iter().filter(|kept| *kept == key).count(), 1, "{key}");
    }
    scene.ends_well(deploy, &[("kept", 4)]);
}

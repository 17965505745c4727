//! The data of a deployment: it is pinned just before the new release starts, and put back when that release fails.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, Traffic, User, sqlite, wait_for};

/// From the death of `serve` to the end of its deployment by the next one.
const RECOVERY: Duration = Duration::from_secs(40);
/// `abort()`.
const ABORTED: i32 = 134;
/// A migration that ruins everything, of a release that then never answers well.
const RUIN: &str = r#"
import os, pathlib, shutil, sqlite3
data = pathlib.Path(os.environ["TRACKBED_VOLUME_MOUNT_PATH"])
database = sqlite3.connect(data / "app.db")
database.executescript("DROP TABLE notes; CREATE TABLE notes_v2 (id INTEGER); PRAGMA wal_checkpoint(TRUNCATE);")
database.close()
shutil.rmtree(data / "letters", ignore_errors=True)
(data / "ruined").write_text("by the new release")
"#;

fn notes(town: &TestBox, service: &str) -> Vec<String> {
    let response = town.get(service, "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

/// Deploys the plain app as a first release, with a note and a file beside its database.
fn up_with_letters(town: &TestBox, name: &str) -> App {
    let app = town.up_good(name);
    let write = "mkdir -p /data/letters && echo dear > /data/letters/one && chmod 640 /data/letters/one";
    let written = town.trackbed(&["run", "--service", name, "--", "sh", "-c", write]);
    assert_eq!(written.code, 0, "{written:?}");
    app
}

/// Makes the app one that ruins its data at start, and then is not healthy.
fn make_ruinous(app: &App) -> &App {
    app.version("ruin").write("migrate.py", RUIN).write(
        "railway.json",
        serde_json::json!({ "deploy": {
            "startCommand": "python migrate.py && HEALTH_STATUS=500 exec python app.py",
            "healthcheckPath": "/health",
            "healthcheckTimeout": 2,
        } })
        .to_string(),
    )
}

/// Checks that letters and database of the first release are there, and nothing of the ruin.
fn assert_unruined(town: &TestBox, name: &str, what: &str) {
    assert_eq!(town.get(name, "/version").body, "one", "{what}");
    assert_eq!(town.get(name, "/two-at-once").body, "False", "{what}");
    let look = "cat /data/letters/one; stat -c %a /data/letters/one; ls /data";
    let looked = town.trackbed(&["run", "--service", name, "--", "sh", "-c", look]);
    assert!(looked.stdout.starts_with("dear\n640\n"), "{what}: {looked:?}");
    assert!(!looked.stdout.contains("ruined"), "{what}: {looked:?}");
}

#[test]
fn a_release_that_ruins_the_data_and_never_gets_healthy_leaves_everything_as_it_was() {
    let town = TestBox::start();
    let app = up_with_letters(&town, "shop");
    let traffic = Traffic::notes(town.port(), "shop", 2, Duration::from_millis(10));
    make_ruinous(&app);
    town.up_fails(&app.path(), &[], "health", &["500"]);
    let deployment = town.last_deployment("shop");
    // The requests that were held are answered by the release that is back.
    assert_unruined(&town, "shop", "after the failure");
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let mut acknowledged = tally.acknowledged;
    acknowledged.push("kept".to_owned());
    assert_eq!(sorted(notes(&town, "shop")), sorted(acknowledged));
    // It is said what was done.
    assert_eq!(deployment["status"], "failed", "{deployment:#}");
    assert!(deployment["data_undone"].as_str().is_some_and(|text| text.contains("data")), "{deployment:#}");
    assert_eq!(deployment["pins"][0]["volume"], "data", "{deployment:#}");
    let shown = town.trackbed(&["deployments", "--service", "shop"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    // And nothing of the attempt stays behind: the next good release starts on the data as it is.
    app.version("two").write("migrate.py", "").write(
        "railway.json",
        r#"{"deploy": {"startCommand": "python app.py", "healthcheckPath": "/health"}}"#,
    );
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/version").body, "two");
    assert!(notes(&town, "shop").contains(&"kept".to_owned()));
}

#[test]
fn each_deployment_pins_the_data_as_its_release_found_it() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    let mut pins = Vec::new();
    for version in ["one", "two", "three"] {
        let up = town.up_ok(&app.version(version).path());
        pins.push((up.text("deployment").to_owned(), version));
        assert_eq!(town.request("shop", "POST", "/notes", &format!("by {version}")).status, 201);
    }
    let points = town.points("shop");
    for (number, (deployment, version)) in pins.iter().enumerate() {
        let pin = points.iter().find(|point| point["deployment"] == **deployment);
        let pin = pin.unwrap_or_else(|| panic!("{version} has no pin: {points:#?}"));
        assert_eq!((&pin["why"], &pin["consistency"]), (&"deployment".into(), &"instant".into()), "{pin:#}");
        let folder = town.restore_to("shop", pin["id"].as_str().expect("an id"), &format!("then-{number}"));
        if number == 0 {
            assert!(!folder.join("app.db").exists(), "nothing was there yet");
            continue;
        }
        let wrote = pins[..number].iter().map(|(_, version)| format!("by {version}"));
        let held = sqlite(&folder.join("app.db"), "SELECT text FROM notes ORDER BY id");
        assert_eq!(held.lines().map(str::to_owned).collect::<Vec<_>>(), wrote.collect::<Vec<_>>());
    }
}

/// `serve` dies at a point of a deployment that ruins the data and fails. Whatever was done by then, the data is back.
fn die_in_a_ruinous_deployment(points: &[&str]) {
    let mut town = TestBox::start_with(User::Own, &[], &[]);
    let app = up_with_letters(&town, "shop");
    make_ruinous(&app);
    let path = app.path().to_string_lossy().into_owned();
    let mut expected = vec!["kept".to_owned()];
    for point in points {
        let before = town.last_deployment("shop")["id"].clone();
        town.kill_serve();
        town.set_env("TRACKBED_ABORT_AT", point);
        town.start_serve();
        let traffic = Traffic::notes(town.port(), "shop", 1, Duration::from_millis(20));
        let asked = town.trackbed(&["up", &path, "--detach"]);
        let code = town.wait_serve();
        assert_eq!(code, ABORTED, "{point}: {asked:?}\n{}", town.serve_log());
        town.set_env("TRACKBED_ABORT_AT", "");
        town.start_serve();
        wait_for(&format!("{point}: the deployment ends"), RECOVERY, || {
            let last: Value = town.last_deployment("shop");
            last["id"] != before && !last["finished_at"].is_null()
        });
        let last = town.last_deployment("shop");
        assert_eq!(last["status"], "failed", "{point}: {last:#}");
        town.wait_state("shop", "running", RECOVERY);
        assert_unruined(&town, "shop", point);
        let tally = traffic.end();
        assert_eq!(tally.failures, Vec::<String>::new(), "{point}");
        expected.extend(tally.acknowledged);
        assert_eq!(sorted(notes(&town, "shop")), sorted(expected.clone()), "{point}");
    }
}

#[test]
fn a_serve_that_dies_while_it_gets_the_data_ready_harms_no_data() {
    die_in_a_ruinous_deployment(&["before:stage", "after:stage", "before:pin", "after:pin"]);
}

#[test]
fn a_serve_that_dies_around_the_start_of_a_ruinous_release_puts_the_data_back() {
    die_in_a_ruinous_deployment(&["before:swap", "after:swap", "after:start", "before:health"]);
}

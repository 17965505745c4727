//! The command that prepares the data for a release: on a copy, and then in earnest.

use serde_json::json;
use trackbed_tests::{App, TestBox, Up, sqlite};

/// A migration as people write them.
const MIGRATION: &str = r#"
import os, sqlite3
database = sqlite3.connect(os.path.join(os.environ["TRACKBED_VOLUME_MOUNT_PATH"], "app.db"))
database.executescript("ALTER TABLE notes ADD COLUMN author TEXT; CREATE TABLE bills (id INTEGER, total REAL);")
print("migrated")
"#;

/// One that does harm and then fails.
const RUIN: &str = r#"
import os, pathlib, sqlite3, sys
data = pathlib.Path(os.environ["TRACKBED_VOLUME_MOUNT_PATH"])
database = sqlite3.connect(data / "app.db")
database.executescript("DROP TABLE notes; PRAGMA wal_checkpoint(TRUNCATE);")
(data / "ruined").write_text("by the command")
sys.exit("cannot migrate")
"#;

fn prepare(app: &App, migration: &str, version: &str) {
    let deploy = json!({ "deploy": {
        "startCommand": "python app.py",
        "healthcheckPath": "/health",
        "preDeployCommand": ["python migrate.py"],
    } });
    app.version(version).write("migrate.py", migration).write("railway.json", deploy.to_string());
}

fn said(up: &Up) -> String {
    let messages = up.events.iter().filter_map(|event| event["message"].as_str());
    messages.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_migration_is_tried_on_a_copy_and_its_schema_told_and_then_done_while_callers_wait() {
    let town = TestBox::start();
    let app = town.up_good("prepared");
    prepare(&app, MIGRATION, "two");
    let up = town.up_ok(&app.path());
    let said = said(&up);
    for words in [
        "pre-deploy on a copy of the data: `python migrate.py` exited with code 0 after ",
        "| migrated",
        "schema: data:app.db: + table bills (id INTEGER, total REAL)",
        "schema: data:app.db: ~ table notes: + author TEXT",
        "pre-deploy: `python migrate.py` exited with code 0 after ",
    ] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
    assert_eq!(town.get("prepared", "/version").body, "two");
    assert_eq!(town.get("prepared", "/notes").body, r#"["kept"]"#);
    let database = town.volume_folder("prepared", "data").join("app.db");
    assert_eq!(sqlite(&database, "SELECT count(*) FROM bills").trim(), "0");
    let logs = town.trackbed(&["logs", "--service", "prepared"]);
    assert_eq!(logs.stdout.matches("migrated").count(), 2, "{logs:?}");
}

#[test]
fn a_migration_that_fails_on_the_copy_touches_nothing_and_nobody() {
    let town = TestBox::start();
    let app = town.up_good("prepared");
    let pids = town.service("prepared")["pids"].clone();
    prepare(&app, RUIN, "two");
    let up = town.up_fails(&app.path(), &[], "rehearse", &["on a copy of the data", "exited with code 1"]);
    up.hints(&["preDeployTrial = false"]);
    assert!(up.quoted().contains("cannot migrate"), "{:#}", up.last);
    assert_eq!(town.service("prepared")["pids"], pids, "the old release was never touched");
    town.assert_serves_on("prepared");
}

#[test]
fn a_migration_that_fails_in_earnest_is_undone_with_all_it_did_to_the_data() {
    let town = TestBox::start();
    let app = town.up_good("prepared");
    prepare(&app, RUIN, "two");
    app.write(
        "trackbed.toml",
        "[deploy]\npreDeployTrial = false\n[[volumes]]\nname = \"data\"\nmount = \"/data\"\n",
    );
    town.up_fails(&app.path(), &[], "predeploy", &["pre-deploy: `python migrate.py` exited with code 1"]);
    town.assert_serves_on("prepared");
    assert!(!town.volume_folder("prepared", "data").join("ruined").exists());
}

#[test]
fn a_procfile_release_of_a_service_without_a_volume_runs_before_its_start() {
    let town = TestBox::start();
    let app = App::plain("bare");
    app.remove("railway.json").write("Procfile", "release: echo releasing\nweb: python app.py\n");
    let up = town.up_ok(&app.path());
    assert!(said(&up).contains("| releasing"), "{}", said(&up));
}

//! Data where it does not belong, and releases that are tried on a copy before anybody waits for them.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, Traffic, wait_for};

const SOON: Duration = Duration::from_secs(30);

fn notes(town: &TestBox, service: &str) -> Vec<String> {
    let response = town.get(service, "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// An app with a volume that rehearses, and a health limit of so many seconds.
fn rehearsing(app: &App, start: &str, limit: u32) {
    app.write(
        "trackbed.toml",
        format!(
            "[[volumes]]\nname = \"data\"\nmount = \"/data\"\n[deploy]\nrehearse = true\nstartCommand = \"{start}\"\n\
             healthcheckPath = \"/health\"\nhealthcheckTimeout = {limit}\n"
        ),
    );
}

#[test]
fn a_rehearsal_that_fails_ends_the_deployment_before_any_caller_waited() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    rehearsing(&app, "python app.py", 20);
    town.up_ok(&app.path());
    assert_eq!(town.request("shop", "POST", "/notes", "kept").status, 201);
    let before = town.service("shop")["instance"]["id"].clone();
    let traffic = Traffic::notes(town.port(), "shop", 2, Duration::from_millis(10));
    // It would ruin the data: on the copy it may.
    app.version("two").write(
        "migrate.py",
        "import os, sqlite3\nd = sqlite3.connect(os.environ['TRACKBED_VOLUME_MOUNT_PATH'] + '/app.db')\n\
         d.executescript('DROP TABLE notes')\nraise SystemExit('no such column: notes.author')\n",
    );
    rehearsing(&app, "python migrate.py && exec python app.py", 20);
    let failed = town.up_fails(&app.path(), &[], "rehearse", &[]);
    assert!(failed.quoted().contains("no such column: notes.author"), "{:#}", failed.last);
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let deployment = town.last_deployment("shop");
    let waited = deployment["pause"]["requests"].as_u64().unwrap_or_default();
    assert_eq!(waited, 0, "{deployment:#}");
    assert_eq!(town.service("shop")["instance"]["id"], before, "the old release was touched");
    assert_eq!(notes(&town, "shop").len(), 1 + tally.acknowledged.len());
}

#[test]
fn a_rehearsal_that_passes_is_timed_and_leaves_nothing_behind() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    rehearsing(&app, "python app.py", 20);
    town.up_ok(&app.path());
    assert_eq!(town.request("shop", "POST", "/notes", "kept").status, 201);
    let script = "import os, sqlite3\nd = sqlite3.connect(os.environ['TRACKBED_VOLUME_MOUNT_PATH'] + '/app.db')\n\
                  d.executescript('ALTER TABLE notes ADD COLUMN author TEXT')\n";
    app.version("two").write("migrate.py", script);
    // A migration that would fail the second time: the copy's own must not reach the volume.
    rehearsing(&app, "python migrate.py && exec python app.py", 20);
    town.up_ok(&app.path());
    let deployment = town.last_deployment("shop");
    assert!(deployment["rehearsal_took_ms"].as_u64() > Some(0), "{deployment:#}");
    assert_eq!(notes(&town, "shop"), ["kept"]);
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    wait_for("one instance", SOON, || town.living_instances().len() == 1);
}

/// Makes the app keep its database beside its code, where it is lost with the instance.
fn keep_outside(app: &App) {
    let code = std::fs::read_to_string(app.path().join("app.py")).expect("the plain app");
    let moved = code.replace("os.path.join(DATA, \"app.db\")", "os.path.join(\"state\", \"app.db\")");
    assert_ne!(code, moved, "the plain app names its database otherwise");
    app.write("app.py", moved).write("state/readme.txt", "made with the source");
}

#[test]
fn a_database_outside_the_volume_blocks_the_next_deployment_until_it_is_adopted() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    keep_outside(&app);
    town.up_ok(&app.path());
    for number in 0..30 {
        assert_eq!(town.request("shop", "POST", "/notes", &format!("note {number}")).status, 201);
    }
    let wanted: Vec<String> = (0..30).map(|number| format!("note {number}")).collect();
    let blocked = town.up_fails(app.version("two").path().as_path(), &[], "check", &["/app/state/app.db"]);
    blocked.hints(&["volume adopt"]);
    assert_eq!(notes(&town, "shop"), wanted, "the old release serves on");
    let traffic = Traffic::get(town.port(), "shop", 2, Duration::from_millis(10));
    let adopted = town.trackbed(&["volume", "adopt", "/app/state/app.db", "--service", "shop"]);
    assert_eq!(adopted.code, 0, "{adopted:?}\nserve: {}", town.serve_log());
    assert_eq!(notes(&town, "shop"), wanted, "the app finds it, with all rows");
    // From now on it is in the volume: every later release has it, and every restore point.
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(notes(&town, "shop"), wanted);
    assert_eq!(town.request("shop", "POST", "/notes", "later").status, 201);
    let restarted = town.trackbed(&["restart", "--service", "shop"]);
    assert_eq!(restarted.code, 0, "{restarted:?}");
    assert_eq!(notes(&town, "shop").len(), 31);
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    let files = town.json(&["volume", "files", "data", "--json", "--service", "shop"]);
    assert!(files.to_string().contains("state") || files.to_string().contains("app.db"), "{files:#}");
    let point: Value = town.snapshot("shop");
    assert!(point["databases"].to_string().contains("app.db"), "{point:#}");
}

#[test]
fn a_database_outside_the_volume_is_lost_only_when_its_owner_says_so() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    keep_outside(&app);
    town.up_ok(&app.path());
    assert_eq!(town.request("shop", "POST", "/notes", "a cache").status, 201);
    town.up_fails(app.version("two").path().as_path(), &[], "check", &["/app/state/app.db"]);
    let said = town.service("shop")["warnings"].to_string();
    assert!(said.contains("/app/state/app.db"), "{said}");
    let help = town.trackbed(&["up", "--help"]).stdout;
    let flag = help.split_whitespace().find(|word| word.starts_with("--") && word.contains("outside"));
    let flag = flag.unwrap_or_else(|| panic!("`up` has no flag for it: {help}")).trim_end_matches(',');
    let forced = town.up(&app.path(), &[flag]);
    assert_eq!(forced.code, 0, "{:#}", forced.last);
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(notes(&town, "shop"), Vec::<String>::new());
}

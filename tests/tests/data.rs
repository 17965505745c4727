//! Data on a volume outlives everything, and belongs to one service.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, Output, TestBox, Traffic, wait_for};

/// Everything that may take a while because an app starts again.
const PATIENCE: Duration = Duration::from_secs(20);

fn ok(output: &Output) -> &Output {
    assert_eq!(output.code, 0, "{output:?}");
    output
}

fn notes(town: &TestBox, service: &str) -> Vec<String> {
    let response = town.get(service, "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn write(town: &TestBox, service: &str, note: &str) {
    let response = town.request(service, "POST", "/notes", note);
    assert_eq!(response.status, 201, "{response:?}");
}

#[test]
fn data_survives_redeploy_restart_rollback_down_and_a_new_serve() {
    let mut town = TestBox::start();
    let app = App::plain("ledger");
    town.up_ok(&app.with_volume("/data").path());
    let mut written = Vec::new();
    let mut check = |town: &TestBox, deed: &str, version: &str| {
        assert_eq!(town.get("ledger", "/version").body, version, "{deed}");
        assert_eq!(notes(town, "ledger"), written, "{deed}");
        written.push(format!("after {deed}"));
        write(town, "ledger", &format!("after {deed}"));
    };
    check(&town, "the first deployment", "one");
    town.up_ok(&app.version("two").path());
    check(&town, "a new version", "two");
    ok(&town.trackbed(&["redeploy", "--service", "ledger"]));
    check(&town, "a redeploy", "two");
    ok(&town.trackbed(&["restart", "--service", "ledger"]));
    check(&town, "a restart", "two");
    ok(&town.trackbed(&["rollback", "v1", "--service", "ledger"]));
    check(&town, "a rollback", "one");
    ok(&town.trackbed(&["down", "--service", "ledger"]));
    assert_eq!(town.get("ledger", "/notes").status, 503);
    assert_eq!(town.service("ledger")["state"], "stopped");
    ok(&town.trackbed(&["restart", "--service", "ledger"]));
    check(&town, "down and restart", "one");
    ok(&town.trackbed(&["down", "--service", "ledger"]));
    town.up_ok(&app.version("three").path());
    check(&town, "down and up", "three");
    assert_eq!(town.stop_serve(), 0);
    town.start_serve();
    check(&town, "a new serve", "three");
    town.kill_serve();
    town.start_serve();
    check(&town, "a killed serve", "three");
    ok(&town.trackbed(&["down", "--all"]));
    assert_eq!(town.wait_serve(), 0);
    town.start_serve();
    wait_for("it starts with the box", PATIENCE, || town.get("ledger", "/version").status == 200);
    check(&town, "down --all and a new serve", "three");
}

#[test]
fn a_stopped_service_stays_stopped_with_a_new_serve() {
    let mut town = TestBox::start();
    let app = App::plain("asleep");
    town.up_ok(&app.with_volume("/data").path());
    ok(&town.trackbed(&["down", "--service", "asleep"]));
    town.kill_serve();
    town.start_serve();
    assert_eq!(town.service("asleep")["state"], "stopped");
    assert_eq!(town.living_instances().len(), 0);
    assert_eq!(town.get("asleep", "/version").status, 503);
}

#[test]
fn a_build_sees_no_volume_and_the_app_does() {
    let town = TestBox::start();
    let app = App::plain("builder");
    let look = "if [ -e /data ]; then echo present; else echo absent; fi > seen.txt";
    app.with_volume("/data").write(
        "railway.json",
        serde_json::json!({
            "build": { "buildCommand": look },
            "deploy": { "startCommand": "python app.py", "healthcheckPath": "/health" }
        })
        .to_string(),
    );
    for _ in 0..2 {
        town.up_ok(&app.path());
        let seen =
            town.trackbed(&["run", "--service", "builder", "--", "sh", "-c", "cat seen.txt; ls -d /data"]);
        assert_eq!(ok(&seen).stdout, "absent\n/data\n");
        // Another source, so that it is built once more, now with a volume that exists.
        app.version("two");
    }
}

#[test]
fn no_service_reaches_the_volume_of_another() {
    let town = TestBox::start();
    for name in ["one", "two"] {
        town.up_ok(&App::plain(name).with_volume("/data").path());
        write(&town, name, &format!("secret of {name}"));
    }
    let who = |name: &str| -> Value { serde_json::from_str(&town.get(name, "/who").body).expect("JSON") };
    let (first, second) = (who("one")["uid"].clone(), who("two")["uid"].clone());
    if town.service("one")["isolation_level"] == "full" {
        assert!(first != second && first != 0 && second != 0, "{first} {second}");
    }
    assert_eq!(notes(&town, "one"), ["secret of one"]);
    assert_eq!(notes(&town, "two"), ["secret of two"]);
    // Even one that finds the folder of the other may not look into it.
    let data_dir = town.data_dir().to_string_lossy().into_owned();
    let look = format!("cat {data_dir}/volumes/*/data/app.db; ls {data_dir} /var/lib/trackbed; true");
    let found = town.trackbed(&["run", "--service", "two", "--", "sh", "-c", &look]);
    assert!(!ok(&found).stdout.contains("secret of one"), "{found:?}");
    let held: Vec<Value> = ["one", "two"]
        .iter()
        .map(|name| {
            let volumes = town.json(&["volume", "list", "--json", "--service", name]);
            volumes[0]["held_by"].clone()
        })
        .collect();
    assert!(held[0].is_string() && held[1].is_string() && held[0] != held[1], "{held:?}");
    #[cfg(unix)]
    for entry in std::fs::read_dir(town.data_dir().join("volumes")).expect("volumes") {
        use std::os::unix::fs::MetadataExt;
        let folder = entry.expect("a volume").path().join("data");
        let metadata = std::fs::metadata(&folder).expect("its data");
        if town.service("one")["isolation_level"] == "full" {
            assert!([&first, &second].iter().any(|uid| **uid == metadata.uid()), "{}", folder.display());
        }
        assert_eq!(metadata.mode() & 0o007, 0, "others may look into {}", folder.display());
    }
}

#[test]
fn a_volume_is_added_listed_and_looked_into_by_command() {
    let town = TestBox::start();
    let app = App::plain("shelf");
    let added = town.json(&["volume", "add", "data", "/data", "--json", "--service", "shelf"]);
    assert_eq!((added["name"].as_str(), added["mount"].as_str()), (Some("data"), Some("/data")));
    town.up_ok(&app.path());
    write(&town, "shelf", "kept");
    let listed = town.json(&["volume", "list", "--json", "--service", "shelf"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["mount"], "/data");
    assert!(listed[0]["used_bytes"].as_u64() > Some(0), "{listed}");
    assert_eq!(listed[0]["held_by"], town.service("shelf")["instance"]["id"]);
    let files = town.json(&["volume", "files", "data", "--json", "--service", "shelf"]);
    let names: Vec<&str> =
        files.as_array().expect("a list").iter().filter_map(|file| file["path"].as_str()).collect();
    assert!(names.iter().any(|name| name.trim_start_matches('/') == "app.db"), "{names:?}");
    let nowhere = town.trackbed(&["volume", "files", "data", "../../..", "--service", "shelf"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    let again = town.trackbed(&["volume", "add", "data", "/elsewhere", "--service", "shelf"]);
    assert_eq!(again.code, 1, "{again:?}");
    for bad in ["data", "/etc", "/app", "/data/../etc"] {
        let refused = town.trackbed(&["volume", "add", "other", bad, "--service", "shelf"]);
        assert_ne!(refused.code, 0, "{bad}: {refused:?}");
    }
    // A second one comes with the next deployment, below the app as well.
    ok(&town.trackbed(&["volume", "add", "uploads", "/app/uploads", "--service", "shelf"]));
    ok(&town.trackbed(&["redeploy", "--service", "shelf"]));
    let put = "echo hello > /app/uploads/f; mkdir /app/uploads/d; ls /data";
    let put = town.trackbed(&["run", "--service", "shelf", "--", "sh", "-c", put]);
    assert!(ok(&put).stdout.contains("app.db"), "{put:?}");
    ok(&town.trackbed(&["restart", "--service", "shelf"]));
    let kept = town.trackbed(&["run", "--service", "shelf", "--", "cat", "/app/uploads/f"]);
    assert_eq!(ok(&kept).stdout, "hello\n");
    assert_eq!(notes(&town, "shelf"), ["kept"]);
}

#[test]
fn a_required_mount_is_asked_for_before_the_old_release_is_touched() {
    let town = TestBox::start();
    let app = App::plain("strict");
    town.up_ok(&app.path());
    app.version("two").write(
        "railway.json",
        r#"{"deploy": {"startCommand": "python app.py", "healthcheckPath": "/health", "requiredMountPath": "/data"}}"#,
    );
    let refused = town.up(&app.path(), &[]);
    assert_eq!((refused.code, refused.text("status")), (1, "failed"), "{:#}", refused.last);
    assert_eq!(refused.text("stage"), "check");
    assert!(refused.text("reason").contains("/data"), "{:#}", refused.last);
    assert!(refused.text("hint").contains("trackbed volume add"), "{:#}", refused.last);
    assert_eq!(town.get("strict", "/version").body, "one");
    ok(&town.trackbed(&["volume", "add", "data", "/data", "--service", "strict"]));
    town.up_ok(&app.path());
    assert_eq!(town.get("strict", "/version").body, "two");
    write(&town, "strict", "kept");
}

#[test]
fn a_volume_below_the_app_keeps_its_data_and_hides_no_code() {
    let town = TestBox::start();
    let app = App::plain("nested");
    app.write("data/seed.txt", "from the source");
    town.up_ok(&app.with_volume("/app/data").path());
    write(&town, "nested", "kept");
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("nested", "/version").body, "two");
    assert_eq!(notes(&town, "nested"), ["kept"]);
    let files = town.json(&["volume", "files", "data", "--json", "--service", "nested"]);
    assert!(files.to_string().contains("app.db"), "{files}");
}

#[test]
fn no_acknowledged_write_is_lost_and_no_request_fails_while_a_service_with_a_volume_is_replaced() {
    let town = TestBox::start();
    let app = App::plain("busy");
    town.up_ok(&app.with_volume("/data").path());
    let traffic = Traffic::notes(town.port(), "busy", 3, Duration::from_millis(2));
    for round in 0..5 {
        town.up_ok(&app.version(&format!("round {round}")).path());
        ok(&town.trackbed(&["restart", "--service", "busy"]));
    }
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let mut kept = notes(&town, "busy");
    let mut acknowledged = tally.acknowledged;
    eprintln!(
        "{} notes sent during 5 redeploys and 5 restarts, {} acknowledged",
        tally.sent,
        acknowledged.len()
    );
    kept.sort();
    acknowledged.sort();
    assert_eq!(kept, acknowledged, "each is there, and once");
    assert!(acknowledged.len() > 100, "too little traffic to prove anything: {}", acknowledged.len());
    assert_eq!(town.get("busy", "/two-at-once").body, "False");
}

#[test]
fn no_request_fails_while_a_service_without_a_volume_is_replaced() {
    let town = TestBox::start();
    let app = App::plain("light");
    town.up_ok(&app.path());
    let traffic = Traffic::bodies(town.port(), "light", 4, Duration::from_millis(2));
    for round in 0..5 {
        town.up_ok(&app.version(&format!("round {round}")).path());
    }
    let tally = traffic.end();
    eprintln!("{} requests during 5 redeploys", tally.sent);
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.sent > 500, "too little traffic to prove anything: {}", tally.sent);
}

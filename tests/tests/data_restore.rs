//! Going back: to a point, to a time, with code; under load, from a damaged store, and as an ordinary user.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, Traffic, User, flip_byte, sqlite, typed_time};

fn notes(town: &TestBox, service: &str) -> Vec<String> {
    let response = town.get(service, "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn write(town: &TestBox, service: &str, note: &str) {
    let response = town.request(service, "POST", "/notes", note);
    assert_eq!(response.status, 201, "{response:?}");
}

fn id(point: &Value) -> String {
    point["id"].as_str().unwrap_or_else(|| panic!("no id: {point:#}")).to_owned()
}

/// The notes of a volume that no app uses.
fn notes_in(folder: &std::path::Path) -> Vec<String> {
    sqlite(&folder.join("app.db"), "SELECT text FROM notes ORDER BY id").lines().map(str::to_owned).collect()
}

#[test]
fn a_restore_under_load_fails_no_request_and_loses_no_acknowledged_write() {
    let town = TestBox::start();
    town.up_ok(&App::plain_with_volume("shop").path());
    for number in 0..20 {
        write(&town, "shop", &format!("early {number}"));
    }
    let point = town.snapshot("shop");
    let traffic = Traffic::notes(town.port(), "shop", 3, Duration::from_millis(5));
    std::thread::sleep(Duration::from_millis(300));
    let restored = town.restore("shop", &id(&point), &["--yes"]);
    assert_eq!(restored.code, 0, "{restored:?}\nserve: {}", town.serve_log());
    std::thread::sleep(Duration::from_millis(300));
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let now = notes(&town, "shop");
    let early: Vec<String> = (0..20).map(|number| format!("early {number}")).collect();
    assert_eq!(now[..20], early[..], "the data of the point");
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    // Each acknowledged note is either in the new data or in the point that keeps the replaced.
    let deployment = town.last_deployment("shop");
    assert_eq!((&deployment["kind"], &deployment["status"]), (&"restore".into(), &"success".into()));
    let replaced = deployment["pins"][0]["point"].as_str().expect("what was replaced is a point").to_owned();
    let points = town.points("shop");
    let kept = points.iter().find(|point| point["id"] == *replaced);
    assert_eq!(kept.expect("it is listed")["why"], "before-restore");
    let aside = notes_in(&town.restore_to("shop", &replaced, "aside"));
    let (before, after): (Vec<&String>, Vec<&String>) =
        tally.acknowledged.iter().partition(|note| aside.contains(note));
    assert!(!before.is_empty() && !after.is_empty(), "{} {}", before.len(), after.len());
    assert_eq!(aside.len(), 20 + before.len());
    assert_eq!(now.len(), 20 + after.len());
    assert!(after.iter().all(|note| now.contains(note)));
}

#[test]
fn a_dry_run_tells_what_differs_and_changes_nothing() {
    let town = TestBox::start();
    town.up_ok(&App::plain_with_volume("shop").path());
    let run = |script: &str| {
        let ran = town.trackbed(&["run", "--service", "shop", "--", "sh", "-c", script]);
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    write(&town, "shop", "first");
    run("echo then > /data/changed; echo then > /data/missing");
    let point = town.snapshot("shop");
    write(&town, "shop", "second");
    write(&town, "shop", "third");
    run("echo now > /data/changed; rm /data/missing; echo now > /data/added");
    let before = (notes(&town, "shop"), town.service("shop")["instance"]["id"].clone());
    let told = town.restore("shop", &id(&point), &["--dry-run", "--json"]);
    assert_eq!(told.code, 0, "{told:?}");
    let told: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let paths = told["paths"].to_string();
    for wanted in ["+added", "~changed", "-missing"] {
        let spaced = format!("{} {}", &wanted[..1], &wanted[1..]);
        assert!(paths.contains(wanted) || paths.contains(&spaced), "no {wanted}: {told:#}");
    }
    let tables = told["tables"].as_array().expect("tables");
    let table = tables.iter().find(|table| table["table"] == "notes").expect("the notes differ");
    assert_eq!((&table["rows_now"], &table["rows_then"]), (&3.into(), &1.into()), "{told:#}");
    let after = (notes(&town, "shop"), town.service("shop")["instance"]["id"].clone());
    assert_eq!(before, after, "a dry run changes nothing");
    let said = town.restore("shop", &id(&point), &["--dry-run"]);
    assert!(said.code == 0 && said.stdout.contains("notes"), "{said:?}");
}

#[test]
fn a_volume_goes_back_to_a_time_and_forward_again() {
    let town = TestBox::start();
    town.up_ok(&App::plain_with_volume("shop").path());
    let mut points = Vec::new();
    for name in ["a", "b", "c"] {
        write(&town, "shop", name);
        points.push(town.snapshot("shop"));
    }
    let back = |at: &str| {
        let restored = town.restore("shop", at, &["--yes"]);
        assert_eq!(restored.code, 0, "{at}: {restored:?}\nserve: {}", town.serve_log());
    };
    // A moment after the second one, in milliseconds.
    let taken = points[1]["taken_at"].as_i64().expect("a time");
    back(&typed_time(taken + 1));
    assert_eq!(notes(&town, "shop"), ["a", "b"]);
    back(&id(&points[0]));
    assert_eq!(notes(&town, "shop"), ["a"]);
    back(&id(&points[2]));
    assert_eq!(notes(&town, "shop"), ["a", "b", "c"]);
    let never = town.restore("shop", &typed_time(1_000_000), &["--yes"]);
    assert!(never.code == 1 && never.stderr.contains("no restore point"), "{never:?}");
    assert_eq!(notes(&town, "shop"), ["a", "b", "c"]);
}

#[test]
fn a_rollback_with_data_takes_code_and_data_back_and_says_what_is_set_aside() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    town.up_ok(&app.path());
    write(&town, "shop", "by one");
    town.up_ok(&app.version("two").path());
    write(&town, "shop", "by two");
    write(&town, "shop", "by two again");
    let rolled = town.trackbed(&["rollback", "v1", "--with-data", "--yes", "--service", "shop"]);
    assert_eq!(rolled.code, 0, "{rolled:?}\nserve: {}", town.serve_log());
    assert_eq!(town.get("shop", "/version").body, "one");
    assert_eq!(notes(&town, "shop"), ["by one"]);
    let deployment = town.last_deployment("shop");
    let replaced = &deployment["replaced"][0];
    let table = replaced["tables"].as_array().and_then(|tables| tables.first()).cloned().unwrap_or_default();
    assert_eq!((&table["rows_now"], &table["rows_then"]), (&3.into(), &1.into()), "{deployment:#}");
    let said = format!("{}{}", rolled.stdout, rolled.stderr);
    let kept_in = replaced["kept_in"].as_str().expect("it is kept").to_owned();
    assert!(said.contains("2 rows") && said.contains(&kept_in), "how much is set aside, and where: {said}");
    // What was set aside can be had back.
    let aside = town.restore_to("shop", &kept_in, "aside");
    assert_eq!(notes_in(&aside), ["by one", "by two", "by two again"]);
}

#[test]
fn a_damaged_point_is_found_refused_and_an_older_one_offered() {
    let town = TestBox::start();
    town.up_ok(&App::plain_with_volume("shop").path());
    let letters = |name: &str| {
        let script = format!("head -c 3000000 /dev/urandom > /data/{name}");
        let ran = town.trackbed(&["run", "--service", "shop", "--", "sh", "-c", &script]);
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    write(&town, "shop", "a");
    letters("old.bin");
    let older = town.snapshot("shop");
    let packs = town.packs();
    write(&town, "shop", "b");
    letters("new.bin");
    let newer = town.snapshot("shop");
    for pack in town.packs().difference(&packs) {
        flip_byte(pack);
    }
    // A restore looks before it touches anything.
    let refused = town.restore("shop", &id(&newer), &["--yes"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(notes(&town, "shop"), ["a", "b"], "nothing has changed");
    let drilled = town.drill("shop", &id(&newer));
    assert_eq!(drilled["proof"]["proven"], false, "{drilled:#}");
    let refused = town.restore("shop", &id(&newer), &["--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains(&id(&older)), "{refused:?}");
    let status = town.trackbed(&["status"]);
    assert!(status.stdout.contains("cannot be restored") || status.stdout.contains("broken"), "{status:?}");
    let back = town.restore("shop", &id(&older), &["--yes"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(notes(&town, "shop"), ["a"]);
    // What is damaged is not used again: the same data, stored once more, is good.
    write(&town, "shop", "c");
    let fresh = town.snapshot("shop");
    assert_eq!(town.drill("shop", &id(&fresh))["proof"]["proven"], true);
}

#[test]
fn an_ordinary_user_takes_points_and_goes_back() {
    if !trackbed_tests::is_root("a box of an ordinary user, made by root") {
        return;
    }
    let town = TestBox::start_with(User::Ordinary, &[], &[]);
    let app = App::plain_with_volume("shop");
    town.up_ok(&app.path());
    write(&town, "shop", "a");
    let traffic = Traffic::get(town.port(), "shop", 2, Duration::from_millis(5));
    let point = town.snapshot("shop");
    assert_eq!(point["consistency"], "instant", "{point:#}");
    write(&town, "shop", "b");
    let restored = town.restore("shop", &id(&point), &["--yes"]);
    assert_eq!(restored.code, 0, "{restored:?}\nserve: {}", town.serve_log());
    assert_eq!(notes(&town, "shop"), ["a"]);
    assert_eq!(town.drill("shop", &id(&point))["proof"]["proven"], true);
    town.up_ok(&app.version("two").path());
    let rolled = town.trackbed(&["rollback", "v1", "--with-data", "--yes", "--service", "shop"]);
    assert_eq!(rolled.code, 0, "{rolled:?}");
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_eq!(
        (town.get("shop", "/version").body.as_str(), notes(&town, "shop")),
        ("one", vec!["a".to_owned()])
    );
}

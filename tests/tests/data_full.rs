//! A disk without room, at every deed that writes: it is said clearly, nobody is harmed, and with room again it works.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, FileSystem, TestBox, Traffic};

/// The disk of the box: room for everything, and for what the box keeps free for the volumes themselves.
const DISK_MB: u64 = 1500;
/// What the volume gains, all of it new to the store.
const NEW_MB: u64 = 40;
/// Left free: enough for what every deed writes anyway, too little for the new.
const FREE_MB: u64 = 24;

fn notes(town: &TestBox) -> Vec<String> {
    let response = town.get("shop", "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// A box on a small disk, with the plain app live and one note kept; none when this machine cannot have it.
fn town_on_a_small_disk(what: &str) -> Option<(TestBox, App)> {
    if !FileSystem::Ext4.is_here(what) {
        return None;
    }
    let town = TestBox::start_on(FileSystem::Ext4, DISK_MB);
    let app = town.up_good("shop");
    Some((town, app))
}

/// Puts bytes on the volume that the store has never seen, then takes the room away.
fn grow_and_fill(town: &TestBox) {
    let grow = format!("head -c {} /dev/urandom > /data/new.bin && sync", NEW_MB << 20);
    let grown = town.trackbed(&["run", "--service", "shop", "--", "sh", "-c", &grow]);
    assert_eq!(grown.code, 0, "{grown:?}");
    town.disk().fill_up_to(FREE_MB);
}

fn assert_says_no_room(text: &str) {
    let said = text.to_lowercase();
    let words = ["no space", "no room", "full", "needs", "free"];
    assert!(words.iter().any(|word| said.contains(word)), "it does not say that the disk is full: {text}");
}

/// What failed left nothing of itself: the room is as it was.
fn assert_room_is_back(town: &TestBox) {
    let stat = nix::sys::statvfs::statvfs(town.disk().path()).expect("a mounted disk");
    let free = (stat.blocks_available() * stat.fragment_size()) >> 20;
    assert!(free + 6 >= FREE_MB, "only {free} MB of {FREE_MB} are free again");
}

#[test]
fn a_snapshot_without_room_harms_nobody() {
    let Some((town, _app)) = town_on_a_small_disk("a full disk at a snapshot") else { return };
    grow_and_fill(&town);
    let before = town.points("shop").len();
    let traffic = Traffic::notes(town.port(), "shop", 2, Duration::from_millis(10));
    for _ in 0..2 {
        let refused = town.try_snapshot("shop").expect_err("there is no room");
        assert_eq!(refused.code, 1, "{refused:?}");
        assert_says_no_room(&refused.stderr);
        assert_room_is_back(&town);
    }
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(notes(&town).len(), 1 + tally.acknowledged.len());
    assert_eq!(town.points("shop").len(), before, "half a point is no point");
    town.disk().empty();
    let point = town.snapshot("shop");
    let proven = town.drill("shop", point["id"].as_str().expect("an id"));
    assert_eq!(proven["proof"]["proven"], true, "{proven:#}");
}

#[test]
fn a_deployment_without_room_for_its_pin_fails_while_the_old_release_serves() {
    let Some((town, app)) = town_on_a_small_disk("a full disk at a pin") else { return };
    grow_and_fill(&town);
    let instance = town.service("shop")["instance"]["id"].clone();
    let traffic = Traffic::get(town.port(), "shop", 2, Duration::from_millis(10));
    let failed = town.up(app.version("two").path().as_path(), &[]);
    assert_eq!((failed.code, failed.text("status")), (1, "failed"), "{:#}", failed.last);
    assert!(["check", "stage", "pin"].contains(&failed.text("stage")), "{:#}", failed.last);
    assert_says_no_room(failed.text("reason"));
    if failed.text("stage") != "pin" {
        assert_eq!(town.service("shop")["instance"]["id"], instance, "the old release was touched");
    }
    town.assert_serves_on("shop");
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_room_is_back(&town);
    town.disk().empty();
    town.up_ok(&app.path());
    assert_eq!((town.get("shop", "/version").body.as_str(), notes(&town)), ("two", vec!["kept".to_owned()]));
}

#[test]
fn a_restore_without_room_leaves_the_volume_as_it_is() {
    let Some((town, _app)) = town_on_a_small_disk("a full disk at a restore") else { return };
    let grow = format!("head -c {} /dev/urandom > /data/new.bin && sync", NEW_MB << 20);
    let grown = town.trackbed(&["run", "--service", "shop", "--", "sh", "-c", &grow]);
    assert_eq!(grown.code, 0, "{grown:?}");
    let point: Value = town.snapshot("shop");
    let at = point["id"].as_str().expect("an id");
    assert_eq!(town.request("shop", "POST", "/notes", "later").status, 201);
    town.disk().fill_up_to(FREE_MB);
    let traffic = Traffic::get(town.port(), "shop", 2, Duration::from_millis(10));
    let refused = town.restore("shop", at, &["--yes"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_says_no_room(&format!("{}{}", refused.stdout, refused.stderr));
    let aside = town.restore("shop", at, &["--to", "aside"]);
    assert_eq!(aside.code, 1, "{aside:?}");
    assert_says_no_room(&aside.stderr);
    assert_eq!(notes(&town), ["kept", "later"]);
    assert_eq!(traffic.end().failures, Vec::<String>::new());
    assert_room_is_back(&town);
    town.disk().empty();
    let restored = town.restore("shop", at, &["--yes"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(notes(&town), ["kept"]);
}

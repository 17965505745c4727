//! Copies off the box, at an S3 server and in a directory, and a whole box brought back from them.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use trackbed_tests::{App, Output, S3Server, TestBox, User, wait_for};

const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

fn notes(town: &TestBox, service: &str) -> Vec<String> {
    let response = town.get(service, "/notes");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn write(town: &TestBox, service: &str, note: &str) {
    let response = town.request(service, "POST", "/notes", note);
    assert_eq!(response.status, 201, "{response:?}");
}

fn done(town: &TestBox, output: Output) -> Output {
    assert_eq!(output.code, 0, "{output:?}\nserve: {}", town.serve_log());
    output
}

/// A box with one service, a variable, some notes and a restore point of them.
fn shop(env: &[(&str, &str)]) -> TestBox {
    let town = TestBox::start_with(User::Own, env, &[]);
    town.up_ok(&App::plain_with_volume("shop").path());
    done(&town, town.trackbed(&["variables", "set", "SECRET_WORD=swordfish", "--service", "shop"]));
    town.up_ok(&App::plain_with_volume("shop").path());
    for number in 0..10 {
        write(&town, "shop", &format!("note {number}"));
    }
    done(&town, town.trackbed(&["volume", "snapshot", "--service", "shop"]));
    town
}

/// Sets the target, copies everything, and returns a file with the key.
fn copy_to(town: &TestBox, url: &str, folder: &TempDir) -> PathBuf {
    let set = done(town, town.trackbed(&["backup", "target", "set", url]));
    assert!(set.stdout.starts_with("AGE-SECRET-KEY-1"), "{set:?}");
    let shown = done(town, town.trackbed(&["backup", "key"]));
    assert_eq!(shown.stdout, set.stdout, "the key can be had again on the box");
    let key = folder.path().join("key.txt");
    std::fs::write(&key, &set.stdout).unwrap();
    done(town, town.trackbed(&["backup", "now"]));
    key
}

fn recover(town: &TestBox, url: &str, key: &Path, more: &[&str]) -> Output {
    let key = key.to_string_lossy().into_owned();
    let mut all = vec!["recover", url, "--key", &key];
    all.extend(more);
    town.trackbed(&all)
}

fn target(town: &TestBox) -> Value {
    town.json(&["backup", "target", "show", "--json"])["target"].clone()
}

#[test]
fn an_empty_machine_becomes_the_box_again_and_the_old_one_refuses_to_go_on() {
    let Some(s3) = S3Server::start() else { return };
    let (old, url, folder) = (shop(&CREDENTIALS), s3.url("box"), tempfile::tempdir().unwrap());
    let key = copy_to(&old, &url, &folder);
    let shown = target(&old);
    assert_eq!((&shown["missing_objects"], &shown["failure"]), (&0.into(), &Value::Null), "{shown:#}");
    assert!(shown["succeeded_at"].is_i64(), "{shown:#}");
    for secret in ["hunter2", "AGE-SECRET", "swordfish"] {
        assert!(!shown.to_string().contains(secret) && !old.serve_log().contains(secret), "{secret}");
    }
    let before = notes(&old, "shop");

    let mut new = TestBox::prepare(User::Own, &CREDENTIALS, &[]);
    let recovered = recover(&new, &url, &key, &["--take-over"]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    new.start_serve();
    new.wait_state("shop", "running", Duration::from_secs(60));
    assert_eq!(notes(&new, "shop"), before);
    let variables = done(&new, new.trackbed(&["variables", "--service", "shop", "--show", "--json"]));
    assert!(variables.stdout.contains("swordfish"), "{variables:?}");
    assert_eq!(new.service("shop")["release"], old.service("shop")["release"]);
    // What the new box keeps goes on where the copies are; the old one may not write there any more.
    write(&new, "shop", "after");
    done(&new, new.trackbed(&["backup", "now"]));
    let refused = old.trackbed(&["backup", "now"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("belongs to another box"), "{refused:?}");

    let again = recover(&new, &url, &key, &[]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("holds a box already"), "{again:?}");
}

#[test]
fn a_killed_recovery_goes_on_and_keeps_what_it_has() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", copies.path().join("box").display());
    let old = shop(&[]);
    let key = copy_to(&old, &url, &folder);
    let before = notes(&old, "shop");

    let mut new = TestBox::prepare(User::Own, &[], &[]);
    let path = key.to_string_lossy().into_owned();
    // Slow enough to be killed in the middle.
    let mut slow = new.spawn(&["recover", &url, "--key", &path, "--bandwidth", "20kB/s"]);
    let fetched = new.data_dir().join("sources");
    wait_for("something has been fetched", Duration::from_secs(60), || {
        let entries = std::fs::read_dir(&fetched).into_iter().flatten().flatten();
        entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count() > 0
    });
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert!(!new.data_dir().join("state.db").exists(), "what is not finished is no box");
    let recovered = recover(&new, &url, &key, &[]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    assert!(recovered.stderr.contains("going on with what an earlier recovery has fetched"), "{recovered:?}");
    new.start_serve();
    new.wait_state("shop", "running", Duration::from_secs(60));
    assert_eq!(notes(&new, "shop"), before);
    // Not taken over: the copies are still the old box's.
    let refused = new.trackbed(&["backup", "now"]);
    assert!(refused.code == 1 && refused.stderr.contains("--take-over"), "{refused:?}");
    done(&old, old.trackbed(&["backup", "now"]));
}

#[test]
fn a_wrong_key_is_refused_before_anything_is_written() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", copies.path().join("box").display());
    let old = shop(&[]);
    copy_to(&old, &url, &folder);
    let other = TestBox::start();
    let elsewhere = format!("file://{}", copies.path().join("other").display());
    let wrong = copy_to(&other, &elsewhere, &folder);
    let new = TestBox::prepare(User::Own, &[], &[]);
    let refused = recover(&new, &url, &wrong, &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("the key does not fit"), "{refused:?}");
    assert!(!new.data_dir().exists(), "nothing was written");
    let taken = other.trackbed(&["backup", "target", "set", &url]);
    assert!(taken.code == 1 && taken.stderr.contains("the key does not fit"), "{taken:?}");
}

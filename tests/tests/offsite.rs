//! Copies off the box, at an S3 server and in a directory, and a whole box brought back from them.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::path::{Path, PathBuf};
use std::process::Command;
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

/// Runs a program of the system and returns what it prints.
fn ran(program: &str, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(program).args(arguments).output();
    let done = done.unwrap_or_else(|error| panic!("{program} (`cargo xtask test` installs it): {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Returns the files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Returns the one file whose path within a folder begins so.
fn file_like(folder: &Path, beginning: &str) -> PathBuf {
    let mut files = files_below(folder).into_iter();
    let is_it = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_string_lossy().starts_with(beginning);
    files.find(is_it).unwrap_or_else(|| panic!("no {beginning}"))
}

#[test]
fn the_age_of_the_distribution_opens_every_object_with_the_exported_key() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let there = copies.path().join("box");
    let old = shop(&[]);
    let key = copy_to(&old, &format!("file://{}", there.display()), &folder);
    let key = key.to_str().unwrap();
    let open = |path: &Path| ran("age", &["-d", "-i", key, path.to_str().unwrap()]);
    let listed = |path: &Path| {
        let plain = folder.path().join("plain.tar");
        std::fs::write(&plain, open(path)).unwrap();
        String::from_utf8(ran("tar", &["-tf", plain.to_str().unwrap()])).unwrap()
    };

    let head: Value = serde_json::from_slice(&open(&there.join("head.age"))).unwrap();
    let catalogue = open(&there.join(head["catalogue"]["object"].as_str().unwrap()));
    let catalogue: Value = serde_json::from_slice(&catalogue).unwrap();
    let entries = catalogue["entries"].as_array().unwrap();
    for entry in entries {
        let (path, object) = (entry["path"].as_str().unwrap(), entry["object"].as_str().unwrap());
        let (plain, here) = (open(&there.join(object)), old.data_dir().join(path));
        assert_eq!(plain.len() as u64, entry["bytes"].as_u64().unwrap(), "{object}");
        if entry["kind"] == "file" {
            assert!(plain == std::fs::read(here).unwrap(), "{object}");
        } else if path.starts_with("sources/") {
            assert!(listed(&there.join(object)).lines().any(|line| line == "app.py"), "{object}");
        }
    }
    assert!(entries.iter().any(|entry| entry["kind"] == "file") && entries.len() > 4, "{catalogue:#}");

    let state = there.join(head["state"]["object"].as_str().unwrap());
    assert_eq!(listed(&state), "key\nstate.db\n");
    let plain = folder.path().join("plain.tar");
    ran("tar", &["-xf", plain.to_str().unwrap(), "-C", folder.path().to_str().unwrap()]);
    let state = folder.path().join("state.db");
    let names = ran("sqlite3", &[state.to_str().unwrap(), "SELECT name FROM services"]);
    assert_eq!(String::from_utf8(names).unwrap(), "shop\n");
}

#[test]
fn when_the_newest_copies_are_damaged_earlier_ones_bring_the_box_back() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let there = copies.path().join("box");
    let url = format!("file://{}", there.display());
    let old = shop(&[]);
    let key = copy_to(&old, &url, &folder);
    let before = notes(&old, "shop");
    let earlier = target(&old)["sequence"].as_u64().unwrap();
    // Newer copies, of which the state is cut off and the head nonsense.
    done(&old, old.trackbed(&["variables", "set", "LATER=yes", "--service", "shop"]));
    done(&old, old.trackbed(&["backup", "now"]));
    let newer = target(&old)["sequence"].as_u64().unwrap();
    assert!(newer > earlier, "{newer} {earlier}");
    let state = file_like(&there, &format!("states/{newer:012}-"));
    let bytes = std::fs::read(&state).unwrap();
    std::fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(there.join("head.age"), "nonsense").unwrap();

    let mut new = TestBox::prepare(User::Own, &[], &[]);
    let listed = recover(&new, &url, &key, &["--list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
    let of = |number: u64| {
        listed.as_array().unwrap().iter().find(|copy| copy["number"] == number).unwrap().clone()
    };
    assert!(listed[0]["faults"][0].as_str().unwrap().starts_with("head.age is damaged"), "{listed:#}");
    assert!(of(newer)["faults"][0].as_str().unwrap().contains("bytes, and holds"), "{listed:#}");
    assert!(of(earlier)["faults"] == Value::Array(vec![]) && of(earlier)["points"] != 0, "{listed:#}");
    let refused = recover(&new, &url, &key, &["--at", &newer.to_string()]);
    assert!(refused.code == 1 && refused.stderr.contains("without its state"), "{refused:?}");
    assert!(refused.stderr.contains("--list"), "{refused:?}");

    let recovered = recover(&new, &url, &key, &[]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    for says in
        ["head.age", &format!("number {newer} is not whole and is passed over"), "what changed after it"]
    {
        assert!(recovered.stderr.contains(says), "{says}: {recovered:?}");
    }
    new.start_serve();
    new.wait_state("shop", "running", Duration::from_secs(60));
    assert_eq!(notes(&new, "shop"), before);
    let variables = done(&new, new.trackbed(&["variables", "--service", "shop", "--show", "--json"]));
    assert!(variables.stdout.contains("swordfish") && !variables.stdout.contains("LATER"), "{variables:?}");
    // The living box finds the damage and writes what it has anew.
    done(&old, old.trackbed(&["backup", "now"]));
    let third = TestBox::prepare(User::Own, &[], &[]);
    let recovered = recover(&third, &url, &key, &[]);
    assert!(recovered.code == 0 && !recovered.stderr.contains("passed over"), "{recovered:?}");
}

#[test]
fn what_is_left_of_damaged_copies_is_brought_back_when_it_is_asked_for() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let there = copies.path().join("box");
    let url = format!("file://{}", there.display());
    let old = shop(&[]);
    let key = copy_to(&old, &url, &folder);
    let before = notes(&old, "shop");
    let number = target(&old)["sequence"].as_u64().unwrap().to_string();
    // A source that all copies need, damaged where only reading it shows.
    let source = file_like(&there, "objects/sources/");
    let mut bytes = std::fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&source, bytes).unwrap();

    let mut new = TestBox::prepare(User::Own, &[], &[]);
    let refused = recover(&new, &url, &key, &[]);
    assert!(refused.code == 1 && refused.stderr.contains("are whole"), "{refused:?}");
    assert!(refused.stderr.contains("--at NUMBER"), "{refused:?}");
    let recovered = recover(&new, &url, &key, &["--at", &number]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    assert!(recovered.stderr.contains("objects/sources/"), "{recovered:?}");
    new.start_serve();
    // The source is gone; its data is not, and a new deploy serves it.
    new.up_ok(&App::plain_with_volume("shop").path());
    assert_eq!(notes(&new, "shop"), before);
}

#[test]
fn an_endpoint_with_a_certificate_of_ones_own_is_used_when_it_is_trusted_and_else_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (authority, certificate, key) = (at("ca.pem"), at("s3.pem"), at("s3.key"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["-days", "2", "-subj", "/CN=Test Authority", "-keyout", &at("ca.key"), "-out", &authority];
    ran("openssl", &[&["req", "-x509"], &new_key[..], &ca].concat());
    let signed = ["-subj", "/CN=s3", "-keyout", &key, "-out", &certificate, "-days", "2"];
    let by = ["-CA", &authority, "-CAkey", &at("ca.key"), "-addext", "subjectAltName=IP:127.0.0.1"];
    let end = ["-addext", "basicConstraints=critical,CA:FALSE"];
    ran("openssl", &[&["req", "-x509"], &new_key[..], &signed, &by, &end].concat());
    let Some(s3) = S3Server::start_tls(Path::new(&certificate), Path::new(&key)) else { return };
    let url = |host: &str| format!("s3://copies/box?region=us-east-1&endpoint=https://{host}:{}", s3.port);

    let stranger = TestBox::start_with(User::Own, &CREDENTIALS, &[]);
    let refused = stranger.trackbed(&["backup", "target", "set", &url("127.0.0.1")]);
    assert!(refused.code == 1 && refused.stderr.contains("UnknownIssuer"), "{refused:?}");
    assert!(refused.stderr.contains("SSL_CERT_FILE"), "{refused:?}");

    let trusting = [&CREDENTIALS[..], &[("SSL_CERT_FILE", &authority)]].concat();
    let old = TestBox::start_with(User::Own, &trusting, &[]);
    let refused = old.trackbed(&["backup", "target", "set", &url("localhost")]);
    assert!(refused.code == 1 && refused.stderr.contains("not valid for name"), "{refused:?}");
    assert!(refused.stderr.contains("host name of the endpoint"), "{refused:?}");
    let plain = url("127.0.0.1").replace("https:", "http:");
    assert_eq!(old.trackbed(&["backup", "target", "set", &plain]).code, 1);
    let exported = copy_to(&old, &url("127.0.0.1"), &folder);
    let new = TestBox::prepare(User::Own, &trusting, &[]);
    let recovered = recover(&new, &url("127.0.0.1"), &exported, &[]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
}

#[test]
fn a_bucket_that_is_not_there_is_named_and_no_xml_is_shown() {
    let Some(s3) = S3Server::start() else { return };
    let town = TestBox::start_with(User::Own, &CREDENTIALS, &[]);
    let refused =
        town.trackbed(&["backup", "target", "set", &s3.url("box").replace("//copies/", "//nosuch/")]);
    assert!(refused.code == 1 && refused.stderr.contains("NoSuchBucket"), "{refused:?}");
    assert!(refused.stderr.contains("make the bucket first") && !refused.stderr.contains('<'), "{refused:?}");
}

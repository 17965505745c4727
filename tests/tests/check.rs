//! `trackbed check` as people run it: without a box, on good folders and on odd ones.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use trackbed_tests::{App, TestBox, User};

const BAD: &str =
    "import sqlite3\nfrom fastapi import FastAPI\napp = FastAPI()\ndb = sqlite3.connect('store.db')\n";

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).and_then(|mut file| std::io::Write::write_all(&mut file, bytes)).unwrap();
}

/// A folder with a volume, a database outside it, and a port that is written down.
fn bad_app() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[deploy]\nstartCommand = \"uvicorn main:app --host 0.0.0.0 --port 8000\"\n\
                    [[volumes]]\nname = \"data\"\nmount = \"/data\"\n";
    write(folder.path(), "trackbed.toml", settings.as_bytes());
    write(folder.path(), "main.py", BAD.as_bytes());
    write(folder.path(), "requirements.txt", b"fastapi\nuvicorn\n");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_folder_is_looked_at_without_a_box() {
    let town = TestBox::prepare(User::Own, &[], &[]);
    let app = bad_app();
    let said = town.trackbed(&["check", text(app.path())]);
    assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
    for part in [
        "main.py:4: error: ",
        "[data-outside-volume]",
        "mend: ",
        "trackbed.toml:2: warning: ",
        "[port-fixed]",
    ] {
        assert!(said.stdout.contains(part), "{part} is not in:\n{}", said.stdout);
    }
    assert!(said.stderr.contains("1 error, 1 warning"), "{}", said.stderr);
    assert!(!town.data_dir().join("state.db").exists(), "a box was started");

    let json: Value =
        serde_json::from_str(&town.trackbed(&["check", text(app.path()), "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["findings"][0]["rule"], &json["findings"][0]["line"]),
        (&"data-outside-volume".into(), &4.into())
    );

    // With warnings only, it is a matter of taste.
    write(app.path(), "main.py", b"from fastapi import FastAPI\napp = FastAPI()\n");
    assert_eq!(town.trackbed(&["check", text(app.path())]).code, 0);
    assert_eq!(town.trackbed(&["check", text(app.path()), "--strict"]).code, 1);
}

#[test]
fn sarif_names_rules_levels_and_relative_places() {
    let town = TestBox::prepare(User::Own, &[], &[]);
    let app = bad_app();
    let said = town.trackbed(&["check", text(app.path()), "--sarif"]);
    let log: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert!(!results.is_empty());
    assert_eq!(trackbed_tests::sarif_faults(&said.stdout), None);
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(!rule["help"]["text"].as_str().unwrap().is_empty());
        assert!(["error", "warning", "note"].contains(&result["level"].as_str().unwrap()));
        for place in result["locations"].as_array().into_iter().flatten() {
            let uri = place["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap();
            assert!(!uri.starts_with('/') && app.path().join(uri).is_file(), "{uri}");
        }
    }
}

#[test]
fn odd_folders_are_answered() {
    let town = TestBox::prepare(User::Own, &[], &[]);
    let app = bad_app();
    let missing = town.trackbed(&["check", text(&app.path().join("nowhere"))]);
    assert!(missing.code == 1 && missing.stderr.contains("nowhere"), "{}", missing.stderr);
    let file = town.trackbed(&["check", text(&app.path().join("main.py"))]);
    assert!(file.code == 1 && file.stderr.contains("not a folder"), "{}", file.stderr);

    let folder = app.path();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9.py");
    std::fs::copy(folder.join("main.py"), folder.join(odd)).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    write(folder, "inner/x.py", b"\xff\xfe\x00\x01binary\x00");
    symlink(".", folder.join("inner/self")).unwrap();
    std::fs::File::create(folder.join("huge.py")).and_then(|file| file.set_len(1 << 30)).unwrap();
    write(folder, "main.py", format!("{BAD}import huge, inner.x\n").as_bytes());
    let said = town.trackbed(&["check", text(folder)]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stdout.contains("main.py:4: error: "), "{}", said.stdout);
    assert!(said.stdout.contains("huge.py is larger than 1 MB"), "{}", said.stdout);
}

#[test]
fn a_large_tree_is_looked_at() {
    let town = TestBox::prepare(User::Own, &[], &[]);
    let app = bad_app();
    for number in 0..50_000 {
        write(app.path(), &format!("data/{}/{number}.json", number % 100), b"{}");
    }
    let said = town.trackbed(&["check", text(app.path())]);
    assert!(said.code == 1 && said.stdout.contains("main.py:4: error: "), "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_deploy_tells_what_was_found_and_goes_on() {
    let town = TestBox::start();
    let app = App::plain("hello");
    let file = app.path().join("app.py");
    let code = std::fs::read_to_string(&file).unwrap()
        + "\nSTORE = os.environ.get('STORE_URL', 'sqlite:///store.db')\n";
    write(&app.path(), "app.py", code.as_bytes());
    let up = town.up(&app.path(), &[]);
    assert_eq!(up.code, 0, "{:?}", up.last);
    assert!(
        up.warnings().contains("`sqlite:///store.db` is /app/store.db, because STORE_URL is not set"),
        "{}",
        up.warnings()
    );
    // What the box knows counts for the folder, too.
    town.trackbed(&["variables", "set", "--service", "hello", "STORE_URL=sqlite:////tmp/store.db"]);
    let said = town.trackbed(&["check", "--service", "hello", text(&app.path())]);
    assert!(said.code == 0 && !said.stdout.contains("data-outside-volume"), "{}{}", said.stdout, said.stderr);
}

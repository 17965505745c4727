//! Only what changed since the last time is sent to the box, and whatever is forgotten on the way, the source is the same.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use trackbed_tests::{App, TestBox};

/// Files that changed less than two seconds before they were read are read again the next time.
const OF_AGE: Duration = Duration::from_millis(3100);

/// The source that a plan brings to the box; every other one is there before.
fn brought(town: &TestBox, app: &App, already: &mut Vec<PathBuf>) -> PathBuf {
    let plan = town.trackbed(&["plan", &app.path().to_string_lossy()]);
    assert_eq!(plan.code, 0, "{plan:?}");
    let sources = fs::read_dir(town.data_dir().join("sources")).expect("sources");
    let new = sources.map(|entry| entry.expect("an entry").path()).filter(|path| !already.contains(path));
    let new: Vec<PathBuf> = new.collect();
    assert_eq!(new.len(), 1, "{new:?}");
    already.extend(new.iter().cloned());
    new[0].clone()
}

fn inode(source: &Path, name: &str) -> u64 {
    fs::metadata(source.join(name)).expect("a file").ino()
}

/// Returns how many sources the box has after everything was sent once more.
fn sources_after_all_was_sent(town: &TestBox, app: &App) -> usize {
    town.up(&app.path(), &[]);
    fs::read_dir(town.data_dir().join("sources")).expect("sources").count()
}

#[test]
fn what_is_the_same_is_neither_sent_nor_stored_again() {
    let town = TestBox::start();
    let app = App::plain("shop");
    app.write("lib/a.py", "A = 1\n").write("lib/b.py", "B = 1\n").write("old/c.py", "C = 1\n");
    // What is the same is not even read then.
    std::thread::sleep(OF_AGE);
    let mut already = Vec::new();
    let first = brought(&town, &app, &mut already);

    app.write("lib/b.py", "B = 2\n").write("lib/new.py", "").remove("old/c.py");
    fs::remove_dir(app.path().join("old")).expect("it is empty");
    symlink("a.py", app.path().join("lib/link.py")).expect("a link");
    let second = brought(&town, &app, &mut already);
    assert_eq!(inode(&first, "lib/a.py"), inode(&second, "lib/a.py"));
    assert_ne!(inode(&first, "lib/b.py"), inode(&second, "lib/b.py"));
    assert_eq!(fs::read_to_string(first.join("lib/b.py")).expect("a file"), "B = 1\n");
    assert_eq!(fs::read_to_string(second.join("lib/link.py")).expect("a file"), "A = 1\n");
    assert!(!second.join("old").exists() && second.join("lib/new.py").exists());

    // All of it, sent by somebody who remembers nothing, is the same source.
    assert_eq!(sources_after_all_was_sent(&town, &app), 2);
    // What had the box before is not sent at all.
    app.write("lib/b.py", "B = 1\n").write("old/c.py", "C = 1\n").remove("lib/new.py").remove("lib/link.py");
    assert_eq!(town.trackbed(&["plan", &app.path().to_string_lossy()]).code, 0);
    assert_eq!(sources_after_all_was_sent(&town, &app), 2);
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn whoever_has_forgotten_the_earlier_source_gets_all_of_it() {
    let town = TestBox::start();
    let app = App::plain("shop");
    app.write("a", "1").write("b", "1");
    let mut already = Vec::new();
    let first = brought(&town, &app, &mut already);

    // The box does not know any more what was in it.
    fs::remove_dir_all(town.data_dir().join("listings")).expect("listings");
    app.write("b", "2");
    let second = brought(&town, &app, &mut already);
    assert_ne!(inode(&first, "a"), inode(&second, "a"));

    // Neither does it have the source itself.
    fs::remove_dir_all(&second).expect("a source");
    app.write("b", "3");
    let third = brought(&town, &app, &mut already);
    assert_eq!(fs::read_to_string(third.join("a")).expect("a file"), "1");

    // What the client remembers is torn.
    let indexes = town.cache().join("trackbed/indexes");
    for index in fs::read_dir(&indexes).expect("indexes") {
        let index = index.expect("an index").path();
        let bytes = fs::read(&index).expect("an index");
        fs::write(&index, &bytes[..bytes.len() / 2]).expect("our own file");
    }
    app.write("b", "4");
    let fourth = brought(&town, &app, &mut already);
    assert_eq!(fs::read_to_string(fourth.join("b")).expect("a file"), "4");

    // What it remembers of a file is wrong, and with it the name of the source that it tells the difference from.
    let index = fs::read_dir(&indexes).expect("indexes").next().expect("one").expect("an index").path();
    let mut bytes = fs::read(&index).expect("an index");
    let at = bytes.windows(1).position(|kind| kind == b"f").expect("a file") + 1;
    bytes[at + 10] ^= 1;
    fs::write(&index, bytes).expect("our own file");
    app.write("b", "5");
    let fifth = brought(&town, &app, &mut already);
    assert_eq!(fs::read_to_string(fifth.join("b")).expect("a file"), "5");

    // Somebody has written into what the box has: it is sent anew.
    std::thread::sleep(OF_AGE);
    fs::write(fifth.join("a"), "!").expect("a file of the box");
    app.write("b", "6");
    let sixth = brought(&town, &app, &mut already);
    assert_eq!(fs::read_to_string(sixth.join("a")).expect("a file"), "1");
    assert_eq!(sources_after_all_was_sent(&town, &app), already.len() - 1);
}

//! Volumes that are not only tidy databases: what a snapshot meets on them, and what a restore brings back.

#![allow(clippy::disallowed_methods, reason = "a test plays the one who writes past the box")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, FileSystem, TestBox, sqlite, wait_for};

const SOON: Duration = Duration::from_secs(20);
const MANY_FILES: usize = 100_000;

fn id(point: &Value) -> String {
    point["id"].as_str().unwrap_or_else(|| panic!("no id: {point:#}")).to_owned()
}

/// How far each database of the odd app is, as its callers know.
fn committed(town: &TestBox) -> BTreeMap<String, u64> {
    serde_json::from_str(&town.get("odd", "/").body).expect("JSON")
}

fn run(town: &TestBox, service: &str, script: &str) -> String {
    let ran = town.trackbed(&["run", "--service", service, "--", "sh", "-c", script]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}

/// Both tables of a database have the same rows, up to one that is not older than `acknowledged`.
fn assert_whole(folder: &Path, name: &str, acknowledged: u64) {
    let path = folder.join(name);
    assert_eq!(sqlite(&path, "PRAGMA integrity_check"), "ok", "{name}");
    let counts = sqlite(
        &path,
        "SELECT (SELECT max(id) FROM a), (SELECT max(id) FROM b), (SELECT count(*) FROM a) = (SELECT count(*) FROM b)",
    );
    let parts: Vec<&str> = counts.split('|').collect();
    let last: u64 = parts[0].parse().unwrap_or_default();
    assert!(parts[0] == parts[1] && parts[2] == "1", "{name}: half a transaction: {counts}");
    assert!(last >= acknowledged, "{name}: {last} of {acknowledged}");
}

/// Everything that is no database is as the app has laid it out.
fn assert_laid_out(folder: &Path) {
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read("named.db"), b"a list of names, nothing more\n".repeat(50));
    let secret: Vec<u8> =
        (0..65536_u32).map(|number| u8::try_from(number * 167 % 251).expect("small")).collect();
    assert_eq!(read("secret.db"), secret);
    assert_eq!(read("empty.db"), b"");
    assert!(read("cut.db").starts_with(b"SQLite format 3\0\0\x01\x02"));
    assert_eq!(read("cut.db").len(), 16 + 256 * 20);
    let sparse = fs::metadata(folder.join("sparse.img")).expect("it is there");
    assert_eq!(sparse.len(), 3 << 30);
    assert!(sparse.blocks() * 512 < 4 << 20, "{} blocks: its holes are filled", sparse.blocks());
    let file = fs::File::open(folder.join("sparse.img")).expect("readable");
    let mut text = [0; 7];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 2 << 30).expect("readable");
    assert_eq!(&text, b"far out");
    assert!(folder.join("empty folder").is_dir());
    let mode = |name: &str| fs::metadata(folder.join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("private"), mode("private/key")), (0o700, 0o400));
    let names: [&[u8]; 4] = [b"line\nbreak", b"not \xff\xfe text", "größe".as_bytes(), &[b'x'; 255]];
    for name in names {
        let path = folder.join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")), b"odd name");
    }
    for (link, target) in [("link", "named.db"), ("broken link", "nowhere"), ("outward", "/etc/hostname")] {
        assert_eq!(fs::read_link(folder.join(link)).expect(link), Path::new(target));
    }
    let inode = |name: &str| fs::metadata(folder.join(name)).expect(name).ino();
    assert_eq!(inode("twin"), inode("named.db"), "two names of one file");
    let kind = fs::symlink_metadata(folder.join("pipe")).expect("the fifo").file_type();
    assert!(kind.is_fifo(), "{kind:?}");
    // Whoever listens on it makes it anew.
    assert!(!folder.join("socket").exists());
}

fn take_and_restore_odd_things(town: &TestBox) {
    town.up_ok(&App::odd("odd").path());
    wait_for("all databases are written to", SOON, || town.get("odd", "/").status == 200);
    for round in 0..4 {
        let acknowledged = committed(town);
        let point = town.snapshot("odd");
        assert_eq!(point["consistency"], "instant", "{point:#}");
        let databases = point["databases"].to_string();
        for name in acknowledged.keys() {
            assert!(
                databases.contains(&format!("\"{name}\"")),
                "{name} is not known as a database: {databases}"
            );
        }
        for name in ["named.db", "secret.db", "empty.db"] {
            assert!(!databases.contains(name), "{name} is no database: {databases}");
        }
        let skipped = point["skipped"].to_string();
        assert!(skipped.contains("socket"), "{skipped}");
        let folder = town.restore_to("odd", &id(&point), &format!("restored-{round}"));
        assert_laid_out(&folder);
        for (name, acknowledged) in &acknowledged {
            assert_whole(&folder, name, *acknowledged);
        }
        let after = committed(town);
        wait_for("the app writes on", SOON, || {
            committed(town).iter().all(|(name, number)| *number > after[name])
        });
    }
    // One that cannot be read is kept as it is, and does not count against the point.
    let proven = town.drill("odd", &id(&town.points("odd")[0]));
    assert_eq!(proven["proof"]["proven"], true, "{proven:#}");
    // And in place, under the app.
    let restored = town.restore("odd", &id(&proven), &["--yes"]);
    assert_eq!(restored.code, 0, "{restored:?}\nserve: {}", town.serve_log());
    let kinds =
        fs::symlink_metadata(town.volume_folder("odd", "data").join("pipe")).expect("the app made it anew");
    assert!(kinds.file_type().is_fifo());
    wait_for("it writes again", SOON, || town.get("odd", "/").status == 200);
}

#[test]
fn what_is_odd_on_a_volume_comes_back_as_it_was() {
    take_and_restore_odd_things(&TestBox::start());
}

#[test]
fn what_is_odd_comes_back_from_shared_blocks_too() {
    if FileSystem::XfsReflink.is_here("odd volumes with reflinks") {
        take_and_restore_odd_things(&TestBox::start_on(FileSystem::XfsReflink, 600));
    }
}

#[test]
fn a_hundred_thousand_small_files_are_kept_and_cost_little_the_second_time() {
    let town = TestBox::start();
    town.up_ok(&App::plain_with_volume("crowded").path());
    let make = format!(
        "python3 -c \"\nimport os\nfor n in range({MANY_FILES}):\n if n % 1000 == 0:\n  d = f'/data/many/{{n // 1000}}'\n  \
         os.makedirs(d)\n open(f'{{d}}/{{n}}', 'w').write(f'file {{n}}')\n\""
    );
    run(&town, "crowded", &make);
    let first = town.snapshot("crowded");
    assert!(first["files"].as_u64() >= Some(MANY_FILES as u64), "{first:#}");
    run(&town, "crowded", "echo changed > /data/many/42/42042; rm /data/many/43/43043");
    let second = town.snapshot("crowded");
    let stored = |point: &Value| point["stored_bytes"].as_u64().expect("a number");
    assert!(stored(&second) < stored(&first), "{} then {}", stored(&first), stored(&second));
    let folder = town.restore_to("crowded", &id(&second), "restored");
    let mut count = 0;
    for sub in fs::read_dir(folder.join("many")).expect("its folders") {
        count += fs::read_dir(sub.expect("a folder").path()).expect("its files").count();
    }
    assert_eq!(count, MANY_FILES - 1);
    assert_eq!(fs::read_to_string(folder.join("many/42/42042")).expect("it is there"), "changed\n");
    assert_eq!(fs::read_to_string(folder.join("many/99/99999")).expect("it is there"), "file 99999");
}

#[test]
fn a_volume_that_was_changed_from_outside_is_taken_as_it_is() {
    let town = TestBox::start();
    town.up_good("shop");
    let first = town.snapshot("shop");
    let down = town.trackbed(&["down", "--service", "shop"]);
    assert_eq!(down.code, 0, "{down:?}");
    wait_for("no app", SOON, || town.living_instances().is_empty());
    let folder = town.volume_folder("shop", "data");
    sqlite(&folder.join("app.db"), "INSERT INTO notes (text) VALUES ('from outside')");
    // Same size and time as before: only its content tells.
    let letter = folder.join("letter");
    fs::write(&letter, "aaaa").expect("our own folder");
    let stamp = fs::metadata(&letter).expect("just written").modified().expect("a time");
    let second = town.snapshot("shop");
    assert_eq!(second["pause_ms"], 0, "nobody ran: {second:#}");
    fs::write(&letter, "bbbb").expect("our own folder");
    fs::File::options().write(true).open(&letter).and_then(|file| file.set_modified(stamp)).expect("a time");
    let third = town.snapshot("shop");
    let held = |point: &Value, name: &str| {
        let folder = town.restore_to("shop", &id(point), name);
        let notes = sqlite(&folder.join("app.db"), "SELECT group_concat(text) FROM notes");
        (notes, fs::read_to_string(folder.join("letter")).unwrap_or_default())
    };
    assert_eq!(held(&first, "first"), ("kept".to_owned(), String::new()));
    assert_eq!(held(&second, "second"), ("kept,from outside".to_owned(), "aaaa".to_owned()));
    assert_eq!(held(&third, "third"), ("kept,from outside".to_owned(), "bbbb".to_owned()));
    let restarted = town.trackbed(&["restart", "--service", "shop"]);
    assert_eq!(restarted.code, 0, "{restarted:?}");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept", "from outside"]"#);
}

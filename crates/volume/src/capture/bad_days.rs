//! Captures and collections on bad days: a full disk, a crash between any two steps, names that are swapped, a volume that
//! changes too much.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a fixture needs no crash safety, a skip is told"
)]

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount, umount};
use trackbed_core::ports::Volumes;
use trackbed_core::restore_point::Consistency;

use super::{Limits, Traffic};
use crate::inspect::Inspector;
use crate::rig::{Rig, Scripted, Writer, noise};

const MEGABYTE: usize = 1024 * 1024;
/// Names the step at which the process of [`a_process_that_crashes`] ends.
const CRASH_AT: &str = "TRACKBED_TEST_CRASH_AT";
const CRASH_IN: &str = "TRACKBED_TEST_CRASH_IN";
/// The point that it keeps.
const KEEP: &str = "TRACKBED_TEST_KEEP";

/// A small file system of its own over the snapshots; none, said aloud, without the right to mount.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, megabytes: usize) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        match mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                eprintln!("SKIPPED: a full disk needs the right to mount ({error})");
                None
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = umount(self.0);
    }
}

fn free_bytes(path: &Path) -> u64 {
    let disk = nix::sys::statvfs::statvfs(path).unwrap();
    disk.blocks_available() * disk.fragment_size()
}

#[tokio::test]
async fn a_full_disk_leaves_no_point_and_after_a_collection_no_stray() {
    let rig = Rig::new().await;
    let snapshots = rig.data_dir.join("snapshots");
    let Some(_disk) = SmallDisk::mount(&snapshots, 12) else { return };
    rig.write("file", noise(1, MEGABYTE));
    let (kept, _) = rig.capture().await;
    rig.collect(&[&kept]).await;
    let room = free_bytes(&snapshots);
    // Full at ever other places: in the pack, in the index, in the manifest.
    let ballast = snapshots.join("ballast");
    let mut refused = 0;
    for left in [0, 4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 3 << 20, 4_210_000, 4_240_000, 4_260_000] {
        rig.write("more", noise(left, 4 * MEGABYTE));
        fs::write(&ballast, noise(3, usize::try_from(room.saturating_sub(left)).unwrap())).unwrap();
        let data = rig.point();
        match rig.volumes.capture(&[rig.order(&data)], None).await {
            Ok(_) => drop(rig.read(&data)),
            Err(error) => {
                refused += 1;
                assert!(error.hint.is_some_and(|hint| hint.contains("disk space")), "{}", error.message);
                assert!(rig.volumes.store.manifest(&data).unwrap().is_none());
            }
        }
        rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap_or_else(|_| refused += 1);
        let freezer = Scripted::new(|| {});
        drop(rig.capture_with(&freezer).await);
        fs::remove_file(&ballast).unwrap();
        rig.write("more", "");
        // What was read ahead has its capture now, and so no claim.
        let (last, _) = rig.capture().await;
        rig.collect(&[&kept]).await;
        assert!(rig.volumes.store.manifest(&last).unwrap().is_none());
        assert_eq!(rig.read(&kept)[b"file".as_slice()], noise(1, MEGABYTE));
        let lost = room.saturating_sub(free_bytes(&snapshots));
        assert!(lost < 64 << 10, "{lost} bytes stay after {left}");
        assert!(rig.stored("capture", "").is_empty());
    }
    assert!(refused > 10, "the disk was full {refused} times");
}

/// Not a test: the process that crashes for the tests below.
#[tokio::test]
#[ignore = "is run by other tests"]
async fn a_process_that_crashes() {
    let Ok(data_dir) = std::env::var(CRASH_IN) else { return };
    let rig = Rig::at(Path::new(&data_dir)).await;
    let mut keep = rig.points();
    keep.retain(|data| std::env::var(KEEP).is_ok_and(|kept| kept == data.point.as_str()));
    let freezer = Scripted::new(|| {});
    rig.capture_with(&freezer).await.unwrap();
    rig.volumes.collect(&keep).await.unwrap();
}

#[tokio::test]
async fn a_crash_between_any_two_steps_leaves_every_kept_point_readable() {
    let steps = [
        "pack without index",
        "pack with index",
        "before manifests",
        "a manifest",
        "a manifest removed",
        "a pack half rewritten",
        "a pack rewritten",
        "an index removed",
    ];
    for step in steps {
        let rig = Rig::new().await;
        rig.write("same", noise(1, MEGABYTE));
        rig.write("first", noise(2, 3 * MEGABYTE));
        rig.capture().await;
        fs::remove_file(rig.path("first")).unwrap();
        rig.write("second", noise(3, MEGABYTE));
        let (kept, _) = rig.capture().await;
        let kept = &kept;
        let wanted = rig.read(kept);
        rig.write("third", noise(4, MEGABYTE));
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "capture::bad_days::a_process_that_crashes", "--ignored", "--nocapture"])
            .env(CRASH_AT, step)
            .env(CRASH_IN, &rig.data_dir)
            .env(KEEP, kept.point.as_str())
            .output()
            .unwrap()
            .status;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(6),
            "no crash at `{step}`: {status}"
        );
        for data in &rig.points() {
            rig.try_read(data).unwrap_or_else(|error| panic!("after a crash at `{step}`: {error}"));
        }
        assert!(rig.points().contains(kept), "{step}");
        rig.collect(&[kept]).await;
        assert_eq!(rig.read(kept), wanted, "{step}");
        assert!(rig.pack_bytes() < 3 * MEGABYTE as u64, "{step}: {}", rig.pack_bytes());
        assert!(rig.stored("capture", "").is_empty(), "{step}");
        let (again, _) = rig.capture().await;
        assert_eq!(rig.read(&again)[b"third".as_slice()], noise(4, MEGABYTE));
    }
}

#[tokio::test]
async fn a_name_that_is_swapped_for_a_link_never_leads_out_of_the_volume() {
    let rig = Rig::new().await;
    let outside = rig.data_dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "secret of somebody else").unwrap();
    for name in ["sub/file", "file"] {
        rig.write(name, "mine");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (folder, ended) = (rig.path(""), stop.clone());
    let swapper = std::thread::spawn(move || {
        while !ended.load(Ordering::SeqCst) {
            fs::rename(folder.join("sub"), folder.join("away")).unwrap();
            symlink(&outside, folder.join("sub")).unwrap();
            fs::rename(folder.join("file"), folder.join("kept")).unwrap();
            symlink(outside.join("file"), folder.join("file")).unwrap();
            fs::remove_file(folder.join("sub")).unwrap();
            fs::rename(folder.join("away"), folder.join("sub")).unwrap();
            fs::rename(folder.join("kept"), folder.join("file")).unwrap();
        }
    });
    let freezer = Scripted::new(|| {});
    let mut captured = Vec::new();
    for _ in 0..100 {
        rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
        // Nothing really stands still here: it may be refused, but must not read what is outside.
        captured.extend(rig.capture_with(&freezer).await.ok());
    }
    stop.store(true, Ordering::SeqCst);
    swapper.join().unwrap();
    for (data, _) in captured {
        assert!(rig.read(&data).into_values().all(|bytes| bytes == b"mine"));
    }
    let stamps = super::remembered(&rig.volumes.store, &rig.volume.id);
    assert!(stamps.iter().all(|file| file.size == 4));
}

#[tokio::test]
async fn files_that_grow_shrink_and_vanish_under_the_reader_are_right_once_they_stand_still() {
    const BUSY: &str = "
import os, sys
folder = sys.argv[1]
print('ready', flush=True)
n = 0
while True:
    n += 1
    text = (b'%08d' % n) * 40000
    for name in ('a', 'b'):
        with open(os.path.join(folder, name), 'r+b' if n > 1 else 'wb') as f:
            f.write(text)
            f.truncate(8 * (n % 40000))
    path = os.path.join(folder, 'now-and-then')
    if n % 2: open(path, 'w').write('x' * n)
    else: os.remove(path)
";
    let rig = Rig::new().await;
    let mut app = Writer::python(BUSY, &rig.path(""));
    assert_eq!(app.line(), "ready");
    for _ in 0..20 {
        let (data, capture) = rig.capture_with(&app.freezer()).await.unwrap();
        assert_eq!(capture.consistency, Consistency::Instant);
        for (path, bytes) in rig.read(&data) {
            let shown = String::from_utf8_lossy(&path).into_owned();
            if shown.len() == 1 {
                // Written in steps: at most two rounds are in it, and each number is whole or cut at the end.
                let mut numbers: Vec<_> = bytes.chunks_exact(8).collect();
                numbers.dedup();
                assert!(numbers.len() <= 2, "{shown}: {numbers:?}");
            }
        }
    }
}

const DATABASE: &str = "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=wal')
db.execute('create table t (id integer primary key, body blob)')
for n in range(300): db.execute('insert into t(body) values (?)', (os.urandom(3000),))
print('ready', flush=True)
for line in sys.stdin:
    db.execute('insert into t(body) values (?)', (os.urandom(3000),))
    print('done', flush=True)
";

#[tokio::test]
async fn a_volume_that_changes_too_much_is_captured_database_by_database() {
    let mut rig = Rig::new().await;
    let limits = Limits { frozen_bytes: 1000, ..Limits::default() };
    rig.volumes.traffic = Arc::new(Traffic { limits, ..Traffic::default() });
    rig.volumes.inspector = Inspector::by(look_into());
    let mut app = Writer::python(DATABASE, &rig.path("app.db"));
    assert_eq!(app.line(), "ready");
    rig.write("other", "as it was read");
    assert_eq!(app.ask("insert"), "done");
    let (data, capture) = rig.capture_with(&app.freezer()).await.unwrap();
    assert_eq!(capture.consistency, Consistency::PerDatabase);
    assert_eq!(capture.databases, ["app.db"]);
    assert!(capture.skipped.is_empty(), "{capture:?}");
    let files = rig.read(&data);
    let names: Vec<_> = files.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [b"app.db".as_slice(), b"other"], "the log is in the copy");
    let copy = rig.data_dir.join("copy.db");
    fs::write(&copy, &files[b"app.db".as_slice()]).unwrap();
    let counted = Command::new("python3")
        .args(["-c", "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone(), *sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchone())"])
        .arg(&copy)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "301 ok");
    // The app has lost no lock and goes on.
    assert_eq!(app.ask("insert"), "done");
    let (data, _) = rig.capture_with(&app.freezer()).await.unwrap();
    assert_ne!(rig.read(&data)[b"app.db".as_slice()], files[b"app.db".as_slice()]);
}

/// The program that looks into databases, which Cargo builds with the tests.
fn look_into() -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let program = folder.join("volume-look-into");
    assert!(
        program.exists(),
        "build `volume-look-into` first: cargo build --release -p trackbed-volume --bins"
    );
    program
}

#[tokio::test]
async fn clones_are_taken_where_the_file_system_can() {
    let rig = Rig::new().await;
    let image = rig.data_dir.join("image");
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let at = rig.data_dir.join("cloning");
    fs::create_dir(&at).unwrap();
    let made = Command::new("mkfs.xfs").arg("-q").arg(&image).status().is_ok_and(|status| status.success());
    let mounted = made
        && Command::new("mount").args(["-o", "loop"]).args([&image, &at]).status().is_ok_and(|s| s.success());
    if !mounted {
        eprintln!("SKIPPED: clones need mkfs.xfs and the right to mount");
        return;
    }
    let _mounted = SmallDisk(&at);
    let inner = Rig::at(&at).await;
    let scratch = super::scratch::Scratch::make(&inner.volumes.store).unwrap();
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(inner.path("")).unwrap());
    assert!(scratch.can_clone(device));
    drop(scratch);
    inner.write("db", [b"SQLite format 3\0".as_slice(), &noise(1, 4 * MEGABYTE)].concat());
    let path = inner.path("db");
    let freezer = Scripted::new(move || {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"changed", MEGABYTE as u64).unwrap();
    });
    let (data, capture) = inner.capture_with(&freezer).await.unwrap();
    assert_eq!(capture.databases, ["db"]);
    assert_eq!(&inner.read(&data)[b"db".as_slice()][MEGABYTE..][..7], b"changed");
    assert!(inner.stored("capture", "").is_empty());
}

//! Captures of real folders.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use trackbed_core::ports::{CaptureOrder, PointData, Volumes};
use trackbed_core::restore_point::Consistency;

use super::stamps::Stamps;
use crate::manifest::Kind;
use crate::rig::{CHUNK, Rig, Scripted, Writer, noise, volume};

const MEGABYTE: usize = 1024 * 1024;

#[tokio::test]
async fn a_second_snapshot_of_an_unchanged_volume_stores_only_its_manifest() {
    let rig = Rig::new().await;
    rig.write("big", noise(1, 3 * MEGABYTE + 17));
    rig.write("sub/small", "hello");
    let (first, capture) = rig.capture().await;
    assert_eq!((capture.files, capture.consistency), (2, Consistency::Instant));
    assert!(capture.stored_bytes > 3 * MEGABYTE as u64, "{capture:?}");
    let packs = rig.pack_bytes();
    let (second, capture) = rig.capture().await;
    assert_eq!(rig.pack_bytes(), packs);
    assert!(capture.stored_bytes <= rig.manifest(&second).encode().len() as u64, "{capture:?}");
    assert_eq!(rig.read(&second), rig.read(&first));
    assert_eq!(rig.read(&second)[b"big".as_slice()], noise(1, 3 * MEGABYTE + 17));
}

#[tokio::test]
async fn a_settled_file_is_not_read_again() {
    let rig = Rig::new().await;
    rig.write("file", noise(1, MEGABYTE));
    rig.age();
    rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
    let stamps = Stamps::load(&rig.volumes.store.stamps_path(&rig.volume.id));
    assert!(stamps.files[b"file".as_slice()].is_settled);
    let reads = || fs::metadata(rig.path("file")).unwrap().atime();
    let before = reads();
    let (data, capture) = rig.capture().await;
    assert_eq!(reads(), before);
    assert!(capture.stored_bytes > MEGABYTE as u64, "what was read ahead counts for the point: {capture:?}");
    assert_eq!(rig.read(&data)[b"file".as_slice()], noise(1, MEGABYTE));
}

#[tokio::test]
async fn a_changed_page_stores_its_chunk_and_the_nodes_above_it() {
    let rig = Rig::new().await;
    rig.write("db", noise(1, 40 * MEGABYTE));
    rig.capture().await;
    let before = rig.pack_bytes();
    let file = fs::File::options().write(true).open(rig.path("db")).unwrap();
    file.write_all_at(&noise(2, 4096), 20 * MEGABYTE as u64 + 8192).unwrap();
    let (data, _) = rig.capture().await;
    let grown = rig.pack_bytes() - before;
    // A chunk, the node of its 32 MiB, the node above.
    assert!(grown <= 3 * (CHUNK as u64 + 100), "{grown}");
    let mut wanted = noise(1, 40 * MEGABYTE);
    wanted[20 * MEGABYTE + 8192..][..4096].copy_from_slice(&noise(2, 4096));
    assert_eq!(rig.read(&data)[b"db".as_slice()], wanted);
}

#[tokio::test]
async fn what_changes_before_the_app_stands_still_is_in_the_point() {
    let rig = Rig::new().await;
    rig.write("db", noise(1, 2 * MEGABYTE));
    rig.write("gone", "x");
    rig.write("grows", noise(3, 100));
    rig.age();
    let folder = rig.path("");
    let freezer = Scripted::new(move || {
        let file = fs::File::options().write(true).open(folder.join("db")).unwrap();
        file.write_all_at(b"changed", MEGABYTE as u64).unwrap();
        let _ = fs::remove_file(folder.join("gone"));
        fs::write(folder.join("grows"), noise(4, 3 * MEGABYTE)).unwrap();
        fs::write(folder.join("new"), "new").unwrap();
    });
    let (data, capture) = rig.capture_with(&freezer).await.unwrap();
    assert_eq!(capture.consistency, Consistency::Instant);
    let files = rig.read(&data);
    let mut wanted = noise(1, 2 * MEGABYTE);
    wanted[MEGABYTE..][..7].copy_from_slice(b"changed");
    assert_eq!(files[b"db".as_slice()], wanted);
    assert_eq!(files[b"grows".as_slice()], noise(4, 3 * MEGABYTE));
    assert_eq!(files[b"new".as_slice()], b"new");
    assert!(!files.contains_key(b"gone".as_slice()));
    // Read while it stood still, so not synced.
    let stamps = Stamps::load(&rig.volumes.store.stamps_path(&rig.volume.id));
    assert!(!stamps.files[b"db".as_slice()].is_settled);
}

#[tokio::test]
async fn more_than_the_memory_of_the_spool_goes_to_a_file_and_comes_back() {
    let mut rig = Rig::new().await;
    let limits = super::Limits { spool_bytes: 100_000, ..super::Limits::default() };
    rig.volumes.traffic = std::sync::Arc::new(super::Traffic { limits, ..super::Traffic::default() });
    let folder = rig.path("");
    let freezer = Scripted::new(move || fs::write(folder.join("new"), noise(7, MEGABYTE)).unwrap());
    let (data, _) = rig.capture_with(&freezer).await.unwrap();
    assert_eq!(rig.read(&data)[b"new".as_slice()], noise(7, MEGABYTE));
    assert!(rig.stored("capture", "").is_empty());
}

#[tokio::test]
async fn an_app_that_is_let_go_too_early_is_captured_once_more_and_then_not_at_all() {
    let rig = Rig::new().await;
    rig.write("file", "x");
    let freezer = Scripted::new(|| {});
    *freezer.broken.lock().unwrap() = 1;
    rig.capture_with(&freezer).await.unwrap();
    *freezer.broken.lock().unwrap() = 2;
    let error = rig.capture_with(&freezer).await.unwrap_err();
    assert!(error.message.contains("too early"), "{error}");
    assert_eq!(rig.stored(&format!("points/{}", rig.volume.id), ".manifest").len(), 1);
}

const MAPPED: &str = "
import mmap, sys
f = open(sys.argv[1], 'r+b')
m = mmap.mmap(f.fileno(), 0)
for line in sys.stdin:
    at, value = line.split()
    m[int(at)] = int(value)
    print('done', flush=True)
";

#[tokio::test]
async fn a_write_through_a_mapping_is_seen_wherever_it_falls() {
    let rig = Rig::new().await;
    rig.write("mapped", noise(1, MEGABYTE));
    let mut wanted = noise(1, MEGABYTE);
    let mut app = Writer::python(MAPPED, &rig.path("mapped"));
    let mut write = |app: &mut Writer, value: u8| {
        wanted[5000] = value;
        assert_eq!(app.ask(&format!("5000 {value}")), "done");
        wanted.clone()
    };
    // The page is dirty and writable before anything is read.
    write(&mut app, 1);
    rig.age();
    rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
    let stamps = Stamps::load(&rig.volumes.store.stamps_path(&rig.volume.id));
    assert!(stamps.files[b"mapped".as_slice()].is_settled, "the test must see a settled file change");
    let wanted = write(&mut app, 2);
    let (data, _) = rig.capture_with(&app.freezer()).await.unwrap();
    assert!(rig.read(&data)[b"mapped".as_slice()] == wanted, "between reading ahead and the freeze");
    drop(stamps);
    // Read while it stood still, its page dirty still: this write moves no time.
    for value in 3..6 {
        let mut wanted = wanted.clone();
        wanted[5000] = value;
        assert_eq!(app.ask(&format!("5000 {value}")), "done");
        let (data, _) = rig.capture_with(&app.freezer()).await.unwrap();
        assert!(rig.read(&data)[b"mapped".as_slice()] == wanted, "after a freeze: {value}");
    }
}

#[tokio::test]
async fn every_kind_of_entry_is_kept_or_named() {
    let rig = Rig::new().await;
    rig.write("sub/file", "one");
    fs::hard_link(rig.path("sub/file"), rig.path("zlink")).unwrap();
    symlink("/etc/passwd", rig.path("out")).unwrap();
    nix::unistd::mkfifo(&rig.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o620)).unwrap();
    let _socket = UnixListener::bind(rig.path("app.sock")).unwrap();
    let odd = rig.path("").join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::write(&odd, "odd").unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o4751)).unwrap();
    let (data, capture) = rig.capture().await;
    assert_eq!(capture.skipped, ["app.sock: a socket"]);
    let manifest = rig.manifest(&data);
    let shown: Vec<(Vec<u8>, &Kind)> = manifest.entries.iter().map(|e| (e.path.clone(), &e.kind)).collect();
    let paths: Vec<_> = shown.iter().map(|(path, _)| path.as_slice()).collect();
    assert_eq!(paths, [b"".as_slice(), b"caf\xe9", b"out", b"pipe", b"sub", b"zlink", b"sub/file"]);
    assert_eq!(*shown[2].1, Kind::Symlink(b"/etc/passwd".to_vec()));
    assert_eq!(*shown[3].1, Kind::Fifo);
    assert_eq!(*shown[4].1, Kind::Folder);
    // The first name in the order of the walk is the file.
    assert!(matches!(shown[5].1, Kind::File(_)));
    assert_eq!(*shown[6].1, Kind::HardLink(b"zlink".to_vec()));
    let metadata = fs::metadata(&odd).unwrap();
    let entry = &manifest.entries[1];
    assert_eq!((entry.mode, entry.modified.0), (0o4751, metadata.mtime()));
    assert_eq!(i64::from(entry.modified.1), metadata.mtime_nsec());
    assert_eq!(rig.read(&data)[b"caf\xe9".as_slice()], b"odd");
}

#[tokio::test]
async fn a_sparse_file_costs_what_is_in_it() {
    let rig = Rig::new().await;
    let file = fs::File::create(rig.path("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"here", (1 << 39) + 5).unwrap();
    let (data, capture) = rig.capture().await;
    assert_eq!(capture.bytes, 1 << 40);
    assert!(capture.stored_bytes < 200_000, "{capture:?}");
    let Kind::File(content) = rig.manifest(&data).entries[1].kind.clone() else { panic!() };
    let reader = rig.volumes.store.reader().unwrap();
    let extents = reader.recipe(content.size, content.content.as_ref()).unwrap();
    assert_eq!(extents.len(), 3);
    assert_eq!((extents[0].offset, extents[0].chunk, extents[1].offset), (0, None, 1 << 39));
    assert_eq!(extents[2].offset + extents[2].length, 1 << 40);
}

#[tokio::test]
async fn equal_bytes_have_equal_names_whatever_their_holes() {
    let rig = Rig::new().await;
    let mut bytes = vec![0; 2 * MEGABYTE];
    bytes[MEGABYTE + 3] = 9;
    rig.write("full", &bytes);
    let file = fs::File::create(rig.path("holes")).unwrap();
    file.set_len(2 * MEGABYTE as u64).unwrap();
    file.write_all_at(&[9], MEGABYTE as u64 + 3).unwrap();
    let (data, _) = rig.capture().await;
    let contents: Vec<_> = rig.manifest(&data).entries.into_iter().skip(1).map(|entry| entry.kind).collect();
    assert_eq!(contents[0], contents[1]);
}

#[tokio::test]
async fn shared_memory_of_a_database_is_left_out_and_its_log_is_not() {
    let rig = Rig::new().await;
    for name in ["app.db", "app.db-wal", "app.db-shm", "app.db-journal", "text-shm", "text"] {
        let head: &[u8] = if name == "app.db" { b"SQLite format 3\0" } else { b"" };
        rig.write(name, [head, &noise(1, 9000)].concat());
    }
    for freezes in [false, true] {
        let data = if freezes {
            rig.capture_with(&Scripted::new(|| {})).await.unwrap()
        } else {
            rig.capture().await
        };
        assert_eq!(data.1.databases, ["app.db"]);
        let names: Vec<_> = rig.read(&data.0).into_keys().collect();
        assert_eq!(names, [b"app.db".as_slice(), b"app.db-journal", b"app.db-wal", b"text", b"text-shm"]);
    }
}

#[tokio::test]
async fn a_volume_that_somebody_holds_is_not_captured_as_if_nobody_did() {
    let rig = Rig::new().await;
    let lock = trackbed_stdx::files::try_lock(&rig.volumes.place(&rig.volume.id).lock).unwrap().unwrap();
    let data = rig.point();
    let error = rig.volumes.capture(&[rig.order(&data)], None).await.unwrap_err();
    assert!(error.message.contains("`data` is in use"), "{error}");
    assert!(rig.volumes.store.manifest(&data).unwrap().is_none());
    drop(lock);
    rig.volumes.capture(&[rig.order(&data)], None).await.unwrap();
}

#[tokio::test]
async fn a_point_that_exists_is_returned_as_it_is() {
    let rig = Rig::new().await;
    rig.write("file", "one");
    let (data, capture) = rig.capture().await;
    rig.write("file", "two");
    assert_eq!(rig.volumes.capture(&[rig.order(&data)], None).await.unwrap(), [capture]);
    assert_eq!(rig.read(&data)[b"file".as_slice()], b"one");
}

#[tokio::test]
async fn volumes_of_a_service_are_captured_together_also_after_a_crash_between_their_manifests() {
    let rig = Rig::new().await;
    let other = volume(7);
    let place = rig.volumes.ensure(&other).await.unwrap();
    rig.write("file", "one");
    fs::write(place.directory.join("file"), "one").unwrap();
    let (a, b) = (rig.point(), PointData { volume: other.id.clone(), point: rig.point().point });
    let orders = [rig.order(&a), CaptureOrder { volume: other, point: b.point.clone() }];
    rig.volumes.capture(&orders, None).await.unwrap();
    // As a crash between the two leaves it.
    fs::remove_file(rig.volumes.store.manifest_path(&b)).unwrap();
    rig.write("file", "two");
    fs::write(place.directory.join("file"), "two").unwrap();
    rig.volumes.capture(&orders, None).await.unwrap();
    for data in [&a, &b] {
        assert_eq!(rig.read(data)[b"file".as_slice()], b"two");
    }
    // One that was removed for good is captured alone; the other stays.
    let alone = CaptureOrder { volume: rig.volume.clone(), point: rig.point().point };
    rig.write("file", "three");
    rig.volumes.capture(&[alone, orders[1].clone()], None).await.unwrap();
    assert_eq!(rig.read(&b)[b"file".as_slice()], b"two");
}

#[tokio::test]
async fn a_hundred_thousand_small_files_are_captured_twice_alike() {
    let rig = Rig::new().await;
    for folder in 0..100 {
        fs::create_dir(rig.path(&folder.to_string())).unwrap();
        for file in 0..1000u32 {
            fs::write(rig.path(&format!("{folder}/{file}")), (folder * 1000 + file).to_le_bytes()).unwrap();
        }
    }
    let (first, capture) = rig.capture().await;
    assert_eq!(capture.files, 100_000);
    let (second, capture) = rig.capture().await;
    assert_eq!(capture.files, 100_000);
    assert_eq!(rig.manifest(&first).entries, rig.manifest(&second).entries);
    assert_eq!(rig.read(&second)[b"42/7".as_slice()], 42_007u32.to_le_bytes());
}

#[tokio::test]
async fn lost_or_odd_stamps_cost_time_and_nothing_else() {
    let rig = Rig::new().await;
    rig.write("file", noise(1, MEGABYTE));
    rig.age();
    rig.capture().await;
    let packs = rig.pack_bytes();
    let stamps = rig.volumes.store.stamps_path(&rig.volume.id);
    fs::write(&stamps, b"TBSTAMP1 and then nonsense").unwrap();
    let (data, _) = rig.capture().await;
    assert_eq!(rig.pack_bytes(), packs);
    assert_eq!(rig.read(&data)[b"file".as_slice()], noise(1, MEGABYTE));
}

//! From a point back to files: what is staged, swapped, proven and compared, on the good day and after each kind of
//! accident.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod world;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rusqlite::Connection;
use trackbed_core::ports::{Depth, Volumes};
use trackbed_core::restore_point::ProofVerdict;
use trackbed_stdx::files;
use trackbed_volume::LocalVolumes;
use trackbed_volume::inspect::{Inspector, QueryLimits, Value};
use world::{World, broken, deployment, proven, tree};

#[tokio::test]
async fn staged_data_is_what_was_captured_whatever_kind_it_is_of() {
    let world = World::new().await;
    let data = world.data();
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/b/text"), "hello").unwrap();
    fs::write(data.join("empty"), "").unwrap();
    fs::write(data.join("large"), world::noise(9_000_001)).unwrap();
    fs::hard_link(data.join("large"), data.join("a/again")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("out")).unwrap();
    std::os::unix::fs::symlink("gone", data.join("a/dangling")).unwrap();
    nix::unistd::mkfifo(&data.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o620)).unwrap();
    let odd: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"caf\xe9\n".to_vec());
    fs::write(data.join(odd), "odd name").unwrap();
    fs::write(data.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(data.join("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::write(data.join("a/read-only"), "x").unwrap();
    fs::set_permissions(data.join("a/read-only"), fs::Permissions::from_mode(0o400)).unwrap();
    let holes = fs::File::create(data.join("sparse")).unwrap();
    holes.set_len(300 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"in the middle", 150 << 20).unwrap();
    let old = std::time::Duration::from_secs(1_000_000_000);
    holes.set_modified(std::time::UNIX_EPOCH + old).unwrap();
    fs::set_permissions(data.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
    let point = world.capture().await;
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Content).await.unwrap();
    assert_eq!(tree(&staged.place.directory), tree(&data));
    let again = staged.place.directory.join("a/again").metadata().unwrap();
    assert_eq!(again.ino(), staged.place.directory.join("large").metadata().unwrap().ino());
    let sparse = staged.place.directory.join("sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} bytes on disk", sparse.blocks() * 512);
    assert_eq!(sparse.mtime(), 1_000_000_000);
    assert!(staged.files >= 7 && staged.bytes > 300 << 20);
    assert_eq!(staged.place.directory.metadata().unwrap().dev(), data.metadata().unwrap().dev());
}

#[tokio::test]
async fn what_root_restores_belongs_to_the_owner_of_the_volume() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::new().await;
    fs::create_dir(world.data().join("sub")).unwrap();
    fs::write(world.data().join("sub/file"), "x").unwrap();
    std::os::unix::fs::symlink("sub", world.data().join("link")).unwrap();
    Connection::open(world.data().join("app.db")).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    std::os::unix::fs::chown(world.data(), Some(54_321), Some(54_322)).unwrap();
    let point = world.capture().await;
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Content).await.unwrap();
    for path in ["", "sub", "sub/file", "link", "app.db"] {
        let metadata = staged.place.directory.join(path).symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322), "{path}");
    }
    proven(&world.volumes.prove(&point).await.unwrap());
}

#[tokio::test]
async fn data_is_swapped_in_and_back_as_often_as_one_likes() {
    let world = World::new().await;
    let (file, stage) = (world.data().join("file"), deployment(1));
    fs::write(&file, "then").unwrap();
    let point = world.capture().await;
    fs::write(&file, "now").unwrap();
    let nothing = world.volumes.swap_in(&world.volume, &stage).await.unwrap_err();
    assert!(nothing.message.contains("nothing is staged"), "{nothing}");
    world.volumes.swap_back(&world.volume, &stage).await.unwrap();
    let staged = world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
    let set_aside = staged.place.directory.join("file");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    for _ in 0..2 {
        for _ in 0..2 {
            world.volumes.swap_in(&world.volume, &stage).await.unwrap();
            assert_eq!((read(&file), read(&set_aside)), ("then".into(), "now".into()));
        }
        // Staging once more does not touch what was set aside.
        world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
        assert_eq!(read(&set_aside), "now");
        for _ in 0..2 {
            world.volumes.swap_back(&world.volume, &stage).await.unwrap();
            assert_eq!((read(&file), read(&set_aside)), ("now".into(), "then".into()));
        }
    }
    world.volumes.swap_in(&world.volume, &stage).await.unwrap();
    for _ in 0..2 {
        world.volumes.discard(&world.volume.id, &stage).await.unwrap();
        assert_eq!(read(&file), "then");
        assert!(!set_aside.exists());
    }
    world.volumes.swap_back(&world.volume, &stage).await.unwrap();
    assert_eq!(read(&file), "then");
    assert_eq!(fs::read_dir(world.home().join("stages")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_volume_or_stage_that_somebody_holds_stays_as_it_is() {
    let world = World::new().await;
    fs::write(world.data().join("file"), "then").unwrap();
    let (point, stage) = (world.capture().await, deployment(1));
    let staged = world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
    let place = world.volumes.place(&world.volume.id);
    let held = files::try_lock(&place.lock).unwrap().unwrap();
    fs::write(&place.lock, r#"{"instance":"ins_x","title":"assistant v3"}"#).unwrap();
    let error = world.volumes.swap_in(&world.volume, &stage).await.unwrap_err();
    assert!(error.message.contains("`data` is in use by assistant v3"), "{error}");
    assert!(world.volumes.swap_back(&world.volume, &stage).await.is_err());
    drop(held);
    let held = files::try_lock(&staged.place.lock).unwrap().unwrap();
    for error in [
        world.volumes.swap_in(&world.volume, &stage).await.unwrap_err(),
        world.volumes.discard(&world.volume.id, &stage).await.unwrap_err(),
    ] {
        assert!(error.message.contains("staged data") && error.message.contains("in use"), "{error}");
    }
    drop(held);
    // An instance that ran on the stage has left its name in the lock.
    fs::write(&staged.place.lock, r#"{"title":"assistant v4, rehearsed"}"#).unwrap();
    fs::write(staged.place.directory.join("file"), "rehearsed").unwrap();
    let error = world.volumes.swap_in(&world.volume, &stage).await.unwrap_err();
    assert!(error.message.contains("has run on the data"), "{error}");
    world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
    assert_eq!(fs::read_to_string(staged.place.directory.join("file")).unwrap(), "then");
    world.volumes.swap_in(&world.volume, &stage).await.unwrap();
}

#[tokio::test]
async fn a_stage_that_was_interrupted_is_begun_again() {
    let world = World::new().await;
    fs::write(world.data().join("file"), "then").unwrap();
    let (point, stage) = (world.capture().await, deployment(1));
    let home = world.home().join("stages").join(stage.as_str());
    for record in [None, Some("{\"torn\":")] {
        fs::create_dir_all(home.join("data/half")).unwrap();
        fs::write(home.join("data/file"), "th").unwrap();
        if let Some(record) = record {
            fs::write(home.join("staged.json"), record).unwrap();
        }
        let staged = world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
        assert_eq!(tree(&staged.place.directory), tree(&world.data()));
        // Done is done: a second call gives the same folder.
        let inode = staged.place.directory.metadata().unwrap().ino();
        world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await.unwrap();
        assert_eq!(staged.place.directory.metadata().unwrap().ino(), inode);
    }
    // One that is dropped in the middle gives up, and leaves nothing that counts.
    fs::write(world.data().join("large"), world::noise(64 << 20)).unwrap();
    let point = world.capture().await;
    let mut staging = Box::pin(world.volumes.stage(&world.volume, &point, &stage, Depth::Digests));
    let begun = async {
        while !home.join("data/large").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = begun => {}
        done = &mut staging => drop(done.unwrap()),
    }
    drop(staging);
    let again = loop {
        // The one before still ends, and holds the lock until it has.
        match world.volumes.stage(&world.volume, &point, &stage, Depth::Digests).await {
            Ok(staged) => break staged,
            Err(error) => assert!(error.message.contains("in use"), "{error}"),
        }
    };
    assert_eq!(tree(&again.place.directory), tree(&world.data()));
}

#[tokio::test]
async fn a_damaged_chunk_is_found_and_named_and_the_older_point_is_as_good_as_before() {
    let world = World::new().await;
    fs::write(world.data().join("old"), world::noise(300_000)).unwrap();
    world.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let older = world.capture().await;
    let packs_before = world.packs();
    fs::write(world.data().join("uploads.bin"), world::noise(200_000).repeat(2)).unwrap();
    let newer = world.capture().await;
    for pack in world.packs().difference(&packs_before) {
        let mut bytes = fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
    let reason = broken(&world.volumes.prove(&newer).await.unwrap());
    assert!(
        reason.contains("`uploads.bin`") && reason.contains("chunk") && reason.contains("pack"),
        "{reason}"
    );
    proven(&world.volumes.prove(&older).await.unwrap());
    let error = world.volumes.stage(&world.volume, &newer, &deployment(1), Depth::Digests).await.unwrap_err();
    assert!(error.message.contains("`uploads.bin`") && error.hint.unwrap().contains("older"));
    assert!(!world.home().join("stages").join(deployment(1).as_str()).join("data").exists());
    world.volumes.stage(&world.volume, &older, &deployment(1), Depth::Content).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_is_cut_short_or_gone_breaks_its_point_alone() {
    let world = World::new().await;
    fs::write(world.data().join("file"), "x").unwrap();
    let (one, two, three) = (world.capture().await, world.capture().await, world.capture().await);
    let path = world.manifest(&one);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
    fs::remove_file(world.manifest(&two)).unwrap();
    let reason = broken(&world.volumes.prove(&one).await.unwrap());
    assert!(reason.contains(path.to_str().unwrap()), "{reason}");
    let reason = broken(&world.volumes.prove(&two).await.unwrap());
    assert!(reason.contains("manifest is gone"), "{reason}");
    assert!(world.volumes.stage(&world.volume, &one, &deployment(1), Depth::Digests).await.is_err());
    assert!(world.volumes.stage(&world.volume, &two, &deployment(1), Depth::Digests).await.is_err());
    proven(&world.volumes.prove(&three).await.unwrap());
}

#[tokio::test]
async fn the_first_proof_writes_down_what_later_ones_and_restores_compare_with() {
    let world = World::new().await;
    world.sql("CREATE TABLE notes(a); INSERT INTO notes VALUES('one'),('two')");
    let point = world.capture().await;
    assert_eq!(proven(&world.volumes.prove(&point).await.unwrap()), (1, 2));
    let record = world.content(&point);
    let text = fs::read_to_string(&record).unwrap();
    assert_eq!(proven(&world.volumes.prove(&point).await.unwrap()), (1, 2));
    assert_eq!(fs::read_to_string(&record).unwrap(), text);
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Content).await.unwrap();
    assert_eq!(staged.rows, 2);
    // As if other rows had been there: this is how a restore that lost some would look.
    fs::write(&record, text.replace("\"rows\":2", "\"rows\":3")).unwrap();
    let reason = broken(&world.volumes.prove(&point).await.unwrap());
    assert!(
        reason.contains("`app.db`") && reason.contains("`notes`") && reason.contains("had 3"),
        "{reason}"
    );
    let error = world.volumes.stage(&world.volume, &point, &deployment(2), Depth::Content).await.unwrap_err();
    assert!(error.message.contains("`app.db`") && error.message.contains("`notes`"), "{error}");
    assert!(world.scratch_is_empty().await);
}

#[tokio::test]
async fn a_point_with_the_same_databases_takes_over_what_they_hold() {
    let world = World::new().await;
    world.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let one = world.capture().await;
    proven(&world.volumes.prove(&one).await.unwrap());
    fs::write(world.data().join("file"), "new").unwrap();
    let two = world.capture().await;
    let blind = LocalVolumes::new(world.folder.path()).with_inspector(Inspector::by("/none"));
    assert_eq!(proven(&blind.prove(&two).await.unwrap()), (1, 1));
    assert_eq!(fs::read(world.content(&one)).unwrap(), fs::read(world.content(&two)).unwrap());
    world.sql("INSERT INTO t VALUES(2)");
    let three = world.capture().await;
    let error = blind.prove(&three).await.unwrap_err();
    assert!(
        error.message.contains("cannot look into databases"),
        "a fault of the box is no verdict: {error}"
    );
    assert!(!world.content(&three).exists() && world.scratch_is_empty().await);
    assert_eq!(proven(&world.volumes.prove(&three).await.unwrap()), (1, 2));
}

#[tokio::test]
async fn a_database_that_was_damaged_when_it_was_captured_is_told() {
    let world = World::new().await;
    world.sql("CREATE TABLE t(a); CREATE INDEX i ON t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT i FROM n");
    let path = world.data().join("app.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 * 5..4096 * 5 + 512].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let point = world.capture().await;
    let reason = broken(&world.volumes.prove(&point).await.unwrap());
    assert!(reason.contains("`app.db`") && reason.contains("integrity"), "{reason}");
    assert!(!world.content(&point).exists());
    // Its bytes can be had all the same.
    world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Digests).await.unwrap();
}

#[tokio::test]
async fn databases_are_restored_with_what_their_logs_and_journals_hold() {
    let world = World::new().await;
    let live = world::folder();
    let wal = Connection::open(live.path().join("wal.db")).unwrap();
    wal.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);").unwrap();
    wal.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(2),(3);").unwrap();
    let hot = Connection::open(live.path().join("hot.db")).unwrap();
    hot.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES(1); PRAGMA cache_size=2; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO t SELECT randomblob(100) FROM n;").unwrap();
    world::copy(live.path(), &world.data());
    let point = world.capture().await;
    assert_eq!(proven(&world.volumes.prove(&point).await.unwrap()), (2, 4));
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Content).await.unwrap();
    assert_eq!(staged.rows, 4);
    let shm = |(path, _): &(Vec<u8>, _)| !path.ends_with(b"-shm");
    let was: Vec<_> = tree(&world.data()).into_iter().filter(shm).collect();
    assert_eq!(tree(&staged.place.directory), was, "the look changed what is staged");
    assert!(was.iter().any(|(path, _)| path == b"hot.db-journal"));
    let names: Vec<_> = fs::read_dir(staged.place.directory.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(names.len(), 3, "{names:?}");
    world.volumes.swap_in(&world.volume, &deployment(1)).await.unwrap();
    for (name, rows) in [("wal.db", 3), ("hot.db", 1)] {
        let count = |path: &Path| {
            Connection::open(path)
                .unwrap()
                .query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(count(&world.data().join(name)), rows, "{name}");
    }
}

#[tokio::test]
async fn files_that_only_look_like_databases_are_kept_and_hinder_nothing() {
    let world = World::new().await;
    fs::write(world.data().join("encrypted.db"), world::noise(50_000)).unwrap();
    fs::write(world.data().join("empty.db"), "").unwrap();
    let garbage = [b"SQLite format 3\0".to_vec(), world::noise(50_000)].concat();
    fs::write(world.data().join("garbage.db"), garbage).unwrap();
    let point = world.capture().await;
    for _ in 0..2 {
        assert_eq!(proven(&world.volumes.prove(&point).await.unwrap()), (1, 0));
    }
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Content).await.unwrap();
    assert_eq!(tree(&staged.place.directory), tree(&world.data()));
    let held = world.volumes.databases(&point).await.unwrap();
    assert!(held[0].path == "garbage.db" && held[0].unreadable.is_some(), "{held:?}");
}

#[tokio::test]
async fn a_comparison_tells_files_and_rows_and_overlooks_what_changes_no_content() {
    let world = World::new().await;
    fs::write(world.data().join("same"), world::noise(400_000)).unwrap();
    fs::write(world.data().join("changed"), "then").unwrap();
    fs::write(world.data().join("removed"), "then").unwrap();
    world.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO t VALUES(1),(2),(3); INSERT INTO u VALUES(1);");
    let point = world.capture().await;
    let compare = async || world.volumes.compare(&world.volume, &point, None).await.unwrap();
    assert_eq!(compare().await, trackbed_core::restore_point::Difference::default());
    world.sql("DELETE FROM t WHERE a=2; INSERT INTO t VALUES(2); VACUUM; PRAGMA journal_mode=DELETE;");
    world.sql("PRAGMA journal_mode=WAL;");
    assert_eq!(compare().await, trackbed_core::restore_point::Difference::default());
    fs::write(world.data().join("changed"), "now!").unwrap();
    fs::remove_file(world.data().join("removed")).unwrap();
    fs::write(world.data().join("added"), "now").unwrap();
    world.sql("INSERT INTO t VALUES(4); CREATE TABLE fresh(a); UPDATE u SET a=2;");
    let difference = compare().await;
    assert_eq!((difference.added, difference.changed, difference.missing), (1, 2, 1));
    assert_eq!(difference.paths, ["+ added", "~ app.db", "~ changed", "- removed"]);
    let told = |name: &str| {
        let found = difference.tables.iter().find(|table| table.table == name && table.database == "app.db");
        found.map(|table| (table.rows_now, table.rows_then))
    };
    assert_eq!(told("t"), Some((Some(4), Some(3))));
    assert_eq!(told("u"), Some((Some(1), Some(1))));
    assert_eq!(told("fresh"), Some((Some(0), None)));
    // Nothing of the comparison is left.
    assert_eq!(fs::read_dir(world.manifest(&point).parent().unwrap()).unwrap().count(), 1);
    assert!(world.scratch_is_empty().await);
    fs::set_permissions(world.data().join("same"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(world.data().join("app.db")).unwrap();
    let difference = compare().await;
    assert!(difference.paths.contains(&"~ same".into()) && difference.paths.contains(&"- app.db".into()));
    assert!(difference.tables.iter().any(|table| table.table == "t" && table.rows_now.is_none()));
}

#[tokio::test]
async fn a_new_volume_is_filled_from_a_point_once() {
    let world = World::new().await;
    world.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let point = world.capture().await;
    let new = world.another();
    let filled = world.volumes.clone_to(&point, &new).await.unwrap();
    assert_eq!(filled.place, world.volumes.place(&new.id));
    assert_eq!(filled.rows, 1);
    assert_eq!(tree(&filled.place.directory), tree(&world.data()));
    let error = world.volumes.clone_to(&point, &new).await.unwrap_err();
    assert!(error.message.contains("not empty"), "{error}");
}

#[tokio::test]
async fn databases_of_a_point_can_be_asked() {
    let world = World::new().await;
    fs::create_dir(world.data().join("sub")).unwrap();
    world.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1),(2)");
    fs::rename(world.data().join("app.db"), world.data().join("sub/app.db")).unwrap();
    let point = world.capture().await;
    let held = world.volumes.databases(&point).await.unwrap();
    assert_eq!(held[0].path, "sub/app.db");
    let limits = QueryLimits::default();
    let ask = async |name: &str, sql: &str| world.volumes.query_point(&point, name, sql, limits).await;
    assert_eq!(ask("/sub/app.db", "SELECT sum(a) FROM t").await.unwrap().rows, [[Value::Integer(3)]]);
    assert!(ask("sub/app.db", "DELETE FROM t").await.is_err());
    for none in ["app.db", "../app.db", "sub", "/etc/passwd"] {
        let error = ask(none, "SELECT 1").await.unwrap_err();
        assert!(error.message.contains("no database"), "{error}");
    }
    let live =
        world.volumes.query_live(&world.volume.id, "sub/app.db", "DELETE FROM t WHERE a=1", limits).await;
    assert_eq!(live.unwrap().changed, 1);
    for none in ["app.db", "../lock", "sub", "/etc/passwd"] {
        assert!(
            world.volumes.query_live(&world.volume.id, none, "SELECT 1", limits).await.is_err(),
            "{none}"
        );
    }
    assert!(world.scratch_is_empty().await);
}

#[tokio::test]
async fn a_disk_that_becomes_full_leaves_the_volume_as_it_was() {
    let Some(small) = world::SmallDisk::mount(48 << 20) else { return };
    let world = World::below(small.path().join("box")).await;
    for number in 0..3000 {
        fs::write(world.data().join(format!("small-{number}")), "x").unwrap();
    }
    let point = world.capture().await;
    let before = tree(&world.data());
    let reserved = LocalVolumes::new(world.folder.path());
    let error = reserved.stage(&world.volume, &point, &deployment(1), Depth::Digests).await.unwrap_err();
    assert!(error.message.contains("have to stay so"), "{error}");
    fs::write(small.path().join("filler"), vec![1; 26 << 20]).unwrap();
    let greedy = LocalVolumes::new(world.folder.path()).keep_free(0);
    let error = greedy.stage(&world.volume, &point, &deployment(1), Depth::Digests).await.unwrap_err();
    assert!(error.message.contains("cannot be written"), "{error:?}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("disk space")), "{error:?}");
    assert_eq!(tree(&world.data()), before);
    assert!(!world.home().join("stages").join(deployment(1).as_str()).join("data").exists());
    fs::remove_file(small.path().join("filler")).unwrap();
    greedy.stage(&world.volume, &point, &deployment(1), Depth::Digests).await.unwrap();
    greedy.swap_in(&world.volume, &deployment(1)).await.unwrap();
    assert_eq!(tree(&world.data()), before);
}

#[tokio::test]
async fn a_hundred_thousand_small_files_come_back() {
    // In memory where that can be: it is about their number, and a disk takes minutes for it.
    let disk = world::SmallDisk::mount(2 << 30);
    let world = match &disk {
        Some(disk) => World::below(disk.path().join("world")).await,
        None => World::new().await,
    };
    for folder in 0..100 {
        let folder = world.data().join(format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..1000 {
            fs::write(folder.join(format!("file-{file}")), file.to_string()).unwrap();
        }
    }
    let point = world.capture().await;
    let staged = world.volumes.stage(&world.volume, &point, &deployment(1), Depth::Digests).await.unwrap();
    assert_eq!(staged.files, 100_000);
    assert_eq!(fs::read_to_string(staged.place.directory.join("folder-99/file-998")).unwrap(), "998");
    let proof = world.volumes.prove(&point).await.unwrap();
    assert_eq!(proof.verdict, ProofVerdict::Proven { databases: 0, rows: 0 });
}

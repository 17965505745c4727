//! Collections of real stores.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::fs;

use crate::rig::{Rig, noise};
use trackbed_core::ports::Volumes;

const MEGABYTE: usize = 1024 * 1024;

#[tokio::test]
async fn what_is_kept_stays_readable_and_the_rest_is_freed() {
    let rig = Rig::new().await;
    let mut points = Vec::new();
    for round in 0..6 {
        rig.write("same", noise(1, MEGABYTE));
        rig.write("changing", noise(100 + round, MEGABYTE));
        points.push(rig.capture().await.0);
    }
    let kept = [&points[0], &points[3]];
    let before: Vec<_> = kept.iter().map(|data| rig.read(data)).collect();
    let packs = rig.pack_bytes();
    let collected = rig.collect(&kept).await;
    assert_eq!(collected.points, 4);
    assert!(collected.freed_bytes > 4 * MEGABYTE as u64, "{collected:?}");
    assert!(packs - rig.pack_bytes() >= 4 * MEGABYTE as u64);
    for (data, before) in kept.iter().zip(before) {
        assert_eq!(rig.read(data), before);
    }
    assert!(rig.volumes.store.manifest(&points[1]).unwrap().is_none());
    let again = rig.collect(&kept).await;
    assert_eq!((again.points, again.freed_bytes), (0, 0));
    rig.collect(&[]).await;
    assert_eq!(rig.pack_bytes(), 0);
    assert!(rig.path("same").exists(), "a collection never touches a volume");
}

#[tokio::test]
async fn a_pack_of_which_little_is_needed_is_written_anew() {
    let rig = Rig::new().await;
    rig.write("small", noise(1, MEGABYTE));
    rig.write("big", noise(2, 5 * MEGABYTE));
    rig.capture().await;
    fs::remove_file(rig.path("big")).unwrap();
    let (kept, _) = rig.capture().await;
    let old = rig.stored("packs", ".pack");
    rig.collect(&[&kept]).await;
    assert!(!rig.stored("packs", ".pack").contains(&old[0]));
    assert!(rig.pack_bytes() < 2 * MEGABYTE as u64);
    assert_eq!(rig.read(&kept)[b"small".as_slice()], noise(1, MEGABYTE));
}

#[tokio::test]
async fn many_small_packs_are_joined() {
    let rig = Rig::new().await;
    let mut kept = Vec::new();
    for round in 0..70 {
        rig.write(&format!("file-{round}"), noise(round, 3000));
        kept.push(rig.capture().await.0);
    }
    let kept: Vec<_> = kept.iter().collect();
    rig.collect(&kept).await;
    assert_eq!(rig.stored("packs", ".pack").len(), 1);
    assert_eq!(rig.read(kept[69]).len(), 70);
    assert_eq!(rig.read(kept[0]).len(), 1);
}

#[tokio::test]
async fn a_reader_that_was_opened_before_goes_on_reading() {
    let rig = Rig::new().await;
    rig.write("small", noise(1, MEGABYTE));
    rig.write("big", noise(2, 5 * MEGABYTE));
    rig.capture().await;
    fs::remove_file(rig.path("big")).unwrap();
    let (kept, _) = rig.capture().await;
    let reader = rig.volumes.store.reader().unwrap();
    rig.collect(&[&kept]).await;
    let entry = rig.manifest(&kept).entries[1].clone();
    let crate::manifest::Kind::File(file) = entry.kind else { panic!() };
    let mut chunk = Vec::new();
    for extent in reader.recipe(file.size, file.content.as_ref()).unwrap() {
        reader.chunk(&extent.chunk.unwrap(), &mut chunk).unwrap();
    }
}

#[tokio::test]
async fn what_was_read_ahead_is_kept_for_the_capture_to_come() {
    let rig = Rig::new().await;
    rig.write("file", noise(1, MEGABYTE));
    rig.age();
    rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
    let packs = rig.pack_bytes();
    rig.collect(&[]).await;
    assert_eq!(rig.pack_bytes(), packs);
    let (data, _) = rig.capture().await;
    assert_eq!(rig.pack_bytes(), packs);
    assert_eq!(rig.read(&data)[b"file".as_slice()], noise(1, MEGABYTE));
}

#[tokio::test]
async fn a_capture_after_a_collection_stores_again_what_is_gone() {
    let rig = Rig::new().await;
    rig.write("file", noise(1, MEGABYTE));
    rig.age();
    rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
    rig.capture().await;
    rig.collect(&[]).await;
    assert_eq!(rig.pack_bytes(), 0);
    // Its stamp says that the file is as it was; its chunks are gone all the same.
    let (data, _) = rig.capture().await;
    assert_eq!(rig.read(&data)[b"file".as_slice()], noise(1, MEGABYTE));
}

#[tokio::test]
async fn captures_and_collections_at_once_leave_every_point_whole() {
    let rig = Rig::new().await;
    let mut kept = Vec::new();
    for round in 0..12 {
        rig.write("a", noise(round / 2, MEGABYTE));
        rig.write("b", noise(1000 + round, MEGABYTE / 2));
        let keep: Vec<_> = kept.iter().rev().take(2).cloned().collect();
        let (captured, collected) = tokio::join!(rig.capture(), rig.volumes.collect(&keep));
        collected.unwrap();
        kept = keep.into_iter().rev().chain([captured.0]).collect();
        for data in &kept {
            rig.read(data);
        }
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_named_stored_again_and_then_whole_in_every_point() {
    let rig = Rig::new().await;
    rig.write("file", noise(1, MEGABYTE));
    rig.age();
    rig.volumes.read_ahead(std::slice::from_ref(&rig.volume)).await.unwrap();
    let (old, _) = rig.capture().await;
    let pack = rig.stored("packs", ".pack")[0].clone();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let error = rig.try_read(&old).unwrap_err();
    let id = pack.file_stem().unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&id) && error.contains("chunk"), "{error}");
    // Neither a collection nor the stamp of the unchanged file stands in the way.
    rig.collect(&[&old]).await;
    let (new, _) = rig.capture().await;
    assert_eq!(rig.read(&new)[b"file".as_slice()], noise(1, MEGABYTE));
    assert_eq!(rig.read(&old), rig.read(&new));
}

#[tokio::test]
async fn a_damaged_index_a_lost_pack_and_a_damaged_manifest_are_named_and_mended_by_the_next_capture() {
    for ending in [".index", ".pack"] {
        let rig = Rig::new().await;
        rig.write("file", noise(1, MEGABYTE));
        let (old, _) = rig.capture().await;
        let path = rig.stored("packs", ending)[0].clone();
        if ending == ".pack" {
            fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            bytes[50] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
        let error = rig.try_read(&old).unwrap_err();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.contains(&name), "{error}");
        rig.collect(&[&old]).await;
        let (new, _) = rig.capture().await;
        assert_eq!(rig.read(&old), rig.read(&new));
        rig.collect(&[&old]).await;
        assert_eq!(rig.stored("packs", ".index").len(), 1, "the broken one is gone");
        rig.read(&old);

        let manifest = rig.volumes.store.manifest_path(&old);
        let mut bytes = fs::read(&manifest).unwrap();
        bytes[200] ^= 1;
        fs::write(&manifest, bytes).unwrap();
        let error = rig.try_read(&old).unwrap_err();
        assert!(error.contains(old.point.as_str()) && error.contains("damaged"), "{error}");
        // It is not known what it needs, so nothing is removed while it is kept.
        let unreadable = rig.collect(&[&old]).await.unreadable.unwrap();
        assert!(unreadable.data == old && unreadable.reason.contains("damaged"), "{unreadable:?}");
        assert_eq!(rig.stored("packs", ".index").len(), 1);
        assert_eq!(rig.collect(&[]).await.unreadable, None);
        assert_eq!(rig.pack_bytes(), 0);
    }
}

//! Earlier copies, when the newest are damaged.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path as ObjectPath;
use trackbed_core::Timestamp;

use super::faults::{Fault, On};
use super::{NOW, TestBox, files_below};
use crate::recover::Copies;

type Spoil = fn(Vec<u8>) -> Vec<u8>;

const REMOVED: Spoil = |_| Vec::new();
const CUT_OFF: Spoil = |bytes| bytes[..bytes.len() / 2].to_vec();
const NONSENSE: Spoil = |bytes| vec![b'x'; bytes.len()];
const FLIPPED: Spoil = |mut bytes| {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
};

/// A box with three heads; what each of them brings, by number.
async fn with_three() -> (TestBox, Vec<BTreeMap<String, String>>) {
    let this = TestBox::new();
    this.claim().await.unwrap();
    let mut expected = vec![BTreeMap::new()];
    for number in 1..=3 {
        this.write("state.db", &format!("state {number}"));
        this.write(&format!("snapshots/points/vol_a/rp_{number}"), "a manifest");
        this.pass().await.unwrap();
        expected.push(this.expected());
    }
    (this, expected)
}

async fn brought(copies: &Copies) -> (BTreeMap<String, String>, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let (_, lost) = copies.fetch(place.path(), |_| true, |_| {}).await.unwrap();
    let lost_state = copies.fetch_state(&place.path().join("state")).await.unwrap();
    let lost = lost.into_iter().chain(lost_state).map(|lost| lost.object).collect();
    (files_below(place.path()), lost)
}

async fn newest(this: &TestBox, damaged: &BTreeSet<String>) -> (Copies, Vec<String>) {
    let (copies, passed) = this.history().await.unwrap().newest_whole(None, damaged).await.unwrap();
    (copies, passed.iter().map(|found| found.told()).collect())
}

#[tokio::test]
async fn every_head_can_be_had_again_by_its_number() {
    let (this, expected) = with_three().await;
    let history = this.history().await.unwrap();
    let all = history.list().await.unwrap();
    assert_eq!(all.iter().map(|found| found.number).collect::<Vec<_>>(), [Some(3), Some(2), Some(1)]);
    assert!(all.iter().all(|found| found.faults.is_empty()), "{all:?}");
    for number in 1..=3 {
        let (copies, _) = history.numbered(number).await.unwrap();
        assert_eq!(brought(&copies).await, (expected[number as usize].clone(), vec![]));
    }
    let error = history.numbered(4).await.unwrap_err();
    assert!(error.to_string().contains("no copies with the number 4"), "{error}");
    let error = history.newest_whole(Some(Timestamp(NOW.0 - 1)), &BTreeSet::new()).await.unwrap_err();
    assert!(error.to_string().contains("no copies at s3://bucket/box were made by then"), "{error}");
    assert_eq!(history.newest_whole(Some(NOW), &BTreeSet::new()).await.unwrap().0.sequence(), 3);
}

#[tokio::test]
async fn a_newest_head_that_cannot_be_read_is_had_from_its_copy() {
    for spoil in [REMOVED, CUT_OFF, NONSENSE, FLIPPED] {
        let (this, expected) = with_three().await;
        this.spoil(&ObjectPath::from("head.age"), spoil).await;
        let (copies, passed) = newest(&this, &BTreeSet::new()).await;
        assert_eq!(copies.sequence(), 3);
        assert!(passed.iter().all(|told| told.starts_with("head.age (head.age is damaged")), "{passed:?}");
        assert_eq!(brought(&copies).await, (expected[3].clone(), vec![]));
        // And the copy, too.
        this.spoil(&this.object("heads/000000000003-").await, spoil).await;
        let (copies, _) = newest(&this, &BTreeSet::new()).await;
        assert_eq!(brought(&copies).await, (expected[2].clone(), vec![]));
    }
}

#[tokio::test]
async fn a_head_whose_state_catalogue_or_object_is_gone_or_too_short_is_passed_over() {
    for part in ["states/000000000003-", "catalogues/000000000003-", "objects/snapshots/points/vol_a/rp_3"] {
        for (spoil, says) in [(REMOVED, "is missing"), (|_| b"age".to_vec(), "age ")] {
            let (this, expected) = with_three().await;
            this.spoil(&this.object(part).await, spoil).await;
            let (copies, passed) = newest(&this, &BTreeSet::new()).await;
            assert_eq!(copies.sequence(), 2, "{part}");
            assert!(passed.len() == 1 && passed[0].starts_with("number 3 ("), "{passed:?}");
            assert!(passed[0].contains(part) && passed[0].contains(says), "{passed:?}");
            assert_eq!(brought(&copies).await, (expected[2].clone(), vec![]));
        }
    }
}

#[tokio::test]
async fn what_turns_out_to_be_damaged_when_it_is_fetched_is_left_out_or_passed_over() {
    for part in ["states/000000000003-", "objects/snapshots/points/vol_a/rp_3"] {
        let (this, mut expected) = with_three().await;
        let name = this.object(part).await;
        this.spoil(&name, FLIPPED).await;
        let (copies, _) = newest(&this, &BTreeSet::new()).await;
        assert_eq!(copies.sequence(), 3, "its size is right");
        let (there, lost) = brought(&copies).await;
        assert_eq!(lost, [name.to_string()]);
        expected[3].retain(|path, _| !path.ends_with("rp_3") || part.starts_with("states"));
        expected[3].retain(|path, _| !path.starts_with("state/") || part.starts_with("objects"));
        assert_eq!(there, expected[3], "all the rest is there");
        let (copies, passed) = newest(&this, &lost.into_iter().collect()).await;
        assert_eq!((copies.sequence(), passed.len()), (2, 1));
        assert_eq!(brought(&copies).await, (expected[2].clone(), vec![]));
    }
}

#[tokio::test]
async fn when_nothing_is_whole_it_is_said_and_what_is_left_can_be_had() {
    let (this, mut expected) = with_three().await;
    this.spoil(&this.object("objects/sources/aa").await, REMOVED).await;
    let history = this.history().await.unwrap();
    let error = history.newest_whole(None, &BTreeSet::new()).await.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(error.to_string().contains("number 3 (objects/sources/aa.age is missing)"), "{error}");
    assert!(hint.contains("--at NUMBER"), "{hint}");
    let (copies, found) = history.numbered(3).await.unwrap();
    assert_eq!(found.faults, ["objects/sources/aa.age is missing"]);
    expected[3].remove("sources/aa/main.py");
    assert_eq!(brought(&copies).await, (expected[3].clone(), vec!["objects/sources/aa.age".into()]));
}

#[tokio::test]
async fn copies_whose_owner_is_not_named_any_more_can_be_had_all_the_same() {
    for spoil in [REMOVED, CUT_OFF] {
        let (this, expected) = with_three().await;
        this.spoil(&ObjectPath::from("owner.json"), spoil).await;
        let (copies, passed) = newest(&this, &BTreeSet::new()).await;
        assert_eq!((copies.sequence(), passed), (3, vec![]));
        assert_eq!(brought(&copies).await.0, expected[3]);
        // A key that fits nothing is not taken for damage alone: nothing is whole then.
        let other = TestBox { keys: this.identity_of_another().await, ..this };
        let error = other.history().await.unwrap().newest_whole(None, &BTreeSet::new()).await.unwrap_err();
        assert!(error.to_string().contains("No matching keys found"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_no_reason_to_take_earlier_copies() {
    let (this, _) = with_three().await;
    this.store.order(On::Get, "head.age", Fault::Broken, 1_000_000);
    let error = this.history().await.unwrap().newest_whole(None, &BTreeSet::new()).await.unwrap_err();
    assert!(error.to_string().contains("fetch head.age"), "{error}");
}

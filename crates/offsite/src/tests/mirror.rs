//! Passes of the mirror.

use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};

use super::TestBox;
use super::faults::{Fault, On};
use crate::limits::Limits;

#[tokio::test]
async fn everything_is_there_after_a_pass_and_a_second_one_sends_nothing() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    let first = this.pass().await.unwrap();
    assert_eq!((first.sent_objects, first.objects, first.sequence), (7, 7, 1));
    assert!(first.is_new && first.damaged.is_empty());
    assert_eq!(this.recovered().await, this.expected());
    let second = this.pass().await.unwrap();
    assert_eq!((second.sent_objects, second.is_new, second.sequence), (0, false, 1));
    this.write("snapshots/points/vol_a/rp_b", "another manifest");
    let third = this.pass().await.unwrap();
    assert_eq!((third.sent_objects, third.is_new, third.sequence), (1, true, 2));
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn a_change_of_the_state_alone_makes_a_new_head() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    this.write("state.db", "another state");
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.sent_objects, pass.is_new), (0, true));
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn nothing_is_written_before_what_it_refers_to_and_the_heads_come_last() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let written = this.store.written.lock().unwrap().clone();
    let place = |name: &str| written.iter().position(|at| at.contains(name)).unwrap();
    let order = [
        "one.pack",
        "one.index",
        "rp_a.content.json",
        "rp_a.age",
        "states/",
        "catalogues/",
        "head.age",
        "heads/",
    ]
    .map(place);
    assert!(order.is_sorted(), "{written:?}");
    assert_eq!(order[7], written.len() - 1);
}

#[tokio::test]
async fn no_object_can_be_read_without_the_key() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let written = this.store.written.lock().unwrap().clone();
    for name in written.iter().filter(|name| name.ends_with(".age")) {
        let bytes =
            this.store.inner.get(&ObjectPath::from(name.as_str())).await.unwrap().bytes().await.unwrap();
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{name}");
        assert!(!bytes.windows(6).any(|window| window == b"chunk " || window == b"the st"), "{name}");
    }
}

#[tokio::test]
async fn a_store_that_fails_now_and_then_gets_everything_all_the_same() {
    for (on, name, fault) in [
        (On::Put, "objects", Fault::Broken),
        (On::Put, "objects", Fault::AnswerLost),
        (On::Put, "head", Fault::Broken),
        (On::Put, "head", Fault::AnswerLost),
        (On::Part, "pack", Fault::Broken),
        (On::Part, "pack", Fault::AnswerLost),
        (On::Get, "rp_a", Fault::Broken),
        (On::Get, "rp_a", Fault::CutOff),
        (On::Get, "owner", Fault::Broken),
        (On::List, "", Fault::Broken),
    ] {
        let this = TestBox::new();
        this.claim().await.unwrap();
        this.store.order(on, name, fault.clone(), 2);
        this.pass().await.unwrap_or_else(|error| panic!("{on:?} {name} {fault:?}: {error}"));
        assert!(this.store.hits() > 0, "{on:?} {name} {fault:?}");
        assert_eq!(this.recovered().await, this.expected(), "{on:?} {name} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_gives_no_answer_ends_the_pass_in_time_and_the_next_one_goes_on() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.store.order(On::Put, "one.index", Fault::Hangs, 1000);
    let begun = tokio::time::Instant::now();
    let error = this.pass().await.unwrap_err().to_string();
    assert!(error.contains("gave no answer within 5 s"), "{error}");
    assert!(begun.elapsed() <= this.limits.retry_total + Duration::from_secs(20));
    let healed = TestBox { store: this.store.healed(), ..this };
    let pass = healed.pass().await.unwrap();
    assert_eq!(pass.sent_objects, 3, "what had been sent is not sent again");
    assert_eq!(healed.recovered().await, healed.expected());
}

#[tokio::test]
async fn a_list_that_loses_entries_makes_nothing_be_sent_again() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    this.store.order(On::List, "objects", Fault::ListLoses, 1);
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.sent_objects, pass.damaged.len()), (0, 0));
    assert_eq!(this.store.hits(), 1);
}

#[tokio::test]
async fn an_object_that_was_removed_behind_our_back_is_reported_and_sent_again() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    this.store.inner.delete(&ObjectPath::from("objects/snapshots/packs/one.pack.age")).await.unwrap();
    let pass = this.pass().await.unwrap();
    assert_eq!(pass.damaged, ["objects/snapshots/packs/one.pack.age: is missing"]);
    assert_eq!(pass.sent_objects, 1);
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn a_damaged_object_is_found_by_the_sample_and_mended_by_the_next_pass() {
    let mut this = TestBox::new();
    this.limits.sample_objects = 100;
    this.limits.sample_rest = Duration::ZERO;
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let place = ObjectPath::from("objects/snapshots/packs/one.pack.age");
    let mut bytes = this.store.inner.get(&place).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    this.store.inner.put(&place, PutPayload::from(bytes)).await.unwrap();
    let pass = this.pass().await.unwrap();
    assert_eq!(pass.damaged.len(), 1, "{:?}", pass.damaged);
    assert!(pass.damaged[0].contains("one.pack"), "{:?}", pass.damaged);
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.sent_objects, pass.damaged.len()), (1, 0));
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn what_the_box_removes_stays_at_the_target_until_it_has_been_gone_for_long_enough() {
    let mut this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let place = ObjectPath::from("objects/snapshots/packs/one.pack.age");
    for name in ["points/vol_a/rp_a", "points/vol_a/rp_a.content.json", "packs/one.pack", "packs/one.index"] {
        std::fs::remove_file(this.path().join("snapshots").join(name)).unwrap();
    }
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.objects, pass.removed, pass.is_new), (3, 0, true));
    assert!(this.store.inner.head(&place).await.is_ok());
    assert_eq!(this.recovered().await, this.expected());
    this.limits = Limits { kept: Duration::ZERO, ..this.limits };
    let pass = this.pass().await.unwrap();
    assert!(pass.removed >= 4, "{pass:?}");
    assert!(this.store.inner.head(&place).await.is_err());
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn a_lost_ledger_is_learned_from_the_target() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    std::fs::remove_file(crate::mirror::ledger_path(this.path())).unwrap();
    this.write("snapshots/points/vol_a/rp_b", "another manifest");
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.sent_objects, pass.sequence), (1, 2));
    assert_eq!(this.recovered().await, this.expected());
}

#[tokio::test]
async fn a_file_that_was_written_again_is_sent_beside_the_old_one() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let old = this.open().await.unwrap();
    this.write("snapshots/points/vol_a/rp_a.content.json", "{\"tables\":[]}");
    let pass = this.pass().await.unwrap();
    assert_eq!((pass.sent_objects, pass.objects), (1, 7));
    assert_eq!(this.recovered().await, this.expected());
    let place = tempfile::tempdir().unwrap();
    old.fetch(place.path(), |_| true, |_| {}).await.expect("an older head finds all that it names");
}

#[tokio::test]
async fn a_head_that_was_damaged_or_removed_is_written_anew() {
    for spoil in [(|_| Vec::new()) as fn(Vec<u8>) -> Vec<u8>, |bytes| bytes[..bytes.len() / 2].to_vec()] {
        for ledger_is_lost in [false, true] {
            let this = TestBox::new();
            this.claim().await.unwrap();
            this.pass().await.unwrap();
            this.spoil(&ObjectPath::from("head.age"), spoil).await;
            if ledger_is_lost {
                std::fs::remove_file(this.path().join("offsite/ledger")).unwrap();
            }
            let pass = this.pass().await.unwrap();
            assert_eq!((pass.is_new, pass.sequence), (true, 2), "{pass:?}");
            assert_eq!(this.recovered().await, this.expected());
            let pass = this.pass().await.unwrap();
            assert!(!pass.is_new && pass.damaged.is_empty(), "{pass:?}");
        }
    }
}

#[tokio::test]
async fn a_state_or_catalogue_that_was_removed_is_reported_and_written_anew() {
    for folder in ["states", "catalogues"] {
        let this = TestBox::new();
        this.claim().await.unwrap();
        this.pass().await.unwrap();
        let name = this.object(&format!("{folder}/000000000001-")).await;
        this.spoil(&name, |_| Vec::new()).await;
        let pass = this.pass().await.unwrap();
        assert_eq!(pass.damaged, [format!("{name}: is missing")]);
        let pass = this.pass().await.unwrap();
        assert!(pass.is_new && pass.damaged.is_empty(), "{pass:?}");
        assert_eq!(this.recovered().await, this.expected());
    }
}

//! Two boxes and one prefix.

use trackbed_core::ports::{Conditional, Ownership};

use super::TestBox;
use super::faults::{Fault, FaultyStore, On};

fn refusal(error: &crate::OffsiteError) -> String {
    format!("{error} ({})", error.hint().unwrap_or_default())
}

#[tokio::test]
async fn a_prefix_belongs_to_the_box_that_came_first() {
    let first = TestBox::new();
    first.claim().await.unwrap();
    first.claim().await.expect("its own is no other's");
    let second = TestBox { store: first.store.clone(), keys: first.keys.clone(), ..TestBox::new() };
    let error = second.claim().await.unwrap_err();
    assert!(error.to_string().contains("belongs to another box"), "{error}");
    assert!(second.pass().await.is_err());
    first.pass().await.unwrap();
}

#[tokio::test]
async fn of_two_boxes_at_the_same_moment_one_gets_the_prefix() {
    let first = TestBox::new();
    let second = TestBox { store: first.store.clone(), keys: first.keys.clone(), ..TestBox::new() };
    let (one, two) = futures_util::future::join(first.claim(), second.claim()).await;
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}

#[tokio::test]
async fn after_a_take_over_the_old_box_refuses_to_go_on() {
    let old = TestBox::new();
    old.claim().await.unwrap();
    old.pass().await.unwrap();
    let new = TestBox { store: old.store.clone(), keys: old.keys.clone(), ..TestBox::new() };
    new.claim_as(Ownership::TakeOver, Conditional::Required).await.unwrap();
    new.write("snapshots/points/vol_a/rp_new", "of the new box");
    let pass = new.pass().await.unwrap();
    assert_eq!((pass.sequence, pass.sent_objects), (2, 1), "it goes on from what is there");
    let error = old.pass().await.unwrap_err();
    assert!(refusal(&error).contains("belongs to another box"), "{error}");
    assert_eq!(new.recovered().await, new.expected());
}

#[tokio::test]
async fn a_copy_of_a_boxs_disk_that_writes_in_its_name_is_noticed() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let twin = TestBox { store: this.store.clone(), keys: this.keys.clone(), ..TestBox::new() };
    for name in ["box.json", "ledger"] {
        std::fs::create_dir_all(twin.path().join("offsite")).unwrap();
        std::fs::copy(this.path().join("offsite").join(name), twin.path().join("offsite").join(name))
            .unwrap();
    }
    twin.write("state.db", "another life");
    twin.pass().await.unwrap();
    let error = this.pass().await.unwrap_err();
    assert!(error.to_string().contains("in this box's name"), "{error}");
}

#[tokio::test]
async fn another_key_is_refused_before_anything_is_written() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let written = this.store.written.lock().unwrap().len();
    let keys = this.identity_of_another().await;
    let other = TestBox { keys, ..this };
    for error in [other.claim().await.unwrap_err(), other.pass().await.unwrap_err()] {
        assert!(error.to_string().starts_with("the key does not fit"), "{error}");
    }
    assert!(other.open().await.is_err_and(|error| error.to_string().starts_with("the key does not fit")));
    assert_eq!(other.store.written.lock().unwrap().len(), written);
}

#[tokio::test]
async fn a_store_without_conditions_is_refused_unless_the_owner_vouches_for_it() {
    let silent = FaultyStore { ignores_conditions: true, ..FaultyStore::default() };
    let honest = FaultyStore { knows_no_conditions: true, ..FaultyStore::default() };
    for store in [silent, honest] {
        let this = TestBox { store, ..TestBox::new() };
        let error = this.claim().await.unwrap_err();
        assert!(refusal(&error).contains("--assume-exclusive"), "{error}");
        this.claim_as(Ownership::Respect, Conditional::Waived).await.unwrap();
        this.pass().await.unwrap();
        this.write("state.db", "later");
        this.pass().await.unwrap();
        assert_eq!(this.recovered().await, this.expected());
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_a_claim() {
    let this = TestBox::new();
    this.store.order(On::Put, "owner", Fault::AnswerLost, 1);
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    assert_eq!(this.store.hits(), 1);
}

#[tokio::test]
async fn who_owns_a_prefix_can_be_written_anew_when_nobody_can_read_it() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    this.spoil(&"owner.json".into(), |bytes| bytes[..10].to_vec()).await;
    let error = this.pass().await.unwrap_err();
    assert!(refusal(&error).contains("--take-over"), "{error}");
    assert!(this.claim().await.is_err(), "somebody else may own it");
    this.claim_as(Ownership::TakeOver, Conditional::Required).await.unwrap();
    this.pass().await.unwrap();
    assert_eq!(this.recovered().await, this.expected());
}

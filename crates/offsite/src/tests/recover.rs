//! From the target back.

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};

use super::faults::{Fault, On};
use super::{TestBox, files_below};

#[tokio::test]
async fn an_interrupted_recovery_goes_on_and_keeps_what_is_there() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let copies = this.open().await.unwrap();
    this.store.order(On::Get, "rp_a.content", Fault::Flipped, 100);
    let (progress, lost) = copies.fetch(place.path(), |_| true, |_| {}).await.unwrap();
    assert_eq!((progress.objects, lost.len()), (6, 1));
    assert!(lost[0].reason.contains("rp_a.content"), "{lost:?}");
    assert!(!files_below(place.path()).contains_key("snapshots/points/vol_a/rp_a.content.json"));
    // What an interrupted write leaves is not taken for the file.
    std::fs::write(place.path().join("snapshots/packs/one.index"), "what li").unwrap();
    let healed = TestBox { store: this.store.healed(), ..this };
    let copies = healed.open().await.unwrap();
    let (progress, _) = copies.fetch(place.path(), |_| true, |_| {}).await.unwrap();
    assert_eq!((progress.objects, progress.kept), (7, 5));
    copies.fetch_state(&place.path().join("state")).await.unwrap();
    assert_eq!(files_below(place.path()), healed.expected());
}

#[tokio::test]
async fn a_damaged_object_is_never_put_in_its_place() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    // A whole object of the same box in the place of another one: it decrypts, and is not what the catalogue names.
    let (from, to) = (
        ObjectPath::from("objects/layers/bb.ok.age"),
        ObjectPath::from("objects/snapshots/packs/one.index.age"),
    );
    let other = this.store.inner.get(&from).await.unwrap().bytes().await.unwrap();
    this.store.inner.put(&to, PutPayload::from(other)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let (_, lost) = this.open().await.unwrap().fetch(place.path(), |_| true, |_| {}).await.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].reason.contains("one.index.age is damaged"), "{lost:?}");
    let there = files_below(place.path());
    assert!(!there.keys().any(|path| path.contains("one.index")), "{there:?}");
    // Files that were just being written beside it end up in their places, or go.
    let is_tidy = async {
        while files_below(place.path()).keys().any(|path| path.contains(".tmp")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), is_tidy)
        .await
        .expect("nothing half-written stays");
}

#[tokio::test]
async fn an_empty_or_unfinished_target_has_nothing_to_recover() {
    let this = TestBox::new();
    let error = this.open().await.unwrap_err();
    assert!(error.to_string().contains("has no owner.json"), "{error}");
    this.claim().await.unwrap();
    let error = this.open().await.unwrap_err();
    assert!(error.to_string().contains("the first copy was not finished"), "{error}");
}

#[tokio::test]
async fn only_what_is_asked_for_is_fetched() {
    let this = TestBox::new();
    this.claim().await.unwrap();
    this.pass().await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let copies = this.open().await.unwrap();
    let (progress, _) =
        copies.fetch(place.path(), |path| path.starts_with("snapshots/"), |_| {}).await.unwrap();
    assert_eq!(progress.objects, 4);
    assert!(files_below(place.path()).keys().all(|path| path.starts_with("snapshots/")));
}

//! What root's instances get, seen from inside and outside.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

#[path = "../beside/mod.rs"]
mod beside;
mod commands;
#[path = "../data/mod.rs"]
mod data;
mod freeze;
mod inside;
mod jail;
mod lives;
mod volumes;
#[path = "../world/mod.rs"]
mod world;

#[tokio::test]
async fn the_data_of_apps_at_full() {
    data::check(trackbed_core::isolation::IsolationLevel::Full).await;
}

#[tokio::test]
async fn several_processes_at_full() {
    beside::check(trackbed_core::isolation::IsolationLevel::Full).await;
}

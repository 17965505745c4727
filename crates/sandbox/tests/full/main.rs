//! What root's instances get, seen from inside and outside.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod commands;
mod freeze;
mod inside;
mod lives;
mod volumes;
#[path = "../world/mod.rs"]
mod world;

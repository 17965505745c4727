//! A real box for a test: the real binary on a data directory of its own, on loopback, ended and checked for leftovers.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

mod data;
mod edge;
mod expect;
mod fixture;
mod forge;
mod git;
mod http;
mod leftovers;
mod load;
mod random;
mod small_disk;
mod testbox;
mod tools;
mod traffic;
pub mod websocket;
mod writers;

pub use data::{flip_byte, sqlite, typed_time};
pub use edge::{LoneEdge, edge_stats};
pub use fixture::{App, assistant, assistant_rs, knowledge};
pub use forge::{Forge, Hook, SshServer, push};
pub use git::Repository;
pub use http::{Connection, Response, get, request};
pub use leftovers::{Leftovers, processes};
pub use load::{Failed, Load, Seen};
pub use random::Random;
pub use small_disk::{FileSystem, SmallDisk};
pub use testbox::{Output, TestBox, Up, User};
pub use tools::{S3Server, sarif_faults, uv_folder};
pub use traffic::{Tally, Traffic};
pub use writers::{Instance, Process, Watched, Writers};

use std::time::{Duration, Instant};

/// Waits for a condition, and fails loudly with `what` when it does not come true in time.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns whether this test runs as root. What needs root says loudly that it was not tested.
pub fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED (needs root): {what}");
    }
    root
}

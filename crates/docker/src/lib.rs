//! Runs instances as containers, and makes their images, with the Docker or Podman that is on the box.
//!
//! Between the control plane and a container stands one *keeper* ([`keeper_main`]), as the sandbox has one shim for each
//! instance: it belongs to nobody, holds the locks of the volumes, writes the log, lets a frozen container go, and records
//! how it ended. The engine's daemon starts and ends the processes; what lives is decided by the kernel where it can be,
//! and asked of the daemon where it cannot (docs/decisions/0017).
//!
//! Read in this order: `daemon` (where it listens), `engine` (the port), `records` (what is on disk), `keeper`, `life` (what
//! is true of containers whose keeper is gone), `images`.

mod buildkit;
mod container;
mod context;
mod control;
mod daemon;
mod end;
mod engine;
mod exec;
mod freeze;
mod images;
mod keeper;
mod life;
mod records;
mod start;
mod still;
mod strays;
mod supervise;

pub use engine::{Config, Docker};
pub use keeper::keeper_main;

//! Runs instances on this box without any container software: namespaces, cgroups, network, supervision.
//!
//! Three processes stand between the control plane and an app. The control plane holds a [`Sandbox`]; for each
//! instance it starts one *shim* ([`shim_main`]), which outlives it, supervises and keeps the log; the shim starts
//! *init*, pid 1 of the sandbox, which starts the app and reaps. When the shim dies, the kernel ends init, and with it
//! everything inside. The control plane forks nothing itself: it has threads.
//!
//! Read in this order: [`sandbox`] (what the control plane holds), `engine` and `jobs` (the ports), `records` (what is
//! on disk), `shim` (one instance's supervisor), `init` (pid 1), `side` (what runs beside the main process), `tree` (what the app sees), `launch` (what the app may),
//! `freeze`, `stillness` and `freezer` (how it is made to stand still).

mod apptree;
pub mod beside;
mod cgroup;
mod control;
mod door;
mod engine;
mod filter;
mod folder;
mod footprint;
mod freeze;
mod freezer;
mod init;
mod jobs;
mod launch;
mod links;
mod listening;
mod locks;
mod logfile;
mod mounts;
mod netlink;
mod network;
mod ownership;
mod probe;
mod process;
mod reconcile;
mod records;
mod rules;
mod sandbox;
mod shim;
mod side;
mod sockets;
mod stillness;
mod strays;
mod streams;
mod supervise;
mod tree;

pub use sandbox::{Config, Sandbox};
pub use shim::shim_main;

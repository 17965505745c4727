//! Source → plan → image: receives a tree, decides how it is built and run without running any of it, and builds it.
//!
//! Read in this order: [`source`] (what arrives), `config` (what files and flags ask for), `planner` (what is decided),
//! `provider` (what one is; `python`, `node`, `go` and others are), `steps` (what most of them build by), `builder`
//! (the port), `check` (what is wrong already), `layers` and `job` (disk and sandbox).

mod builder;
mod changes;
mod check;
mod collect;
mod config;
mod deno;
mod dockerfile;
mod earlier;
mod elixir;
mod explain;
mod fetch;
#[doc(hidden)]
pub mod fuzz;
mod go;
mod host;
mod java;
mod job;
mod layers;
mod node;
mod php;
mod planner;
mod preflight;
mod provider;
mod python;
mod range;
mod ruby;
mod rust;
mod shell;
mod site;
pub mod source;
mod source_tree;
mod steps;
mod text;
mod tool;
mod toolchain;
mod tools;

pub use builder::{Config, LocalBuilder};
pub use check::{Lent, LocalCheck, check_folder};

//! Source → plan → image: receives a tree, decides how it is built and run without running any of it, and builds it.
//!
//! Read in this order: [`source`] (what arrives), `config` (what files and flags ask for), `planner` (what is decided),
//! `python` (the provider), `builder` (the port), `layers` and `job` (disk and sandbox).

mod builder;
mod collect;
mod config;
mod host;
mod job;
mod layers;
mod planner;
mod python;
pub mod source;
mod source_tree;
mod text;
mod tools;

pub use builder::{Config, LocalBuilder};

//! Source → plan → image: receives a tree, decides how it is built and run without running any of it, and builds it.
//!
//! Read in this order: [`source`] (what arrives), `config` (what files and flags ask for), then the provider.

mod config;
mod host;
mod planner;
mod python;
pub mod source;
mod text;

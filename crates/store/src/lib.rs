//! The control plane's state in one SQLite database. The only SQL of the control plane stands here, one file a noun.
//!
//! Every call of [`Store::with`] is one transaction on the one connection: there is one writer.

mod app_links;
mod copy;
#[cfg(test)]
mod data_tests;
mod database;
mod deployments;
mod git;
mod offsite;
mod process_counts;
mod releases;
mod remotes;
mod restore_points;
mod seal;
mod services;
mod sources;
mod ticks;
mod variables;
mod volumes;

pub use database::{Db, Store, StoreError};
pub use git::TOKENS_MAX;
pub use seal::Key;
pub use variables::{StoredVariable, VariableScope};

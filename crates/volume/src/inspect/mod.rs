//! Looking into the SQLite databases of apps, in a process that lives as long as the look.
//!
//! It is a process of its own for two reasons. Closing any descriptor of a file drops every POSIX lock that the process
//! has on it, so nothing that lives long may ever open a database that somebody else in it uses. And a database that an
//! app has made is hostile input: the process that parses it has the rights of the volume's owner, sees nothing but the
//! folder, and has limits of memory and time.

mod ask;
mod backup;
mod confine;
mod content;
mod database;
mod digest;
mod query;
mod role;
mod schema;
mod wire;

pub use ask::{Inspector, LookError};
pub use role::look_into;
pub use wire::{Answer, Inspected, QueryLimits, QueryMode, Value};

/// The first argument that makes the one binary look into a database.
pub const ROLE: &str = "look-into";

/// Whether the look may take all it can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it.
    Normal,
    /// Nobody does: the app comes first.
    Low,
}

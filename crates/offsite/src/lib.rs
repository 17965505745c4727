//! Copies of the box at an object store elsewhere: encrypted here, mirrored, read back, and fetched again on an empty
//! machine. It knows files and folders that never change once they are there, and nothing of what is in them.
//!
//! Read in this order: `formats` (what lies at a target), `items` (what lies here), `mirror` (from here to there),
//! `history` and `recover` (from there to here), `remote` (requests that end).

mod error;
mod formats;
mod history;
mod http;
mod items;
mod keep;
mod ledger;
mod limits;
mod mirror;
mod offsite;
mod owner;
mod pace;
mod recover;
mod remote;
mod said;
mod seal;
mod target;
#[cfg(test)]
mod tests;
mod tree;

pub use error::{OffsiteError, RemoteFault};
pub use history::{Found, History};
pub use limits::Limits;
pub use offsite::Mirror;
pub use recover::{Copies, Lost, Progress};
pub use seal::{Keys, new_identity};

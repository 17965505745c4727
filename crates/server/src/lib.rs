//! `trackbed serve`: wires all parts together and answers the API. The only room that knows every other one.

mod api;
mod check;
mod convert;
mod convert_data;
mod edge_keeper;
mod engines;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod git;
mod given;
mod peer;
mod pieces;
mod recover;
mod recover_tell;
mod remote_drill;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

pub use check::{CheckConfig, check};
pub use edge_keeper::reload_edge;
pub use recover::{RecoverAt, RecoverConfig, list_copies, recover};
pub use serve::{ServeConfig, serve};
pub use trackbed_core::{Secret, Timestamp};

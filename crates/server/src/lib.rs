//! `trackbed serve`: wires all parts together and answers the API. The only room that knows every other one.

mod api;
mod convert;
mod convert_data;
mod edge_keeper;
mod error;
mod git;
mod given;
mod peer;
mod pieces;
mod recover;
mod remote_drill;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

pub use edge_keeper::reload_edge;
pub use recover::{RecoverConfig, recover};
pub use serve::{ServeConfig, serve};
pub use trackbed_core::Secret;

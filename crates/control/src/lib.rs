//! Use cases and reconcilers: deploy, restart, stop, keep running. Sees the outside only through `core::ports`.
//!
//! Requests (in [`requests`]) store what is wanted and return at once. One worker per service ([`worker`]) makes it
//! so: it drives the unfinished deployment ([`deploy`]), then keeps the live release running ([`supervise`]). What the
//! edge must know is computed from the stored state alone ([`routes`]), so a crash at any point is repaired by doing
//! the same thing again.

mod bounded;
mod build_log;
mod cancel;
mod control;
mod deploy;
mod diagnose;
mod environment;
mod health;
mod requests;
mod resolve;
mod routes;
mod spec;
mod status;
mod streams;
mod supervise;
mod sweep;
mod variables;
mod volumes;
mod worker;

pub use build_log::LogFilePage;
pub use control::{AbortPoint, Config, Control, ControlError, Moment, Parts};
pub use requests::DeploymentWish;
pub use resolve::PointAt;
pub use status::{ServiceLogPage, ServiceState, ServiceStatus};
pub use volumes::{Holder, Lease};

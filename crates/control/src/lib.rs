//! Use cases and reconcilers: deploy, restart, stop, keep running. Sees the outside only through `core::ports`.
//!
//! Requests (in [`requests`]) store what is wanted and return at once. One worker per service ([`worker`]) makes it
//! so: it drives the unfinished deployment ([`deploy`]), then keeps the live release running ([`supervise`]). What the
//! edge must know is computed from the stored state alone ([`routes`]), so a crash at any point is repaired by doing
//! the same thing again.

mod adoptions;
mod backup;
mod bounded;
mod budget;
mod build_log;
mod cancel;
mod clones;
mod collect;
mod comparing;
mod control;
mod data_status;
mod deploy;
mod diagnose;
mod drills;
mod environment;
mod freezer;
mod git;
mod health;
mod jobs;
mod keeping;
mod offsite;
mod recovered;
mod remotes;
mod requests;
mod resolve;
pub mod retention;
mod routes;
mod scale;
mod spec;
mod status;
mod stray;
mod streams;
mod supervise;
mod sweep;
mod ticks;
mod turns;
mod unsettled;
mod variables;
mod volume_changes;
mod volumes;
mod words;
mod worker;

pub use build_log::LogFilePage;
pub use clones::CloneWish;
pub use comparing::WayBack;
pub use control::{AbortPoint, Config, Control, ControlError, Moment, Parts};
pub use data_status::VolumeData;
pub use git::GitAccess;
pub use offsite::{LOUD_AFTER, OffsiteStatus, RemoteDrill, TargetWish};
pub use recovered::{Recovered, settle_recovered};
pub use remotes::{Followed, KeyPair, RemoteWish};
pub use requests::DeploymentWish;
pub use resolve::PointAt;
pub use scale::Scaled;
pub use status::{ServiceLogPage, ServiceState, ServiceStatus};
pub use stray::ALLOW_DATA_OUTSIDE;
pub use volumes::{Holder, Lease};

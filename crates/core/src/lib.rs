//! The language of Trackbed: ids, names, secrets, entities, state machines and ports. No I/O, no clock, no randomness.
//!
//! Read in this order: [`ids`] and [`names`] (how things are called), [`network`] (where clients come from), [`settings`] and [`plan`] (what a source asks
//! for), [`cron`] (when a job runs), [`image`], [`release`], [`deployment`] (how it becomes live), [`instance`] (what runs), [`process`] (what it consists of), [`job`] (what runs now and then), [`volume`] and [`restore_point`] (its data), [`schema`] (what its databases look like), [`offsite`] (its copies elsewhere), [`git`] (who may push a source), [`remote`] (where the box fetches one), [`route`] (what the
//! edge knows), [`ports`] (what the outside must be able to do).

pub mod cron;
pub mod deployment;
pub mod finding;
pub mod git;
pub mod ids;
pub mod image;
pub mod instance;
pub mod isolation;
pub mod job;
pub mod names;
pub mod network;
pub mod offsite;
pub mod plan;
pub mod ports;
pub mod process;
pub mod reference;
pub mod release;
pub mod remote;
pub mod restore_point;
pub mod route;
pub mod schema;
pub mod secret;
pub mod service;
pub mod settings;
pub mod time;
pub mod volume;

pub use git::Branch;
pub use ids::{
    DeploymentId, Digest, EnvironmentId, GitTokenId, InstanceId, ProjectId, ReleaseId, RestorePointId,
    ServiceId, VolumeId,
};
pub use names::{Host, Name, VariableName};
pub use network::{Network, NotANetwork};
pub use process::ProcessName;
pub use secret::Secret;
pub use time::Timestamp;

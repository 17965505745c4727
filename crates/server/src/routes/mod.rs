//! One file a noun, each handler short: parse, ask the control plane, convert.

pub(crate) mod backup;
pub(crate) mod boxes;
pub(crate) mod databases;
pub(crate) mod deployments;
pub(crate) mod files;
pub(crate) mod git;
pub(crate) mod logs;
pub(crate) mod points;
pub(crate) mod remotes;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod services;
pub(crate) mod sources;
pub(crate) mod variables;
pub(crate) mod volumes;

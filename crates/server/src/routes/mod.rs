//! One file a noun, each handler short: parse, ask the control plane, convert.

pub(crate) mod backup;
pub(crate) mod boxes;
pub(crate) mod deployments;
pub(crate) mod logs;
pub(crate) mod run;
pub(crate) mod services;
pub(crate) mod sources;
pub(crate) mod variables;
pub(crate) mod volumes;

//! The Python provider.

pub(crate) mod build;
mod bytecode;
pub(crate) mod code;
pub(crate) mod command;
pub(crate) mod dependencies;
pub(crate) mod explain;
pub(crate) mod install;
pub(crate) mod interpreters;
pub(crate) mod pdm;
pub(crate) mod plan;
pub(crate) mod poetry;
pub(crate) mod preflight;
pub(crate) mod requirements;
pub(crate) mod scan;
pub(crate) mod start;
pub(crate) mod suspects;
pub(crate) mod version;
pub(crate) mod wanted;

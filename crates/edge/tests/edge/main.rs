//! The edge from outside: a real one on loopback, raw clients in front of it, raw targets behind it.
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod conformance;
mod control;
mod ends;
mod files;
mod files_hostile;
mod headers;
mod hostile;
mod limits;
mod namespaces;
mod parking;
mod probing;
mod routing;
mod streaming;
mod support;
mod swap;
mod takeover;
mod takeover_kills;
mod upgrade;

//! The data plane: listens, routes by host, parks, streams, drains. It knows hosts and targets; it never touches SQL,
//! never learns what a deployment is, and goes on alone when the control plane is gone.
//!
//! A request's way: [`worker`] accepts, [`connection`] reads its head ([`request`]), [`proxy`] looks the host up in
//! [`table`], takes a connection of the [`target`] ([`upstream`], [`dial`]), and [`exchange`] moves both bodies, through
//! buffers that a worker's connections share ([`buffers`]). The control plane speaks to [`control`] through
//! [`EdgeClient`]. A new version of the edge takes the place of the running one by [`takeover`]; that one is then an elder
//! ([`elders`]), which finishes what is open.

mod body;
mod buffers;
mod chunks;
mod client;
mod connection;
mod control;
mod descriptors;
mod dial;
mod elders;
mod error;
mod events;
mod exchange;
mod fields;
mod files;
mod frames;
#[doc(hidden)]
pub mod fuzz;
mod host;
mod limits;
mod link;
mod listen;
mod metrics;
mod netns;
mod open_request;
mod pages;
mod probe;
mod proxy;
mod request;
mod response;
mod serve;
mod service;
mod shutdown;
mod snapshot;
mod sources;
mod streams;
mod table;
mod takeover;
mod target;
mod trust;
mod tunnel;
mod upstream;
mod watch;
mod wire;
mod worker;

pub use client::EdgeClient;
pub use error::EdgeError;
pub use serve::{Config, run, run_successor, serve, succeed};
pub use wire::Answers;

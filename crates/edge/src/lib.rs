//! The data plane: listens, routes by host, parks, streams, drains. It knows hosts and targets; it never touches SQL,
//! never learns what a deployment is, and goes on alone when the control plane is gone.
//!
//! A request's way: [`worker`] accepts, [`connection`] drives hyper, [`proxy`] looks the host up in [`table`], takes a
//! connection of the [`target`] ([`upstream`], [`dial`]), cleans the [`headers`] and streams the [`answer`] back.
//! The control plane speaks to [`control`] through [`EdgeClient`]. A new version of the edge takes the place of the
//! running one by [`takeover`]; that one is then an elder ([`elders`]), which finishes what is open.

mod answer;
mod client;
mod client_io;
mod connection;
mod control;
mod descriptors;
mod dial;
mod elders;
mod error;
mod framing;
mod headers;
mod host;
mod limits;
mod link;
mod listen;
mod netns;
mod open_request;
mod pages;
mod probe;
mod proxy;
mod serve;
mod shutdown;
mod snapshot;
mod table;
mod takeover;
mod target;
mod tunnel;
mod upstream;
mod wire;
mod worker;

pub use client::EdgeClient;
pub use error::EdgeError;
pub use serve::{Config, run, run_successor, serve, succeed};
pub use wire::Answers;

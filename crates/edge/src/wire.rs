//! What the control plane and the edge say to each other: one JSON object per line, a request and its reply.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trackbed_core::InstanceId;
use trackbed_core::route::{EdgeStats, RouteTable};

/// The protocol spoken here. An edge understands this one; control planes are upgraded before edges.
pub(crate) const PROTOCOL: u32 = 1;

/// A line to the edge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The protocol.
    pub(crate) v: u32,
    /// What to do.
    #[serde(flatten)]
    pub(crate) op: Op,
}

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// Put a table in force.
    Apply { table: RouteTable },
    /// Tell who this is: the counters of this edge alone, whatever its elders do.
    Who,
    /// Tell the counters.
    Stats,
    /// End the streams of an instance politely, spread over so many milliseconds.
    EndStreams { instance: InstanceId, over_ms: u64 },
    /// End every request open to an instance.
    Cut { instance: InstanceId },
    /// End, after at most so many milliseconds.
    Shutdown { drain_ms: u64 },
    /// Hand sockets and lock to the asking process, which wants to take this edge's place.
    TakeOver,
    /// The asking process has all it needs: it takes the place with the reply to this.
    Ready,
}

impl Op {
    /// Returns whether an order to the newest edge is one to the earlier ones too, which still finish requests.
    pub(crate) fn is_for_elders(&self) -> bool {
        match self {
            Op::Apply { .. } | Op::EndStreams { .. } | Op::Cut { .. } | Op::Shutdown { .. } => true,
            Op::Who | Op::Stats | Op::TakeOver | Op::Ready => false,
        }
    }
}

/// Returns an order as a line.
///
/// # Errors
/// Never in practice: every order has a JSON form.
pub(crate) fn line(op: Op) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Request { v: PROTOCOL, op })?;
    line.push(b'\n');
    Ok(line)
}

/// A line from the edge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The protocol.
    pub(crate) v: u32,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// A table is in force: the one sent, or a newer one.
    Applied { sequence: u64 },
    /// The counters.
    Stats { stats: EdgeStats, answers: BTreeMap<String, Answers> },
    /// Sockets and lock come with this line, in the order listening socket, control socket, lock. The process that
    /// gives them goes on as if nothing had happened unless it hears [`Op::Ready`] in time.
    Handed { pid: u32 },
    /// Done.
    Done,
    /// Not done.
    Failed { message: String },
}

/// How the finished requests of a service ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answers {
    /// Status 200 to 299.
    pub ok: u64,
    /// Status 300 to 399.
    pub redirects: u64,
    /// Status 400 to 499.
    pub client_errors: u64,
    /// Status 500 to 599, and answers that the target broke off.
    pub server_errors: u64,
    /// The client left before the end (499 in nginx's words).
    pub left: u64,
    /// How long the heads of answers took: place `n` counts those that took less than 2^n microseconds.
    #[serde(default)]
    pub first_byte: Vec<u64>,
}

//! What the edge knows: hosts, and for each the one place its requests go. No releases, no deployments.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::seconds;
use crate::{Host, InstanceId, Network, ServiceId};

/// How to reach a port of an instance. Made by the engine, read by the edge, opaque to everybody between:
/// `tcp:127.0.0.1:4000`, or `netns:<pid>@<start time>:127.0.0.1:8080` to dial inside a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

/// One instance that requests go to. Its identity is the instance, never the address: connections of an earlier
/// instance on the same address are never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Which instance.
    pub instance: InstanceId,
    /// Where it listens.
    pub address: Address,
}

/// What happens to the requests of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum UpstreamState {
    /// They go to the target.
    Serving {
        /// Where to.
        target: Target,
    },
    /// They wait, bodies unread, until a target is there or the limit is over; then 503 with `Retry-After`.
    Parked {
        /// Longest wait of one request.
        #[serde(with = "seconds")]
        limit: Duration,
    },
    /// They are answered with an error page at once.
    Down {
        /// Why, which picks page and status.
        reason: DownReason,
    },
}

/// Why a service has no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownReason {
    /// The first deployment is on its way.
    Starting,
    /// Nothing has been deployed yet, or every deployment has failed.
    Undeployed,
    /// Stopped on purpose (`trackbed down`).
    Stopped,
    /// It ended and is not started again.
    Crashed,
}

/// A service as the edge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The service, for counters and error pages.
    pub service: ServiceId,
    /// Its name, for error pages.
    pub name: String,
    /// Where its requests go.
    #[serde(flatten)]
    pub upstream: UpstreamState,
}

/// Every route of the box. Applied as a whole: there is no half-applied table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteTable {
    /// Grows by one with each table; an older one never replaces a newer one.
    pub sequence: u64,
    /// Proxies in front of the box: what they say about their clients (`X-Forwarded-…`) is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Routes by host.
    pub routes: BTreeMap<Host, Route>,
}

/// Counters of one instance at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetStats {
    /// Requests sent and not yet finished, streams included.
    pub in_flight: u64,
    /// Of those, event streams and upgraded connections.
    pub streams: u64,
    /// Of the streams, upgraded connections.
    pub websockets: u64,
    /// Age of the oldest open stream, in milliseconds.
    pub oldest_stream_ms: u64,
    /// Longest time that any open stream has been without a byte from the app, so far, in milliseconds.
    pub longest_silence_ms: u64,
    /// Requests finished since the edge first saw the target.
    pub requests: u64,
}

/// Requests of one service that wait, or waited in its last pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ParkedStats {
    /// Waiting now.
    pub now: u64,
    /// That had to wait in the pause that lasts or, when none does, in the last one.
    pub total: u64,
    /// The longest wait of one of those, in milliseconds; those still waiting count with what they have waited so far.
    pub longest_ms: u64,
    /// Of the total, those that were given up with 503: too many, or too long.
    pub refused: u64,
}

/// What an app does to its event streams that keeps events from arriving one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamFault {
    /// The stream has a `Content-Encoding`: a compressor holds events back until it has a block.
    Compressed,
    /// The stream has a `Content-Length`: the app made all of it before it sent the first byte.
    Sized,
    /// All events came at once, long after the request: something in the app collected them first.
    Buffered,
}

impl StreamFault {
    /// All faults.
    pub const ALL: [StreamFault; 3] = [StreamFault::Compressed, StreamFault::Sized, StreamFault::Buffered];

    /// Returns what is wrong, in words for the owner of the app. No two begin alike.
    pub fn symptom(self) -> &'static str {
        match self {
            StreamFault::Compressed => "the app compresses its event streams, so events wait for each other",
            StreamFault::Sized => "the app makes all of an event stream before it sends the first event",
            StreamFault::Buffered => "the app's events arrive all at once at the end, not one by one",
        }
    }
}

/// A fault that the edge saw in the streams of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNotice {
    /// What is wrong.
    pub fault: StreamFault,
    /// The path of the last request with it, without its query.
    pub path: String,
    /// How many streams had it since the edge started.
    pub count: u64,
}

/// Counters of the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeStats {
    /// The address that it listens on.
    pub listen: String,
    /// Process id, for `status`.
    pub pid: u32,
    /// The version of its program; empty when it is too old to say.
    #[serde(default)]
    pub version: String,
    /// The digest of its program; empty when it is too old to say, or cannot read its own file.
    #[serde(default)]
    pub build: String,
    /// Processes of earlier versions that still finish requests. Their counters are in the sums below.
    #[serde(default)]
    pub draining: u32,
    /// The sequence of the table in force.
    pub sequence: u64,
    /// By instance: all targets in the table and every older one that still has requests.
    pub targets: BTreeMap<String, TargetStats>,
    /// By service: requests that wait.
    pub parked: BTreeMap<String, ParkedStats>,
    /// By service: what is wrong with its event streams.
    #[serde(default)]
    pub notices: BTreeMap<String, Vec<StreamNotice>>,
}

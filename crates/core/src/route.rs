//! What the edge knows: hosts, and for each the one place its requests go. No releases, no deployments.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::seconds;
use crate::{Host, InstanceId, ServiceId};

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
    /// Routes by host.
    pub routes: BTreeMap<Host, Route>,
}

/// Counters of one instance at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetStats {
    /// Requests sent and not yet finished, streams included.
    pub in_flight: u64,
    /// Of those, event streams and upgraded connections.
    pub streams: u64,
    /// Requests finished since the edge first saw the target.
    pub requests: u64,
}

/// Counters of the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeStats {
    /// The address that it listens on.
    pub listen: String,
    /// Process id, for `status`.
    pub pid: u32,
    /// The sequence of the table in force.
    pub sequence: u64,
    /// By instance: all targets in the table and every older one that still has requests.
    pub targets: BTreeMap<String, TargetStats>,
    /// By service: requests parked now.
    pub parked: BTreeMap<String, u64>,
}

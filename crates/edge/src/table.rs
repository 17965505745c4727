//! The routes in force. A table is replaced as a whole by one pointer; what must outlive it (counters, parked requests,
//! targets that still finish their work) hangs on states that pass from table to table.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use trackbed_core::route::{DownReason, ParkedStats, RouteTable, StreamNotice, TargetStats, UpstreamState};
use trackbed_core::{InstanceId, Network, ServiceId};

use crate::service::ServiceState;
use crate::sources::Sources;
use crate::streams::{OpenStream, end_evenly};
use crate::target::TargetState;
use crate::watch::Watches;
use crate::wire::Answers;

/// What all workers share.
pub(crate) struct Routes {
    table: ArcSwap<Table>,
    kept: Mutex<Kept>,
    /// Client connections, by worker.
    pub(crate) watches: Box<[Watches]>,
    pub(crate) sources: Arc<Sources>,
    /// Set when the edge is about to end: answers then ask clients not to come back on the same connection.
    pub(crate) closing: AtomicBool,
    request_seed: u64,
    request_count: AtomicU64,
}

/// One table.
#[derive(Default)]
pub(crate) struct Table {
    sequence: u64,
    /// Proxies in front of the box whose word about their clients is taken.
    pub(crate) trusted: Vec<Network>,
    hosts: HashMap<Box<str>, Entry>,
}

/// What a host leads to.
pub(crate) struct Entry {
    pub(crate) service: Arc<ServiceState>,
    pub(crate) way: Way,
}

/// Where requests go.
pub(crate) enum Way {
    Serving(Arc<TargetState>),
    Parked(Duration),
    Down(DownReason),
}

/// What is told of services, by their id.
#[derive(Default)]
pub(crate) struct ServiceStats {
    pub(crate) parked: BTreeMap<String, ParkedStats>,
    pub(crate) answers: BTreeMap<String, Answers>,
    pub(crate) notices: BTreeMap<String, Vec<StreamNotice>>,
}

#[derive(Default)]
struct Kept {
    services: HashMap<ServiceId, Arc<ServiceState>>,
    /// Those of the table and every older one that still has requests.
    targets: Vec<Arc<TargetState>>,
}

impl Table {
    pub(crate) fn find(&self, host: &str) -> Option<&Entry> {
        self.hosts.get(host)
    }
}

impl Routes {
    /// Makes an empty table for this many workers.
    pub(crate) fn new(workers: usize, connections_per_source: usize) -> Self {
        Self {
            table: ArcSwap::default(),
            kept: Mutex::default(),
            watches: (0..workers).map(|_| Watches::default()).collect(),
            sources: Sources::new(connections_per_source),
            closing: AtomicBool::new(false),
            request_seed: u64::from_le_bytes(trackbed_stdx::random::bytes()),
            request_count: AtomicU64::new(0),
        }
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.table.load().sequence
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a table in force, unless a newer one is. When it returns, no request can begin on a target that is not in
    /// the table in force. Returns the sequence in force.
    pub(crate) fn apply(&self, wanted: &RouteTable) -> u64 {
        let mut kept = self.kept();
        let in_force = self.sequence();
        if wanted.sequence < in_force {
            return in_force;
        }
        let workers = self.watches.len();
        let before = self.load();
        let mut services = HashMap::new();
        let mut current: Vec<Arc<TargetState>> = Vec::new();
        let mut hosts = HashMap::with_capacity(wanted.routes.len());
        for (host, route) in &wanted.routes {
            let service = Arc::clone(services.entry(route.service.clone()).or_insert_with(|| {
                kept.services
                    .get(&route.service)
                    .filter(|state| state.name == route.name)
                    .map_or_else(|| ServiceState::new(route.name.clone(), workers), Arc::clone)
            }));
            let way = match &route.upstream {
                UpstreamState::Serving { target } => {
                    let same = |state: &&Arc<TargetState>| state.target() == target;
                    let known = current.iter().find(same).or_else(|| kept.targets.iter().find(same));
                    let state = known.map_or_else(|| TargetState::new(target, workers), Arc::clone);
                    if !current.iter().any(|other| Arc::ptr_eq(other, &state)) {
                        current.push(Arc::clone(&state));
                    }
                    Way::Serving(state)
                }
                UpstreamState::Parked { limit } => {
                    let was = before.find(host.as_str()).map(|entry| &entry.way);
                    if !matches!(was, Some(Way::Parked(_))) {
                        service.begin_pause();
                    }
                    Way::Parked(*limit)
                }
                UpstreamState::Down { reason } => Way::Down(*reason),
            };
            hosts.insert(host.as_str().into(), Entry { service, way });
        }
        for target in &current {
            target.reinstate();
        }
        self.table.store(Arc::new(Table {
            sequence: wanted.sequence,
            trusted: wanted.trusted_proxies.clone(),
            hosts,
        }));
        let before = std::mem::replace(&mut kept.services, services);
        for target in std::mem::take(&mut kept.targets) {
            if !current.iter().any(|other| Arc::ptr_eq(other, &target)) {
                target.retire();
                if target.in_flight() > 0 {
                    current.push(target);
                }
            }
        }
        kept.targets = current;
        for service in before.values().chain(kept.services.values()) {
            service.changed.notify_waiters();
        }
        wanted.sequence
    }

    /// Returns the counters of every target that is in the table or still has requests.
    pub(crate) fn target_stats(&self) -> BTreeMap<String, TargetStats> {
        let mut kept = self.kept();
        let table = self.load();
        let in_table = |target: &Arc<TargetState>| {
            let leads =
                |entry: &Entry| matches!(&entry.way, Way::Serving(other) if Arc::ptr_eq(other, target));
            table.hosts.values().any(leads)
        };
        let mut all = BTreeMap::<String, TargetStats>::new();
        kept.targets.retain(|target| {
            let stats = target.stats();
            let stays = stats.in_flight > 0 || in_table(target);
            if stays {
                let sum = all.entry(target.target().instance.to_string()).or_default();
                sum.in_flight += stats.in_flight;
                sum.streams += stats.streams;
                sum.websockets += stats.websockets;
                sum.oldest_stream_ms = sum.oldest_stream_ms.max(stats.oldest_stream_ms);
                sum.longest_silence_ms = sum.longest_silence_ms.max(stats.longest_silence_ms);
                sum.requests += stats.requests;
            }
            stays
        });
        all
    }

    /// Returns what is kept of each service that is in the table.
    pub(crate) fn service_stats(&self) -> ServiceStats {
        let kept = self.kept();
        let mut stats = ServiceStats::default();
        for (id, service) in &kept.services {
            stats.parked.insert(id.to_string(), service.parked());
            stats.answers.insert(id.to_string(), service.answers());
            let notices = service.notices();
            if !notices.is_empty() {
                stats.notices.insert(id.to_string(), notices);
            }
        }
        stats
    }

    /// Returns the work of ending the streams of an instance politely, spread over a time. Nothing happens before it is
    /// polled.
    pub(crate) fn end_streams(
        &self,
        instance: &InstanceId,
        over: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let streams: Vec<Arc<OpenStream>> =
            self.targets_of(instance).iter().flat_map(|target| target.streams.open()).collect();
        end_evenly(streams, over)
    }

    fn targets_of(&self, instance: &InstanceId) -> Vec<Arc<TargetState>> {
        let kept = self.kept();
        kept.targets.iter().filter(|target| target.target().instance == *instance).map(Arc::clone).collect()
    }

    /// Ends every open request to an instance.
    pub(crate) fn cut(&self, instance: &InstanceId) {
        for target in self.targets_of(instance) {
            target.cut();
        }
    }

    /// Drops upstream connections that have been idle for too long, and clients that are over a limit.
    pub(crate) fn sweep(&self) {
        for target in &self.kept().targets {
            target.sweep_idle();
        }
        for watches in &self.watches {
            watches.cut_overdue();
        }
    }

    /// Returns a request id: unique on this box, and not a secret.
    pub(crate) fn next_request_id(&self) -> u64 {
        let count = self.request_count.fetch_add(1, Ordering::Relaxed);
        // The finalizer of splitmix64 is a bijection, so ids never repeat within one run.
        let mut bits = self.request_seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

//! The routes in force. A table is replaced as a whole by one pointer; what must outlive it (counters, parked requests,
//! targets that still finish their work) hangs on states that pass from table to table.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;
use trackbed_core::route::{DownReason, ParkedStats, RouteTable, TargetStats, UpstreamState};
use trackbed_core::{InstanceId, ServiceId};

use crate::limits::PARKED_COUNT_MAX;
use crate::target::TargetState;
use crate::wire::Answers;

/// What all workers share.
pub(crate) struct Routes {
    table: ArcSwap<Table>,
    kept: Mutex<Kept>,
    workers: usize,
    /// Set when the edge is about to end: answers then ask clients not to come back on the same connection.
    pub(crate) closing: AtomicBool,
    request_seed: u64,
    request_count: AtomicU64,
}

/// One table.
#[derive(Default)]
pub(crate) struct Table {
    sequence: u64,
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

/// What the edge keeps per service.
pub(crate) struct ServiceState {
    pub(crate) name: String,
    /// Wakes parked requests when there is a new table.
    pub(crate) changed: Notify,
    parked: AtomicU64,
    /// Finished requests: 1xx to 5xx by their first digit, at 0 those whose client left.
    answers: [AtomicU64; 6],
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
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            table: ArcSwap::default(),
            kept: Mutex::default(),
            workers,
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
        let mut services = HashMap::new();
        let mut current: Vec<Arc<TargetState>> = Vec::new();
        let mut hosts = HashMap::with_capacity(wanted.routes.len());
        for (host, route) in &wanted.routes {
            let service = Arc::clone(services.entry(route.service.clone()).or_insert_with(|| {
                kept.services
                    .get(&route.service)
                    .filter(|state| state.name == route.name)
                    .map_or_else(|| ServiceState::new(route.name.clone()), Arc::clone)
            }));
            let way = match &route.upstream {
                UpstreamState::Serving { target } => {
                    let same = |state: &&Arc<TargetState>| state.target() == target;
                    let known = current.iter().find(same).or_else(|| kept.targets.iter().find(same));
                    let state = known.map_or_else(|| TargetState::new(target, self.workers), Arc::clone);
                    if !current.iter().any(|other| Arc::ptr_eq(other, &state)) {
                        current.push(Arc::clone(&state));
                    }
                    Way::Serving(state)
                }
                UpstreamState::Parked { limit } => Way::Parked(*limit),
                UpstreamState::Down { reason } => Way::Down(*reason),
            };
            hosts.insert(host.as_str().into(), Entry { service, way });
        }
        for target in &current {
            target.reinstate();
        }
        self.table.store(Arc::new(Table { sequence: wanted.sequence, hosts }));
        let before = std::mem::replace(&mut kept.services, services);
        for target in std::mem::take(&mut kept.targets) {
            if !current.iter().any(|other| Arc::ptr_eq(other, &target)) {
                target.retire();
                if target.stats().in_flight > 0 {
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
                sum.requests += stats.requests;
            }
            stays
        });
        all
    }

    /// Returns how many requests are parked and how the finished ones ended, by service.
    pub(crate) fn service_stats(&self) -> (BTreeMap<String, ParkedStats>, BTreeMap<String, Answers>) {
        let kept = self.kept();
        let parked = |(id, state): (&ServiceId, &Arc<ServiceState>)| {
            let now = state.parked.load(Ordering::SeqCst);
            (id.to_string(), ParkedStats { now, ..ParkedStats::default() })
        };
        let answers = |(id, state): (&ServiceId, &Arc<ServiceState>)| (id.to_string(), state.answers());
        (kept.services.iter().map(parked).collect(), kept.services.iter().map(answers).collect())
    }

    /// Ends every open request to an instance.
    pub(crate) fn cut(&self, instance: &InstanceId) {
        for target in self.kept().targets.iter().filter(|target| target.target().instance == *instance) {
            target.cut();
        }
    }

    /// Drops upstream connections that have been idle for too long.
    pub(crate) fn sweep_idle(&self) {
        let now = Instant::now();
        for target in &self.kept().targets {
            target.sweep_idle(now);
        }
    }

    /// Returns a request id: unique on this box, and not a secret.
    pub(crate) fn next_request_id(&self) -> String {
        let count = self.request_count.fetch_add(1, Ordering::Relaxed);
        // The finalizer of splitmix64 is a bijection, so ids never repeat within one run.
        let mut bits = self.request_seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016x}", bits ^ (bits >> 31))
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

impl ServiceState {
    fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            changed: Notify::new(),
            parked: AtomicU64::new(0),
            answers: Default::default(),
        })
    }

    /// Counts a request as parked until the returned value is dropped; none when too many are.
    pub(crate) fn park(self: &Arc<Self>) -> Option<ParkedRequest> {
        let before = self.parked.fetch_add(1, Ordering::SeqCst);
        let parked = ParkedRequest(Arc::clone(self));
        (before < PARKED_COUNT_MAX).then_some(parked)
    }

    /// Counts a finished request by the first digit of its status, or as left by its client at 0.
    pub(crate) fn count_answer(&self, class: usize) {
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    fn answers(&self) -> Answers {
        let [left, _, ok, redirects, client_errors, server_errors] =
            [0, 1, 2, 3, 4, 5].map(|class| self.answers[class].load(Ordering::Relaxed));
        Answers { ok, redirects, client_errors, server_errors, left }
    }
}

/// A request that waits.
pub(crate) struct ParkedRequest(Arc<ServiceState>);

impl Drop for ParkedRequest {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

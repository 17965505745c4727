//! Callers of a world: each sends one request to a host, which the table in force answers, parks or refuses.
//!
//! Nothing waits here: where a request ends is computed from the tables and the clock whenever something changes.

use std::collections::BTreeMap;
use std::time::Duration;

use trackbed_core::route::{ParkedStats, UpstreamState};
use trackbed_core::{Host, InstanceId, ServiceId, Timestamp};

use crate::clock;
use crate::world::{State, World, later};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// By this instance.
    By(InstanceId),
    /// With 503, after it was parked for as long as allowed.
    Refused,
    /// With an error page: nobody serves, or whoever should is dead.
    Failed(String),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where to.
    pub host: Host,
    /// When it came to the edge.
    pub arrived: Timestamp,
    /// How and when it ended; none while it is parked.
    pub end: Option<(Timestamp, Answered)>,
}

/// All callers of a world.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    all: Vec<Caller>,
    parked: BTreeMap<ServiceId, ParkedStats>,
    steady: Option<Steady>,
}

/// One request after the other.
#[derive(Debug)]
struct Steady {
    host: Host,
    every: Duration,
    next: Timestamp,
}

impl World {
    /// Sends a request now. Returns its number, for [`World::caller`].
    pub fn call(&self, host: &Host) -> usize {
        let now = clock::now();
        let mut state = self.lock();
        state.move_callers(now);
        state.arrive(host, now);
        state.callers.all.len() - 1
    }

    /// Sends a request every so often from now on.
    pub fn keep_calling(&self, host: &Host, every: Duration) {
        let next = clock::now();
        self.lock().callers.steady = Some(Steady { host: host.clone(), every, next });
    }

    /// Returns a request.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn caller(&self, number: usize) -> Caller {
        self.callers()[number].clone()
    }

    /// Returns every request, in order.
    pub fn callers(&self) -> Vec<Caller> {
        let mut state = self.lock();
        state.move_callers(clock::now());
        state.callers.all.clone()
    }
}

impl State {
    /// Brings requests up to a time, by the table in force since the last call.
    pub(crate) fn move_callers(&mut self, now: Timestamp) {
        while let Some(steady) = &mut self.callers.steady
            && steady.next <= now
        {
            let (host, at) = (steady.host.clone(), steady.next);
            steady.next = later(at, steady.every);
            self.arrive(&host, at);
        }
        for number in 0..self.callers.all.len() {
            self.look(number, now);
        }
    }

    /// Notes that a table came into force that parks services which were not parked before.
    pub(crate) fn begin_pauses(&mut self, was_parked: &[ServiceId]) {
        for service in self.parked_services() {
            if !was_parked.contains(&service) {
                self.callers.parked.insert(service, ParkedStats::default());
            }
        }
    }

    pub(crate) fn parked_services(&self) -> Vec<ServiceId> {
        let parked =
            |route: &&trackbed_core::route::Route| matches!(route.upstream, UpstreamState::Parked { .. });
        self.table.routes.values().filter(parked).map(|route| route.service.clone()).collect()
    }

    /// Returns what the edge counts of those who wait.
    pub(crate) fn parked_stats(&self, now: Timestamp) -> BTreeMap<String, ParkedStats> {
        let mut all = self.callers.parked.clone();
        for caller in self.callers.all.iter().filter(|caller| caller.end.is_none()) {
            let Some(route) = self.table.routes.get(&caller.host) else { continue };
            let stats = all.entry(route.service.clone()).or_default();
            stats.now += 1;
            stats.longest_ms = stats.longest_ms.max(millis(now.since(caller.arrived)));
        }
        all.into_iter().map(|(service, stats)| (service.to_string(), stats)).collect()
    }

    fn arrive(&mut self, host: &Host, at: Timestamp) {
        self.callers.all.push(Caller { host: host.clone(), arrived: at, end: None });
        if let Some(route) = self.table.routes.get(host)
            && matches!(route.upstream, UpstreamState::Parked { .. })
        {
            let service = route.service.clone();
            self.callers.parked.entry(service).or_default().total += 1;
        }
        self.look(self.callers.all.len() - 1, at);
    }

    /// Ends a request that does not have to wait any longer.
    fn look(&mut self, number: usize, now: Timestamp) {
        let caller = &self.callers.all[number];
        if caller.end.is_some() {
            return;
        }
        let Some(route) = self.table.routes.get(&caller.host) else {
            return self.end_caller(number, now, Answered::Failed("unknown host".into()));
        };
        let answered = match &route.upstream {
            UpstreamState::Serving { target } => match self.instances.get(&target.instance) {
                Some(instance) if instance.lives(now) => Answered::By(target.instance.clone()),
                _ => Answered::Failed(format!("{} is dead", target.instance)),
            },
            UpstreamState::Parked { limit } => {
                let until = later(caller.arrived, *limit);
                if now < until {
                    return;
                }
                return self.end_caller(number, until, Answered::Refused);
            }
            UpstreamState::Down { reason } => Answered::Failed(format!("{reason:?}")),
        };
        self.end_caller(number, now, answered);
    }

    fn end_caller(&mut self, number: usize, at: Timestamp, answered: Answered) {
        let caller = &mut self.callers.all[number];
        let waited = millis(at.since(caller.arrived));
        if let Some(route) = self.table.routes.get(&caller.host)
            && let Some(stats) = self.callers.parked.get_mut(&route.service)
        {
            stats.longest_ms = stats.longest_ms.max(waited);
            stats.refused += u64::from(answered == Answered::Refused);
        }
        caller.end = Some((at, answered));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

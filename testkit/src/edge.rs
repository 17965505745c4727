//! An edge that keeps tables and counters, and answers probes as the world's instances would.

use std::time::Duration;

use async_trait::async_trait;
use trackbed_core::InstanceId;
use trackbed_core::ports::{Edge, PortError, Probe};
use trackbed_core::route::{EdgeStats, RouteTable, Target, TargetStats, UpstreamState};

use crate::app::Answer;
use crate::clock;
use crate::faults::Faults;
use crate::world::{Happening, State, World, digest_of};

/// How long a call of the edge takes.
const CALL: Duration = Duration::from_millis(1);

/// The edge of a world.
pub struct FakeEdge {
    world: World,
    faults: Faults,
}

impl FakeEdge {
    /// Makes the edge of a world.
    pub fn new(world: World, faults: Faults) -> Self {
        Self { world, faults }
    }

    async fn put_in_force(&self, table: &RouteTable) -> Result<(), PortError> {
        tokio::time::sleep(CALL).await;
        let mut state = self.world.lock();
        if table.sequence <= state.table.sequence {
            return Ok(());
        }
        note_dead_targets(&mut state, table);
        let now = clock::now();
        state.move_callers(now);
        let was_parked = state.parked_services();
        state.table = table.clone();
        note_served(&mut state, table);
        state.begin_pauses(&was_parked);
        state.move_callers(now);
        state.note(Happening::Applied(table.clone()));
        Ok(())
    }

    async fn answer(&self, target: &Target, path: Option<&str>, host: &str, timeout: Duration) -> Probe {
        tokio::time::sleep(CALL.min(timeout)).await;
        let now = clock::now();
        let Some(instance) = self.world.instance(&target.instance) else { return Probe::Refused };
        let port = target.address.0.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        if !port.is_some_and(|port| instance.ports(now).contains(&port)) {
            return Probe::Refused;
        }
        let answered = |status, detail: &str| Probe::Answered { status, detail: detail.to_owned() };
        match (&instance.app.answer, path) {
            (_, None) => answered(200, ""),
            (Answer::Status(status, detail), Some(_)) => answered(*status, detail),
            (Answer::OnlyHost(only), Some(_)) if only == host => answered(200, "ok"),
            (Answer::OnlyHost(_), Some(_)) => answered(400, "Invalid host header"),
            (Answer::Silence, Some(_)) => {
                tokio::time::sleep(timeout).await;
                Probe::Broken { detail: "no answer in time".into() }
            }
        }
    }
}

fn note_served(state: &mut State, table: &RouteTable) {
    for route in table.routes.values() {
        if let UpstreamState::Serving { target } = &route.upstream
            && let Some(instance) = state.instances.get(&target.instance)
        {
            state.disk.served.insert(digest_of(&instance.app.name));
        }
    }
}

fn note_dead_targets(state: &mut State, table: &RouteTable) {
    let now = clock::now();
    for (host, route) in &table.routes {
        let UpstreamState::Serving { target } = &route.upstream else { continue };
        let instance = state.instances.get(&target.instance);
        let fault = match instance {
            None => "is unknown",
            // One that crashed by itself in this very moment is nobody's fault; its crash is noticed by the worker.
            Some(instance) if instance.lives(now) && instance.ports(now).is_empty() => "does not listen",
            Some(_) => continue,
        };
        state
            .violations
            .push(format!("table {} sends {host} to {}, which {fault}", table.sequence, target.instance));
    }
}

#[async_trait]
impl Edge for FakeEdge {
    async fn apply(&self, table: &RouteTable) -> Result<(), PortError> {
        self.faults.pass("edge.apply", Err, || self.put_in_force(table)).await
    }

    async fn stats(&self) -> Result<EdgeStats, PortError> {
        let read = || async {
            let mut state = self.world.lock();
            let now = clock::now();
            state.move_callers(now);
            let mut targets = state.traffic_now(now);
            for route in state.table.routes.values() {
                if let UpstreamState::Serving { target } = &route.upstream {
                    targets.entry(target.instance.clone()).or_default();
                }
            }
            Ok(EdgeStats {
                listen: "127.0.0.1:8080".into(),
                pid: 7,
                sequence: state.table.sequence,
                notices: state.notices.iter().map(|(id, all)| (id.to_string(), all.clone())).collect(),
                parked: state.parked_stats(now),
                targets: targets.into_iter().map(|(id, stats)| (id.to_string(), stats)).collect(),
                ..EdgeStats::default()
            })
        };
        self.faults.pass("edge.stats", Err, read).await
    }

    async fn end_streams(&self, instance: &InstanceId, over: Duration) -> Result<(), PortError> {
        let end = || async {
            let mut state = self.world.lock();
            let now = clock::now();
            if let Some(open) = state.traffic_now(now).remove(instance) {
                state.traffic.insert(instance.clone(), open);
            }
            state.ending.insert(instance.clone(), (now, over));
            state.note(Happening::StreamsEnded(instance.clone(), over));
            Ok(())
        };
        self.faults.pass("edge.end_streams", Err, end).await
    }

    async fn cut(&self, instance: &InstanceId) -> Result<(), PortError> {
        let cut = || async {
            let mut state = self.world.lock();
            state.traffic.insert(instance.clone(), TargetStats::default());
            state.ending.remove(instance);
            state.note(Happening::Cut(instance.clone()));
            Ok(())
        };
        self.faults.pass("edge.cut", Err, cut).await
    }

    async fn probe(&self, target: &Target, path: Option<&str>, host: &str, timeout: Duration) -> Probe {
        let answer = || self.answer(target, path, host, timeout);
        self.faults.pass("edge.probe", |error| Probe::Broken { detail: error.message }, answer).await
    }
}

//! What the edge must know, computed from the stored state alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trackbed_core::deployment::{Deployment, DeploymentState, Step};
use trackbed_core::route::{DownReason, Route, RouteTable, Target, UpstreamState};
use trackbed_core::service::{Service, Wanted};
use trackbed_core::settings::{HOLD_WINDOW_DEFAULT, Handover, STOP_GRACE_DEFAULT};

use crate::control::{Control, ControlError};
use crate::deploy::{data_patience, start_patience, waited_at_most};

/// Longest wait of a parked request: as long as the handover may take, and the start of the old release after it, so
/// that a handover which is undone has refused nobody. After the undo it goes on from the same beginning.
fn park_limit(routed: &Routed, held: Option<&Deployment>) -> Duration {
    let live = routed.service.live.as_ref();
    let waited = Duration::from_millis(live.map_or(0, |live| live.waited_ms));
    let before = match held {
        Some(held) => {
            let window = held.hold_window_ms.map_or(HOLD_WINDOW_DEFAULT, Duration::from_millis);
            let grace = routed.stop_grace.unwrap_or(STOP_GRACE_DEFAULT);
            waited_at_most(grace, window, data_patience(held))
        }
        None => Duration::ZERO,
    };
    waited + before + start_patience(live)
}

/// A service and what its route depends on.
struct Routed {
    service: Service,
    unfinished: Vec<Deployment>,
    /// Of the live release.
    stop_grace: Option<Duration>,
}

/// How often the edge is asked whether it has the table that it should have.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the table that the edge has.
#[derive(Debug, Default)]
pub(crate) struct RoutesKnown {
    /// Above zero when the edge may lack something: a table was refused, or an address could not be had.
    owed: AtomicU64,
    /// The sequence of the last table that it took.
    applied: AtomicU64,
    /// The highest sequence that it was seen with: above ours when the state comes from a backup.
    seen: AtomicU64,
}

impl Control {
    /// Computes today's table and puts it in force.
    ///
    /// # Errors
    /// When the edge cannot be reached; it goes on with the table that it has, and the next call repairs it.
    pub async fn sync_routes(&self) -> Result<(), ControlError> {
        let _in_order = self.inner.route_order.lock().await;
        let known = &self.inner.routes_known;
        let owed = known.owed.fetch_add(1, Ordering::Relaxed) + 1;
        let seen = known.seen.load(Ordering::Relaxed);
        let (sequence, services) = self
            .inner
            .store
            .with(move |db| {
                let mut services = Vec::new();
                for service in db.list_services()? {
                    let unfinished = db.list_unfinished(&service.id)?;
                    let live =
                        service.live.as_ref().map(|live| db.load_release(&live.release)).transpose()?;
                    let stop_grace = live.map(|release| release.config.stop_grace);
                    services.push(Routed { service, unfinished, stop_grace });
                }
                Ok((db.next_route_sequence(seen)?, services))
            })
            .await?;
        let mut routes = BTreeMap::new();
        let mut is_whole = true;
        for routed in services {
            let upstream = self.upstream(&routed, &mut is_whole).await;
            let Routed { service, .. } = routed;
            routes.insert(service.host, Route { service: service.id, name: service.name.into(), upstream });
        }
        let trusted_proxies = self.inner.config.trusted_proxies.clone();
        self.inner.edge.apply(&RouteTable { sequence, trusted_proxies, routes }).await?;
        known.applied.store(sequence, Ordering::Relaxed);
        if is_whole {
            // What came to be owed since the state was read stays owed.
            let _ = known.owed.compare_exchange(owed, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Looks after the edge's table: gives it again what it refused, or lost by a restart.
    pub(crate) fn spawn_route_keeper(&self) {
        let control = self.clone();
        let mut shutdown = self.inner.tasks.shutdown();
        self.inner.tasks.spawn("route keeper", async move {
            loop {
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                if let Err(error) = control.keep_routes().await {
                    tracing::warn!(%error, "the edge did not take the routes; trying again");
                }
            }
        });
    }

    /// Says that the edge lacks something; the keeper tells it.
    pub(crate) fn owe_routes(&self) {
        self.inner.routes_known.owed.fetch_add(1, Ordering::Relaxed);
    }

    async fn keep_routes(&self) -> Result<(), ControlError> {
        let known = &self.inner.routes_known;
        let stats = self.inner.edge.stats().await?;
        let has = stats.sequence;
        known.seen.fetch_max(has, Ordering::Relaxed);
        if known.owed.load(Ordering::Relaxed) > 0 || has != known.applied.load(Ordering::Relaxed) {
            self.sync_routes().await?;
        }
        self.heed_notices(&stats).await
    }

    /// Clears `is_whole` when the answer is only for want of an address.
    async fn upstream(&self, routed: &Routed, is_whole: &mut bool) -> UpstreamState {
        let Routed { service, unfinished, .. } = routed;
        let held = unfinished.iter().find(|deployment| {
            let held = deployment.handover == Some(Handover::Held);
            // Until the switch is stored, nobody serves; from then on the new release does.
            let switches = deployment.step == Step::Switch && deployment.state != DeploymentState::Success;
            held && (deployment.step.parks() || switches) && deployment.previous.is_some()
        });
        let parked = UpstreamState::Parked { limit: park_limit(routed, held) };
        if service.wanted == Wanted::Stopped {
            return UpstreamState::Down { reason: DownReason::Stopped };
        }
        // A job serves nobody; it is not worth a word of its own that an older edge would not know.
        if service.live.as_ref().is_some_and(|live| live.job.is_some()) {
            return UpstreamState::Down { reason: DownReason::Stopped };
        }
        if held.is_some() {
            return parked;
        }
        let Some(live) = &service.live else {
            let reason = if unfinished.is_empty() { DownReason::Undeployed } else { DownReason::Starting };
            return UpstreamState::Down { reason };
        };
        if live.given_up.is_some() {
            return UpstreamState::Down { reason: DownReason::Crashed };
        }
        // Between a crash and the restart there is no port: callers wait rather than fail.
        let (Some(instance), Some(port)) = (&live.instance, live.port) else { return parked };
        match self.inner.engine.address(instance, port).await {
            Ok(address) => UpstreamState::Serving { target: Target { instance: instance.clone(), address } },
            // It has ended, which its worker will see, or the engine has to be asked again.
            Err(_) => {
                *is_whole = false;
                parked
            }
        }
    }
}

//! What the edge must know, computed from the stored state alone.

use std::collections::BTreeMap;
use std::time::Duration;

use trackbed_core::deployment::Deployment;
use trackbed_core::route::{DownReason, Route, RouteTable, Target, UpstreamState};
use trackbed_core::service::{Service, Wanted};
use trackbed_core::settings::Handover;

use crate::control::{Control, ControlError};

/// Longest wait of a parked request. Longer than most starts, shorter than most clients' own patience.
pub(crate) const PARK_LIMIT: Duration = Duration::from_secs(30);

impl Control {
    /// Computes today's table and puts it in force.
    ///
    /// # Errors
    /// When the edge cannot be reached; it goes on with the table that it has, and the next call repairs it.
    pub async fn sync_routes(&self) -> Result<(), ControlError> {
        let _in_order = self.inner.route_order.lock().await;
        let (sequence, services) = self
            .inner
            .store
            .with(|db| {
                let mut services = Vec::new();
                for service in db.list_services()? {
                    let unfinished = db.list_unfinished(&service.id)?;
                    services.push((service, unfinished));
                }
                Ok((db.next_route_sequence()?, services))
            })
            .await?;
        let mut routes = BTreeMap::new();
        for (service, unfinished) in services {
            let upstream = self.upstream(&service, &unfinished).await;
            let route = Route { service: service.id.clone(), name: service.name.to_string(), upstream };
            routes.insert(service.host.clone(), route);
        }
        self.inner.edge.apply(&RouteTable { sequence, routes }).await?;
        Ok(())
    }

    async fn upstream(&self, service: &Service, unfinished: &[Deployment]) -> UpstreamState {
        let is_held = unfinished.iter().any(|deployment| {
            let held = deployment.handover == Some(Handover::Held);
            held && deployment.step.parks() && deployment.previous.is_some()
        });
        let parked = UpstreamState::Parked { limit: PARK_LIMIT };
        if service.wanted == Wanted::Stopped {
            return UpstreamState::Down { reason: DownReason::Stopped };
        }
        if is_held {
            return parked;
        }
        let Some(live) = &service.live else { return UpstreamState::Down { reason: DownReason::Starting } };
        if live.given_up.is_some() {
            return UpstreamState::Down { reason: DownReason::Crashed };
        }
        // Between a crash and the restart there is no port: callers wait rather than fail.
        let (Some(instance), Some(port)) = (&live.instance, live.port) else { return parked };
        match self.inner.engine.address(instance, port).await {
            Ok(address) => UpstreamState::Serving { target: Target { instance: instance.clone(), address } },
            Err(_) => parked,
        }
    }
}

//! The state of a box that was recovered on another machine, made ready for its first start there.

use trackbed_core::Timestamp;
use trackbed_core::deployment::{DeploymentState, Failure};
use trackbed_core::release::Release;
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::service::{Live, Service, Wanted};
use trackbed_core::volume::Volume;
use trackbed_store::Store;

use crate::control::ControlError;

/// What a recovered state says.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// All services.
    pub services: Vec<Service>,
    /// The live release of each service that shall run.
    pub releases: Vec<Release>,
    /// All volumes that were not removed, each with its points, newest first.
    pub volumes: Vec<(Volume, Vec<RestorePoint>)>,
}

/// Ends what was under way when the state was copied, forgets instances that ran on the other machine, so that the next
/// start brings every service up that shall run, and returns what there is. May be repeated.
///
/// # Errors
/// When the state cannot be read or written.
pub async fn settle_recovered(store: &Store, now: Timestamp) -> Result<Recovered, ControlError> {
    let settled = store.with(move |db| {
        for mut deployment in db.list_all_unfinished()? {
            if deployment.state != DeploymentState::Success {
                deployment.state = DeploymentState::Failed;
                deployment.failure = Some(Failure {
                    stage: deployment.step,
                    reason: "the box was recovered from its copies while this was under way".into(),
                    hint: Some("deploy again".into()),
                    log_tail: Vec::new(),
                });
            }
            deployment.finished_at = Some(now);
            db.update_deployment(&deployment)?;
        }
        let services = db.list_services()?;
        let (mut releases, mut volumes) = (Vec::new(), Vec::new());
        for service in &services {
            if let Some(live) = service.live.clone() {
                if service.wanted == Wanted::Running {
                    releases.push(db.load_release(&live.release)?);
                }
                db.set_live(&service.id, &Live { instance: None, port: None, restarts: 0, ..live })?;
            }
            for volume in db.list_volumes(&service.id)? {
                let points = db.list_restore_points(&volume.id)?;
                volumes.push((volume, points));
            }
        }
        Ok(Recovered { services, releases, volumes })
    });
    Ok(settled.await?)
}

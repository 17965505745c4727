//! Undoing a deployment that ended before its switch. Repeating it is fine.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use trackbed_core::VolumeId;
use trackbed_core::deployment::{DataWish, Deployment, DeploymentEvent, EventKind, Withdrawal};
use trackbed_core::service::Wanted;

use super::deadlines::retries_of_undo;
use super::hold::{data_patience, waited_at_most};
use super::{RETRY, chain};
use crate::control::{Control, ControlError};

/// A release that failed gets little time to end: callers of the old one may be waiting.
pub(super) const UNDO_GRACE: Duration = Duration::from_secs(2);

/// How undoing came out.
#[derive(Default)]
struct Undone {
    /// Whether the old release is stopped.
    was_stopped: bool,
    /// Volumes that may not be as they were, with the point to go back to.
    unsettled: Vec<DataWish>,
    /// The error that was left.
    why: String,
}

impl Control {
    /// Stops the new instance and marks the deployment with how it ended. The old release was either never touched, or
    /// has been stopped by a `held` handover: then `live` still names it, and [`Control::supervise`] starts it again,
    /// with the requests parked until it is healthy.
    pub(super) async fn undo(&self, mut deployment: Deployment) -> Result<(), ControlError> {
        let Undone { was_stopped, unsettled, why } = self.put_back_in_time(&mut deployment).await?;
        let service = self.load_service(&deployment).await?;
        let mut live = service.live.clone();
        if let Some(live) = &mut live
            && was_stopped
            && live.instance == deployment.old_instance
        {
            live.instance = None;
            live.port = None;
            live.restarts = 0;
            // Those who are parked have waited for this deployment already, and wait on for the old release.
            let release = live.release.clone();
            let grace = self.inner.store.with(move |db| db.load_release(&release)).await?.config.stop_grace;
            let window = Duration::from_millis(deployment.hold_window_ms.unwrap_or_default());
            let waited = u64::try_from(waited_at_most(grace, window, data_patience(&deployment)).as_millis())
                .unwrap_or(u64::MAX);
            // Perhaps for an earlier one, too, that was undone before.
            live.waited_ms = live.waited_ms.saturating_add(waited);
        }
        let mut refusal = None;
        if !unsettled.is_empty() {
            let text = self.data_refusal(&deployment, live.as_ref(), &unsettled, &why).await?;
            if let Some(live) = &mut live {
                // From the transaction below on nobody starts it by himself, whatever dies when.
                live.instance = None;
                live.port = None;
                live.restarts = 0;
                live.waited_ms = 0;
                live.given_up = Some(text.clone());
                for before in unsettled {
                    // An earlier failure has the older data; later ones began on what it left.
                    if !live.unsettled.iter().any(|known| known.volume == before.volume) {
                        live.unsettled.push(before);
                    }
                }
            }
            tracing::error!(deployment = %deployment.id, text, "data could not be put back");
            refusal = Some(self.news_of(deployment.step, EventKind::Warning, &text));
            deployment.data_undone = Some(text);
        }
        let is_refused = refusal.is_some();
        self.end_hold(&deployment.service);
        let event = match &deployment.withdrawal {
            _ if deployment.failure.is_some() => DeploymentEvent::WasUndone,
            Some(Withdrawal::Superseded { .. }) => DeploymentEvent::WasSuperseded,
            Some(Withdrawal::Skipped { .. }) => DeploymentEvent::WasSkipped,
            Some(Withdrawal::Cancelled) | None => DeploymentEvent::WasCancelled,
        };
        deployment.state = deployment
            .state
            .apply(event)
            .map_err(|refused| ControlError::Conflict { message: refused.to_string(), hint: None })?;
        deployment.finished_at = Some(self.now());
        let (id, copy) = (service.id.clone(), deployment.clone());
        self.inner
            .store
            .with(move |db| {
                if let Some(live) = &live {
                    db.set_live(&id, live)?;
                }
                if let Some(refusal) = refusal {
                    db.add_event(&copy.id, refusal)?;
                }
                db.update_deployment(&copy)
            })
            .await?;
        self.announce();
        if let Err(error) = self.sync_routes().await {
            tracing::warn!(%error, "the edge will hear of the undo later");
        }
        let text = match (&service.live, was_stopped) {
            (None, _) => "nothing is live yet",
            (Some(_), _) if service.wanted == Wanted::Stopped => "the service stays stopped",
            (Some(_), _) if is_refused => {
                "the previous release is not started: its data could not be put back"
            }
            (Some(_), false) => "the previous release keeps serving",
            (Some(_), true) => "the previous release is started again; requests wait for it",
        };
        self.event(&deployment, EventKind::Note, text).await
    }

    /// Ends what the deployment has started, and puts its data back. What cannot be ended within the limit is left to the
    /// sweeper; data that cannot be put back is left to the owner.
    async fn put_back_in_time(&self, deployment: &mut Deployment) -> Result<Undone, ControlError> {
        let (deadline, limit) = self.deadline(deployment).await?;
        let retried_until = deadline.min(Instant::now() + retries_of_undo(deployment, limit));
        let began = Instant::now();
        let mut settled = Vec::new();
        let mut last = None;
        loop {
            // A call that hangs once may be answered the second time.
            let attempt = deadline.min(Instant::now() + limit / 2);
            settled.clear();
            let error = match timeout_at(attempt, self.put_back(deployment, &mut settled)).await {
                Ok(Ok(was_stopped)) => return Ok(Undone { was_stopped, ..Undone::default() }),
                Ok(Err(error)) => chain(&error),
                Err(_) => "a part of it gives no answer".to_owned(),
            };
            tracing::warn!(deployment = %deployment.id, error, "undoing is tried again");
            if last.is_none() {
                let text = format!("undoing does not get on, and is tried again: {error}");
                self.event(deployment, EventKind::Warning, &text).await?;
            }
            last = Some(error);
            if Instant::now() >= retried_until {
                break;
            }
            sleep(RETRY).await;
        }
        let why = last.unwrap_or_default();
        let unsettled = self.unsettled(deployment, &settled).await?;
        let text = format!(
            "undoing was not done within {} s ({why}); the box goes on ending what is left",
            began.elapsed().as_secs()
        );
        tracing::error!(deployment = %deployment.id, text, "an undo is left to be finished");
        self.event(deployment, EventKind::Warning, &text).await?;
        let was_stopped = match &deployment.old_instance {
            // When even that cannot be told, whoever looks after the live release will find out.
            Some(old) => self.ended(old).await.is_ok_and(|end| end.is_some()),
            None => false,
        };
        Ok(Undone { was_stopped, unsettled, why })
    }

    /// Returns the volumes that a deployment may have changed and that are not known to be as they were.
    async fn unsettled(
        &self,
        deployment: &Deployment,
        settled: &[VolumeId],
    ) -> Result<Vec<DataWish>, ControlError> {
        let service = self.load_service(deployment).await?;
        let volumes = self.volumes(&service).await?;
        let left = deployment.may_have_changed().filter(|before| {
            let is_there = volumes.iter().any(|volume| volume.id == before.volume);
            is_there && !settled.contains(&before.volume)
        });
        Ok(left.collect())
    }

    async fn put_back(
        &self,
        deployment: &mut Deployment,
        settled: &mut Vec<VolumeId>,
    ) -> Result<bool, ControlError> {
        for instance in deployment.pre_deploy.iter().chain(&deployment.instance) {
            self.inner.engine.stop(instance, UNDO_GRACE).await?;
        }
        let old = deployment.old_instance.clone();
        if let Some(old) = &old
            && deployment.has_touched_old()
        {
            // It may have been told to stop and live still: requests must not go to what is about to end.
            let grace = self.grace_of_previous(deployment).await?;
            if let Err(error) = self.inner.engine.stop(old, grace).await {
                // Callers have been waiting long: what cannot be ended serves on.
                tracing::warn!(instance = %old, %error, "the old release could not be ended");
            }
        }
        // Nobody runs now, and the old release is not started before this deployment has its end.
        self.put_data_back(deployment, settled).await?;
        match &old {
            Some(old) => Ok(self.ended(old).await?.is_some()),
            None => Ok(false),
        }
    }

    async fn grace_of_previous(&self, deployment: &Deployment) -> Result<Duration, ControlError> {
        let Some(release) = deployment.previous.clone() else { return Ok(UNDO_GRACE) };
        Ok(self.inner.store.with(move |db| db.load_release(&release)).await?.config.stop_grace)
    }
}

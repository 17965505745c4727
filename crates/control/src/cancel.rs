//! Cancelling a deployment: the wish is stored beside it, and its worker ends and undoes it at once.

use trackbed_core::deployment::{Deployment, DeploymentEvent, DeploymentState, Event, EventKind, Withdrawal};
use trackbed_core::service::Service;
use trackbed_core::{DeploymentId, Name, Timestamp};
use trackbed_store::{Db, StoreError};

use crate::control::{Control, ControlError};
use crate::deploy::told;

impl Control {
    /// Asks that a service's deployments under way are cancelled. Returns the one that is being undone, else the newest;
    /// it ends as cancelled, unless it had already failed.
    ///
    /// # Errors
    /// When there is no such service, or nothing that can be cancelled.
    pub async fn request_cancel(&self, project: &Name, service: &Name) -> Result<Deployment, ControlError> {
        let service = self.service(project, service).await?;
        self.cancel(service, None).await
    }

    /// Asks that one deployment is cancelled.
    ///
    /// # Errors
    /// When there is none, or it has ended or is live.
    pub async fn request_cancel_of(&self, id: &DeploymentId) -> Result<Deployment, ControlError> {
        let deployment = self.deployment(id).await?;
        let (service, _) = self.around(&deployment).await?;
        self.cancel(service, Some(id.clone())).await
    }

    async fn cancel(&self, service: Service, only: Option<DeploymentId>) -> Result<Deployment, ControlError> {
        let (id, now) = (service.id.clone(), self.now());
        // In the transaction that also rules out a switch: what is accepted here never becomes live.
        let cancelled = self.inner.store.with(move |db| {
            let asked = match only {
                Some(only) => vec![db.load_deployment(&only)?],
                None => db.list_unfinished(&service.id)?,
            };
            let (over, under_way): (Vec<_>, Vec<_>) =
                asked.into_iter().partition(|deployment| deployment.state.is_terminal());
            if under_way.is_empty() {
                return Ok(Err(refusal(&service, over.last())));
            }
            let mut cancelled = Vec::new();
            for deployment in under_way {
                cancelled.push(if is_waiting(&deployment) {
                    withdraw(db, deployment, Withdrawal::Cancelled, now)?
                } else {
                    db.ask_cancel(&deployment.id)?;
                    deployment
                });
            }
            let begun = cancelled.iter().position(|deployment| !deployment.state.is_terminal());
            Ok(Ok(cancelled.swap_remove(begun.unwrap_or(cancelled.len() - 1))))
        });
        let cancelled = cancelled.await?;
        // A service whose first deployment never began has no route yet.
        self.owe_routes();
        self.announce();
        self.wake(&id);
        cancelled
    }
}

fn refusal(service: &Service, over: Option<&Deployment>) -> ControlError {
    let back = || Some("trackbed rollback goes back to the release before".to_owned());
    let (message, hint) = match over {
        Some(Deployment { id, state: DeploymentState::Success, .. }) => (
            format!("deployment {id} of service `{}` is live and can no longer be cancelled", service.name),
            back(),
        ),
        Some(Deployment { id, .. }) => (format!("deployment {id} has ended already"), None),
        None => (format!("service `{}` has no deployment under way", service.name), back()),
    };
    ControlError::Conflict { message, hint }
}

/// Returns whether nothing of a deployment has begun, so that whoever asks may end it.
pub(crate) fn is_waiting(deployment: &Deployment) -> bool {
    deployment.state == DeploymentState::Queued && deployment.entered.is_none() && !deployment.is_given_up()
}

/// Ends a deployment of which nothing has begun. Returns it as it ended.
pub(crate) fn withdraw(
    db: &Db<'_>,
    mut deployment: Deployment,
    withdrawal: Withdrawal,
    now: Timestamp,
) -> Result<Deployment, StoreError> {
    let event = match &withdrawal {
        Withdrawal::Cancelled => DeploymentEvent::WasCancelled,
        Withdrawal::Superseded { .. } => DeploymentEvent::WasSuperseded,
        Withdrawal::Skipped { .. } => DeploymentEvent::WasSkipped,
    };
    let state = deployment.state.apply(event);
    deployment.state = state.map_err(|refused| StoreError::Conflict(refused.to_string()))?;
    deployment.finished_at = Some(now);
    let message = told(&withdrawal);
    deployment.withdrawal = Some(withdrawal);
    db.update_deployment(&deployment)?;
    let step = deployment.step;
    db.add_event(&deployment.id, Event { sequence: 0, at: now, step, kind: EventKind::Note, message })?;
    Ok(deployment)
}

//! Drives a deployment through its steps: forward until the route has switched, or back to where it began.
//!
//! Each step is stored before it is taken and may be taken again. What a step needs from an earlier one is in the
//! deployment itself, never in memory, so that another `serve` can go on in the middle.

mod drain;
mod handover;
mod hold;
mod preflight;
mod preparing;
mod undo;

pub(crate) use hold::{start_patience, waited_at_most};

use std::time::Duration;

use trackbed_core::deployment::{
    Deployment, DeploymentEvent, DeploymentState, Event, EventKind, Failure, Step,
};
use trackbed_core::ports::PortError;
use trackbed_core::service::Service;
use trackbed_core::settings::Handover;
use trackbed_core::{ServiceId, Timestamp};
use trackbed_store::StoreError;

use crate::control::{Control, ControlError, Moment};

/// Pause between attempts at a step that can no longer be undone.
const FORWARD_RETRY: Duration = Duration::from_secs(1);

/// A step that failed for a reason that the owner should read. Errors of our own (disk, database) stay
/// [`ControlError`]s: the pass ends and is tried again.
pub(crate) enum StepError {
    /// The deployment fails with this.
    Failed(Box<Failure>),
    /// Not the deployment's fault.
    Ours(ControlError),
}

impl From<ControlError> for StepError {
    fn from(error: ControlError) -> Self {
        StepError::Ours(error)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        StepError::Ours(error.into())
    }
}

fn stopped(stage: Step) -> Failure {
    Failure {
        stage,
        reason: "the service was stopped before this deployment was live".into(),
        hint: Some("deploy it again: trackbed up".into()),
        log_tail: Vec::new(),
    }
}

/// Makes a failure from what a port said.
pub(crate) fn failed(stage: Step, error: PortError, log_tail: Vec<String>) -> StepError {
    StepError::Failed(Box::new(Failure { stage, reason: error.message, hint: error.hint, log_tail }))
}

impl Control {
    /// Takes a deployment to its end. Safe to drop at any await and to call again.
    pub(crate) async fn drive(&self, mut deployment: Deployment) -> Result<(), ControlError> {
        loop {
            if deployment.failure.is_some() {
                return self.undo(deployment).await;
            }
            let step = deployment.step;
            if step.can_undo() && self.is_stopped(&deployment.service, deployment.created_at).await? {
                self.fail(&mut deployment, stopped(step)).await?;
                continue;
            }
            self.enter(&mut deployment, step).await?;
            self.reach(step, Moment::Before);
            let service = self.load_service(&deployment).await?;
            // A build, a slow start or a drain may take long; what is live is looked after meanwhile, unless it is the
            // very thing that the step moves.
            let beside = match step {
                Step::Plan | Step::Build | Step::Release | Step::Retire => true,
                Step::Start | Step::Health => deployment.handover == Some(Handover::Overlap),
                Step::Check | Step::Drain | Step::Park | Step::Stop | Step::Switch => false,
            };
            let gives_way = matches!(step, Step::Build | Step::Drain | Step::Health);
            let asked_at = deployment.created_at;
            let taken = tokio::select! {
                taken = self.take(&service, &mut deployment, step) => taken,
                () = self.keep_supervising(&service.id), if beside => continue,
                () = self.until_stopped(&service.id, asked_at), if gives_way => continue,
            };
            match taken {
                Ok(()) => {}
                Err(StepError::Failed(failure)) if step.can_undo() => {
                    self.fail(&mut deployment, *failure).await?;
                    continue;
                }
                Err(StepError::Failed(failure)) => {
                    tracing::warn!(deployment = %deployment.id, step = step.as_str(), reason = failure.reason, "trying again");
                    tokio::time::sleep(FORWARD_RETRY).await;
                    continue;
                }
                Err(StepError::Ours(error)) => return Err(error),
            }
            self.reach(step, Moment::After);
            let done = self.news_of(step, EventKind::Done, step.as_str());
            let next = step.next(deployment.handover.unwrap_or(Handover::Overlap));
            match next {
                Some(next) => deployment.step = next,
                None => deployment.finished_at = Some(self.now()),
            }
            self.save_with(&deployment, done).await?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Stores that a deployment failed, and says so.
    async fn fail(&self, deployment: &mut Deployment, failure: Failure) -> Result<(), ControlError> {
        let news = self.news_of(deployment.step, EventKind::Failed, &failure.reason);
        deployment.failure = Some(failure);
        self.save_with(deployment, news).await
    }

    /// Returns whether the owner has stopped the service after a deployment was asked for.
    async fn is_stopped(&self, id: &ServiceId, since: Timestamp) -> Result<bool, ControlError> {
        let id = id.clone();
        Ok(self.inner.store.with(move |db| db.was_stopped_after(&id, since)).await?)
    }

    /// Returns when the owner stops the service.
    async fn until_stopped(&self, id: &ServiceId, since: Timestamp) {
        let mut news = self.news();
        while !self.is_stopped(id, since).await.unwrap_or(false) {
            if news.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Marks the beginning of a step, and moves the state along with it.
    async fn enter(&self, deployment: &mut Deployment, step: Step) -> Result<(), ControlError> {
        if deployment.entered == Some(step) {
            return Ok(());
        }
        deployment.entered = Some(step);
        let event = match step {
            Step::Plan | Step::Build | Step::Release => DeploymentEvent::BuildBegan,
            Step::Check | Step::Drain | Step::Park | Step::Stop | Step::Start | Step::Health => {
                DeploymentEvent::DeployBegan
            }
            Step::Switch => DeploymentEvent::DeployBegan,
            Step::Retire => DeploymentEvent::BecameLive,
        };
        if deployment.state != DeploymentState::Success {
            deployment.state = deployment
                .state
                .apply(event)
                .map_err(|refused| ControlError::Conflict { message: refused.to_string(), hint: None })?;
        }
        self.save_with(deployment, self.news_of(step, EventKind::Started, step.as_str())).await
    }

    async fn take(
        &self,
        service: &Service,
        deployment: &mut Deployment,
        step: Step,
    ) -> Result<(), StepError> {
        match step {
            Step::Plan => self.plan_source(service, deployment).await,
            Step::Build => self.build_image(service, deployment).await,
            Step::Release => self.write_release(service, deployment).await,
            Step::Check => self.check_before_touching(service, deployment).await,
            Step::Drain => self.drain_streams(deployment).await,
            Step::Park => self.park_requests(deployment).await,
            Step::Stop => self.stop_old(deployment).await,
            Step::Start => self.start_new(service, deployment).await,
            Step::Health => self.gate_new(service, deployment).await,
            Step::Switch => self.switch_route(service, deployment).await,
            Step::Retire => self.retire_old(deployment).await,
        }
    }

    pub(crate) async fn load_service(&self, deployment: &Deployment) -> Result<Service, ControlError> {
        let id = deployment.service.clone();
        Ok(self.inner.store.with(move |db| db.load_service(&id)).await?)
    }

    /// Stores a deployment and an event of it in one transaction: it never fails twice, nor fails and goes on; and each
    /// transaction is a wait for the disk that somebody's parked request may be part of.
    async fn save_with(&self, deployment: &Deployment, event: Event) -> Result<(), ControlError> {
        let copy = deployment.clone();
        self.inner
            .store
            .with(move |db| {
                db.update_deployment(&copy)?;
                db.add_event(&copy.id, event)
            })
            .await?;
        self.announce();
        Ok(())
    }

    /// Adds an event for whoever watches.
    pub(crate) async fn event(
        &self,
        deployment: &Deployment,
        kind: EventKind,
        message: &str,
    ) -> Result<(), ControlError> {
        let event = self.news_of(deployment.step, kind, message);
        let id = deployment.id.clone();
        self.inner.store.with(move |db| db.add_event(&id, event)).await?;
        self.announce();
        Ok(())
    }

    fn news_of(&self, step: Step, kind: EventKind, message: &str) -> Event {
        Event { sequence: 0, at: self.now(), step, kind, message: message.to_owned() }
    }
}

//! Drives a deployment through its steps: forward until the route has switched, or back to where it began.
//!
//! Each step is stored before it is taken and may be taken again. What a step needs from an earlier one is in the
//! deployment itself, never in memory, so that another `serve` can go on in the middle. Each has a deadline
//! ([`deadlines`]), and each that can be undone ends when the deployment is recalled ([`recall`]).

mod deadlines;
mod drain;
mod findings;
mod handover;
mod hold;
mod pin;
mod points;
mod pre_deploy;
mod preflight;
mod preparing;
mod put_back;
mod recall;
mod records;
mod rehearse;
mod stage;
mod undo;
mod watch;

pub(crate) use hold::{data_patience, start_patience, waited_at_most};

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use trackbed_core::deployment::{
    Deployment, DeploymentEvent, DeploymentState, EventKind, Failure, Step, Stopwatch, Withdrawal,
};
use trackbed_core::ports::PortError;
use trackbed_core::service::Service;
use trackbed_core::settings::Handover;
use trackbed_store::StoreError;

use crate::control::{Control, ControlError, Moment};
use recall::{Recall, Verdict};

/// Pause between attempts at something that did not work for a reason of our own, or that can no longer be undone.
const RETRY: Duration = Duration::from_secs(1);

/// Why a step was not done.
pub(crate) enum StepError {
    /// The deployment fails with this, which its owner should read.
    Failed(Box<Failure>),
    /// Not the deployment's fault (disk, database, edge): the step is tried again until its deadline.
    Ours(ControlError),
    /// The deployment was recalled at the last moment.
    Recalled,
    /// The step found that the deployment is not worth doing.
    Withdrawn(Withdrawal),
}

/// How a step came out.
enum Outcome {
    /// It is done.
    Done,
    /// Its deadline is over after the point of no return: what is left of it is owed to whoever keeps things in order.
    Owed,
    /// The deployment is given up.
    GivenUp,
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

/// Makes a failure from what a port said.
pub(crate) fn failed(stage: Step, error: PortError, log_tail: Vec<String>) -> StepError {
    StepError::Failed(Box::new(Failure { stage, reason: error.message, hint: error.hint, log_tail }))
}

impl Control {
    /// Takes a deployment to its end. Safe to drop at any await and to call again.
    pub(crate) async fn drive(&self, mut deployment: Deployment) -> Result<(), ControlError> {
        self.take_up(&mut deployment).await?;
        loop {
            if deployment.is_given_up() {
                return self.undo(deployment).await;
            }
            let is_ours = match self.recalled(&deployment).await? {
                Some(recall) => self.give_up(&mut deployment, recall).await?,
                None => self.enter(&mut deployment).await?,
            };
            if !is_ours {
                return Ok(());
            }
            if deployment.is_given_up() {
                continue;
            }
            let step = deployment.step;
            self.reach(step, Moment::Before);
            let outcome = Box::pin(self.take_in_time(&mut deployment)).await?;
            if matches!(outcome, Outcome::GivenUp) {
                continue;
            }
            self.reach(step, Moment::After);
            let next = step.next(deployment.handover.unwrap_or(Handover::Overlap));
            match next {
                Some(next) => deployment.step = next,
                None => deployment.finished_at = Some(self.now()),
            }
            match outcome {
                Outcome::Done => {
                    let done = self.news_of(step, EventKind::Done, step.as_str());
                    self.save_with(&deployment, done).await?;
                }
                Outcome::Owed | Outcome::GivenUp => self.save(&deployment).await?,
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Counts that a step, or the undoing, which was begun before is taken up again: its deadline depends on it.
    async fn take_up(&self, deployment: &mut Deployment) -> Result<(), ControlError> {
        if deployment.entered != Some(deployment.step) && !deployment.is_given_up() {
            return Ok(());
        }
        let stopwatch = deployment.stopwatch.get_or_insert(Stopwatch::begin(self.now()));
        stopwatch.resumed = stopwatch.resumed.saturating_add(1);
        self.save(deployment).await
    }

    /// Returns the moment at which the step, or the undoing, has taken too long, and the whole limit.
    async fn deadline(&self, deployment: &Deployment) -> Result<(Instant, Duration), ControlError> {
        let limit = self.time_limit(deployment).await?;
        let now = self.now();
        let stopwatch = deployment.stopwatch.unwrap_or(Stopwatch::begin(now));
        Ok((Instant::now() + stopwatch.left(limit, now), limit))
    }

    /// Takes a step, again and again until it is done, fails, is recalled, or has no time left.
    async fn take_in_time(&self, deployment: &mut Deployment) -> Result<Outcome, ControlError> {
        let step = deployment.step;
        let (deadline, limit) = self.deadline(deployment).await?;
        // A build, a slow start or a drain may take long; what is live is looked after meanwhile, unless it is the very
        // thing that the step moves.
        let beside = match step {
            Step::Plan | Step::Build | Step::Release | Step::Retire => true,
            // A release that was stopped for an earlier deployment is not started for a moment only.
            Step::Stage => deployment.old_instance.is_some() || !deployment.restore.is_empty(),
            Step::Rehearse => deployment.old_instance.is_some() || deployment.rehearsal.is_some(),
            Step::Start | Step::Health => deployment.handover == Some(Handover::Overlap),
            Step::Check | Step::Drain | Step::Park | Step::Stop => false,
            Step::Pin | Step::Swap | Step::Switch => false,
            Step::PreDeploy => deployment.handover == Some(Handover::Overlap),
        };
        // An order to stop cannot be taken back, so it is carried out; and a swap that is under way must not meet the
        // one that takes it back.
        let gives_way = step.can_undo() && !matches!(step, Step::Stop | Step::Swap);
        let mut last = None;
        loop {
            let service = self.load_service(deployment).await?;
            let as_begun = deployment.clone();
            let mut recall = None;
            let taken = tokio::select! {
                taken = self.take(&service, deployment, step) => taken,
                () = self.keep_supervising(&service.id), if beside => continue,
                due = self.until_recalled(&as_begun), if gives_way => {
                    recall = Some(due);
                    Err(StepError::Recalled)
                }
                () = sleep_until(deadline) => {
                    let failure = deadlines::overrun(step, limit, last);
                    *deployment = self.reload(deployment).await?;
                    if deployment.state != DeploymentState::Success {
                        self.fail(deployment, failure).await?;
                        return Ok(Outcome::GivenUp);
                    }
                    let owed = format!("{}; the box goes on trying", failure.reason);
                    tracing::error!(deployment = %deployment.id, owed, "a step is left to be finished");
                    self.owe_routes();
                    self.event(deployment, EventKind::Warning, &owed).await?;
                    return Ok(Outcome::Owed);
                }
            };
            let error = match taken {
                Ok(()) => return Ok(Outcome::Done),
                Err(StepError::Recalled) => {
                    // What was handed to the database before is stored by now.
                    *deployment = self.reload(deployment).await?;
                    if recall.is_none() {
                        recall = self.recalled(deployment).await?;
                    }
                    let Some(recall) = recall else { continue };
                    self.give_up(deployment, recall).await?;
                    return Ok(Outcome::GivenUp);
                }
                Err(StepError::Withdrawn(withdrawal)) if deployment.state != DeploymentState::Success => {
                    let news = self.news_of(deployment.step, EventKind::Note, &told(&withdrawal));
                    deployment.withdrawal = Some(withdrawal);
                    deployment.stopwatch = Some(Stopwatch::begin(self.now()));
                    self.save_with(deployment, news).await?;
                    return Ok(Outcome::GivenUp);
                }
                Err(StepError::Failed(failure)) if deployment.state != DeploymentState::Success => {
                    self.fail(deployment, *failure).await?;
                    return Ok(Outcome::GivenUp);
                }
                Err(StepError::Withdrawn(withdrawal)) => told(&withdrawal),
                Err(StepError::Failed(failure)) => failure.reason,
                Err(StepError::Ours(error)) => chain(&error),
            };
            tracing::warn!(deployment = %deployment.id, step = step.as_str(), error, "trying again");
            if last.is_none() {
                let text = format!("step {} does not get on, and is tried again: {error}", step.as_str());
                self.event(deployment, EventKind::Warning, &text).await?;
            }
            last = Some(error);
            sleep(RETRY).await;
        }
    }

    /// Stores that a deployment failed, and says so.
    async fn fail(&self, deployment: &mut Deployment, failure: Failure) -> Result<(), ControlError> {
        let news = self.news_of(deployment.step, EventKind::Failed, &failure.reason);
        deployment.failure = Some(failure);
        deployment.stopwatch = Some(Stopwatch::begin(self.now()));
        self.save_with(deployment, news).await
    }

    /// Stores that a deployment is given up because it was recalled, and says so. Returns false when it has ended already.
    async fn give_up(&self, deployment: &mut Deployment, recall: Recall) -> Result<bool, ControlError> {
        let news = match recall.verdict(deployment.step) {
            Verdict::Fails(failure) => {
                let news = self.news_of(deployment.step, EventKind::Failed, &failure.reason);
                deployment.failure = Some(failure);
                news
            }
            Verdict::Withdrawn(withdrawal) => {
                let text = told(&withdrawal);
                deployment.withdrawal = Some(withdrawal);
                self.news_of(deployment.step, EventKind::Note, &text)
            }
        };
        deployment.stopwatch = Some(Stopwatch::begin(self.now()));
        self.save_unless_ended(deployment, news).await
    }

    /// Marks the beginning of a step, and moves the state along with it. Returns false when the deployment has ended: one
    /// that waits may be ended by whoever asks for that.
    async fn enter(&self, deployment: &mut Deployment) -> Result<bool, ControlError> {
        let step = deployment.step;
        if deployment.entered == Some(step) {
            return Ok(true);
        }
        deployment.entered = Some(step);
        deployment.stopwatch = Some(Stopwatch::begin(self.now()));
        let event = match step {
            Step::Plan | Step::Build | Step::Release => DeploymentEvent::BuildBegan,
            Step::Check | Step::Stage | Step::Rehearse | Step::Drain | Step::Park | Step::Stop => {
                DeploymentEvent::DeployBegan
            }
            Step::Pin | Step::Swap | Step::PreDeploy => DeploymentEvent::DeployBegan,
            Step::Start | Step::Health | Step::Switch => DeploymentEvent::DeployBegan,
            Step::Retire => DeploymentEvent::BecameLive,
        };
        if deployment.state != DeploymentState::Success {
            deployment.state = deployment
                .state
                .apply(event)
                .map_err(|refused| ControlError::Conflict { message: refused.to_string(), hint: None })?;
        }
        let news = self.news_of(step, EventKind::Started, step.as_str());
        self.save_unless_ended(deployment, news).await
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
            Step::Stage => self.stage_data(service, deployment).await,
            Step::Rehearse => self.rehearse(service, deployment).await,
            Step::Drain => self.drain_streams(service, deployment).await,
            Step::Park => self.park_requests(deployment).await,
            Step::Stop => self.stop_old(deployment).await,
            Step::Pin => self.pin_data(service, deployment).await,
            Step::Swap => self.swap_data(service, deployment).await,
            Step::PreDeploy => self.pre_deploy(service, deployment).await,
            Step::Start => self.start_new(service, deployment).await,
            Step::Health => self.gate_new(service, deployment).await,
            Step::Switch => self.switch_route(service, deployment).await,
            Step::Retire => self.retire_old(deployment).await,
        }
    }
}

/// Says why a deployment was withdrawn.
pub(crate) fn told(withdrawal: &Withdrawal) -> String {
    match withdrawal {
        Withdrawal::Cancelled => "cancelled".to_owned(),
        Withdrawal::Superseded { by } => format!("superseded by {by}, which is newer"),
        Withdrawal::Skipped { reason } => format!("skipped: {reason}"),
    }
}

/// Returns an error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

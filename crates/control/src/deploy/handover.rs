//! The steps that touch what is live: drain, park, stop, start, health, switch, retire.

use std::time::Duration;

use trackbed_core::cron::CronSchedule;
use trackbed_core::deployment::{Deployment, DeploymentEvent, DeploymentState, EventKind, Failure, Step};
use trackbed_core::job::Job;
use trackbed_core::ports::PortError;
use trackbed_core::service::{Live, Service, Wanted};
use trackbed_core::settings::{Handover, ServiceConfig};
use trackbed_core::{InstanceId, ReleaseId};

use super::drain::Drained;
use super::hold::{FINISH_LIMIT, blame_window, window_was_over};
use super::{StepError, failed};
use crate::control::{Control, ControlError, within};
use crate::health::{Gate, Verdict};

impl Control {
    /// Streams come first, while the old release still serves everything: nobody waits for somebody else's stream.
    pub(super) async fn drain_streams(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        // It may have ended and been started again while data was staged. From here on nobody starts it beside us.
        let now = service.live.as_ref().and_then(|live| live.instance.clone());
        if deployment.old_instance != now {
            deployment.old_instance = now;
            self.save(deployment).await?;
        }
        let Some(old) = &deployment.old_instance else { return Ok(()) };
        let limit = self.config_of_previous(deployment).await?.drain_timeout;
        let drained = self.drain(old, limit, |stats| stats.streams == 0).await;
        Ok(self.tell_of_streams(deployment, drained, limit).await?)
    }

    pub(super) async fn park_requests(&self, deployment: &Deployment) -> Result<(), StepError> {
        let Some(old) = &deployment.old_instance else { return Ok(()) };
        self.begin_hold(&deployment.service);
        self.sync_routes().await?;
        if !within(FINISH_LIMIT, self.until(old, |stats| stats.in_flight <= stats.streams)).await {
            let text = format!(
                "requests were still in flight after {} s; they end with the old release",
                FINISH_LIMIT.as_secs()
            );
            self.event(deployment, EventKind::Warning, &text).await?;
        }
        self.end_returned_streams(old).await;
        Ok(())
    }

    pub(super) async fn stop_old(&self, deployment: &Deployment) -> Result<(), StepError> {
        // After a crash in this step the edge may be newer than its table.
        self.sync_routes().await?;
        let Some(old) = &deployment.old_instance else { return Ok(()) };
        let grace = self.config_of_previous(deployment).await?.stop_grace;
        self.inner.engine.stop(old, grace).await.map_err(|error| failed(Step::Stop, error, Vec::new()))
    }

    pub(super) async fn start_new(
        &self,
        service: &Service,
        deployment: &Deployment,
    ) -> Result<(), StepError> {
        let (instance, release) = self.new_of(deployment)?;
        if self.schedule_of(release).await?.is_some() {
            return Ok(());
        }
        if self.hold_left(deployment) == Some(Duration::ZERO) {
            return Err(window_was_over(deployment));
        }
        let started = self.start_instance(service, release, instance, Some(deployment.id.as_str())).await;
        match started {
            Ok(_) => Ok(()),
            Err(crate::ControlError::Port(error)) => Err(failed(Step::Start, error, Vec::new())),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn gate_new(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let (instance, release) = self.new_of(deployment)?;
        let (instance, release) = (instance.clone(), release.clone());
        let config = self.inner.store.with(move |db| db.load_release(&release)).await?.config;
        if let Some(schedule) = &config.cron {
            let text = format!("a job: it runs at `{schedule}` (UTC); nothing is started now");
            return Ok(self.event(deployment, EventKind::Note, &text).await?);
        }
        let told = self.port_of(&instance).await?;
        let held = self.hold_left(deployment).filter(|left| *left < config.health.timeout);
        let gate = Gate {
            instance: &instance,
            port: told,
            check: &config.health,
            host: service.host.as_str(),
            timeout: held.unwrap_or(config.health.timeout),
            is_new: true,
        };
        let verdict = self.await_healthy(&gate).await?;
        match verdict {
            Verdict::Healthy { port, warning, timeline } => {
                deployment.port = Some(port);
                deployment.start_took_ms = Some(millis(timeline.healthy));
                self.event(deployment, EventKind::Note, &timeline.to_string()).await?;
                if let Some(warning) = warning {
                    self.event(deployment, EventKind::Warning, &warning).await?;
                }
                self.tell_of_sides(deployment, &instance).await
            }
            verdict @ (Verdict::Ended(_) | Verdict::SideFailed { .. } | Verdict::TimedOut { .. }) => {
                let failure = self.explain(Step::Health, &gate, &verdict).await;
                let failure = match (&verdict, held) {
                    (Verdict::TimedOut { .. }, Some(_)) => blame_window(failure, deployment),
                    _ => failure,
                };
                Err(StepError::Failed(Box::new(failure)))
            }
        }
    }

    /// Names the processes beside the main one that do not stay, although they do not fail.
    async fn tell_of_sides(&self, deployment: &Deployment, instance: &InstanceId) -> Result<(), StepError> {
        let status = self.inner.engine.inspect(instance).await.map_err(ControlError::from)?;
        let sides = status.map(|status| status.processes).unwrap_or_default();
        for side in sides.iter().filter(|side| side.ends > 0) {
            let text = format!(
                "`{}` ends by itself and is started again each time; it is expected to stay in the foreground",
                side.name
            );
            self.event(deployment, EventKind::Warning, &text).await?;
        }
        Ok(())
    }

    /// The point of no return is the transaction in the middle: after it the new release is the live one, and the edge
    /// only has to hear of it.
    pub(super) async fn switch_route(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let (instance, release) = self.new_of(deployment)?;
        let live = match (self.schedule_of(release).await?, deployment.port) {
            (Some(schedule), _) => {
                let runs = service.live.as_ref().and_then(|live| live.job.clone()).map(|job| job.runs);
                Live::job(release.clone(), Job::begin(schedule, self.now(), runs.unwrap_or_default()))
            }
            (None, Some(port)) => {
                let start_took_ms = deployment.start_took_ms;
                Live { start_took_ms, ..Live::healthy(release.clone(), instance.clone(), port) }
            }
            (None, None) => {
                return Err(failed(Step::Switch, PortError::new("no port was found healthy"), Vec::new()));
            }
        };
        let was_switched = deployment.state == DeploymentState::Success;
        let mut changed = deployment.clone();
        changed.state = deployment
            .state
            .apply(DeploymentEvent::BecameLive)
            .map_err(|refused| trackbed_store::StoreError::Conflict(refused.to_string()))?;
        let id = service.id.clone();
        let switched = self
            .inner
            .store
            .with(move |db| {
                // Whoever was told that it is cancelled must not see it live.
                if db.is_cancel_asked(&changed.id)? {
                    return Ok(None);
                }
                let before = db.load_service(&id)?.live.and_then(|before| before.instance);
                let is_switched = match &live.instance {
                    Some(_) => before == live.instance,
                    None => was_switched,
                };
                if !is_switched {
                    // An old instance that crashed beside the new one's start may have been replaced since step `check`.
                    changed.old_instance = before.or(changed.old_instance);
                    db.set_live(&id, &live)?;
                }
                // The last word counts: a stop that came during the deployment stops the new release.
                if !db.was_stopped_after(&changed.id)? {
                    db.set_wanted(&id, Wanted::Running)?;
                }
                db.update_deployment(&changed)?;
                Ok(Some(changed))
            })
            .await?;
        let Some(switched) = switched else { return Err(StepError::Recalled) };
        *deployment = switched;
        self.announce();
        self.end_hold(&deployment.service);
        // From here only forward: an edge that cannot be reached is told by the next pass.
        if let Err(error) = self.sync_routes().await {
            let reason = format!("the edge does not take the new route yet: {error}");
            let failure = Failure { stage: Step::Switch, reason, hint: None, log_tail: Vec::new() };
            return Err(StepError::Failed(Box::new(failure)));
        }
        Ok(())
    }

    pub(super) async fn retire_old(&self, deployment: &mut Deployment) -> Result<(), StepError> {
        self.sync_routes().await?;
        if deployment.handover != Some(Handover::Overlap) {
            self.tell_data_left(deployment).await?;
            return Ok(self.note_pause(deployment).await?);
        }
        let Some(old) = &deployment.old_instance else { return Ok(()) };
        let config = self.config_of_previous(deployment).await?;
        let limit = config.drain_timeout;
        match self.drain(old, limit, |stats| stats.in_flight == 0).await {
            Drained::Left => {
                let limit_s = limit.as_secs_f64();
                let text =
                    format!("requests of the old release were cut after the drain limit of {limit_s} s");
                self.event(deployment, EventKind::Warning, &text).await?;
                if let Err(error) = self.inner.edge.cut(old).await {
                    tracing::warn!(%error, "could not cut the old release's requests");
                }
            }
            drained => self.tell_of_streams(deployment, drained, limit).await?,
        }
        self.inner
            .engine
            .stop(old, config.stop_grace)
            .await
            .map_err(|error| failed(Step::Retire, error, Vec::new()))?;
        Ok(self.tell_data_left(deployment).await?)
    }

    /// Returns when a release runs, if it is a job.
    async fn schedule_of(&self, release: &ReleaseId) -> Result<Option<CronSchedule>, StepError> {
        let release = release.clone();
        Ok(self.inner.store.with(move |db| db.load_release(&release)).await?.config.cron)
    }

    async fn config_of_previous(&self, deployment: &Deployment) -> Result<ServiceConfig, StepError> {
        let Some(release) = deployment.previous.clone().or_else(|| deployment.release.clone()) else {
            return Err(failed(deployment.step, PortError::new("the deployment has no release"), Vec::new()));
        };
        Ok(self.inner.store.with(move |db| db.load_release(&release)).await?.config)
    }

    /// The port that an instance was told to listen on.
    pub(crate) async fn port_of(&self, instance: &InstanceId) -> Result<u16, crate::ControlError> {
        let status = self.inner.engine.inspect(instance).await?;
        Ok(status.and_then(|status| status.port).unwrap_or_default())
    }

    fn new_of<'a>(
        &self,
        deployment: &'a Deployment,
    ) -> Result<(&'a InstanceId, &'a trackbed_core::ReleaseId), StepError> {
        match (&deployment.instance, &deployment.release) {
            (Some(instance), Some(release)) => Ok((instance, release)),
            _ => Err(failed(deployment.step, PortError::new("the deployment has no instance"), Vec::new())),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

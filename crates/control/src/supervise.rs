//! Keeps the live release of a service running, by its restart policy, and stopped when that is wanted.

use std::time::Duration;

use trackbed_core::deployment::{DeploymentState, Step};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::instance::{Exit, InstanceState};
use trackbed_core::release::Release;
use trackbed_core::service::{Live, Service, Wanted};
use trackbed_core::settings::{RestartMode, RestartPolicy};
use trackbed_core::{InstanceId, ServiceId, Timestamp};
use trackbed_stdx::{backoff, random};

use crate::control::{Control, ControlError, within};
use crate::health::{Gate, Verdict};

/// Wait before the first restart.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between restarts.
const BACKOFF_CEILING: Duration = Duration::from_secs(30);
/// How often the live release is looked after while a deployment is being built or its predecessor retired.
const BESIDE_A_STEP: Duration = Duration::from_millis(500);
/// How long requests in flight may finish when a service is stopped on purpose.
const STOP_FINISH: Duration = Duration::from_secs(5);

/// Whether a deployment that waits its turn is a reason to stop waiting for health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// It is.
    Matters,
    /// It is not: a deployment is already being driven.
    IsServed,
}

/// What to do about an instance that ended.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Start it again once this much time has passed since its end; counts as a restart.
    After(Duration),
    /// Leave it.
    GiveUp(String),
}

fn decide(policy: RestartPolicy, exit: &Exit, restarts: u32) -> Decision {
    // Not the app's fault, whatever its policy; but something that is lost again and again must not spin.
    // `Setup` is a start that never came as far as the app: a volume that is still held, a disk that is full.
    if matches!(exit, Exit::Lost | Exit::Setup { .. }) {
        let wait = backoff::exponential(BACKOFF_FIRST, BACKOFF_CEILING, restarts);
        return Decision::After(if restarts == 0 { Duration::ZERO } else { wait });
    }
    let restart = match policy.mode {
        RestartMode::Always => true,
        RestartMode::OnFailure => !exit.is_success(),
        RestartMode::Never => false,
    };
    if !restart {
        return Decision::GiveUp(format!("it {exit}, and its restart policy does not start it again"));
    }
    // Railway counts retries for ON_FAILURE only; ALWAYS means every time (docs.railway.com/guides/restart-policy).
    if policy.mode != RestartMode::Always && restarts >= policy.max_retries {
        return Decision::GiveUp(format!("it {exit}, after {restarts} restarts in a row"));
    }
    Decision::After(backoff::exponential(BACKOFF_FIRST, BACKOFF_CEILING, restarts))
}

impl Control {
    /// Looks once after the live release of a service. `queue` says whether a deployment that waits its turn ends a
    /// wait for health: yes for the worker, no beside a build, which is that turn already.
    pub(crate) async fn supervise(&self, id: &ServiceId, queue: Queue) -> Result<(), ControlError> {
        let service_id = id.clone();
        let service = self.inner.store.with(move |db| db.load_service(&service_id)).await?;
        let Some(live) = service.live.clone() else { return Ok(()) };
        match service.wanted {
            Wanted::Stopped => self.ensure_stopped(&service, live).await,
            Wanted::Running => self.ensure_running(&service, live, queue).await,
        }
    }

    async fn ensure_stopped(&self, service: &Service, live: Live) -> Result<(), ControlError> {
        let Some(instance) = live.instance.clone() else { return Ok(()) };
        self.sync_routes().await?;
        let finished = within(STOP_FINISH, async {
            loop {
                // An edge that does not answer says nothing about its requests: it is asked again.
                if let Ok(stats) = self.inner.edge.stats().await
                    && stats.targets.get(instance.as_str()).is_none_or(|target| target.in_flight == 0)
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if !finished.await {
            tracing::info!(service = %service.name, "requests still open are cut, because the service is stopped");
        }
        let grace = self.release_of(&live).await?.config.stop_grace;
        self.inner.engine.stop(&instance, grace).await?;
        let mut job = live.job.clone();
        if let Some(job) = &mut job {
            self.note_ends(service, job, None).await?;
        }
        let stopped = Live { instance: None, port: None, restarts: 0, given_up: None, job, ..live };
        self.store_live(service, stopped).await
    }

    async fn ensure_running(&self, service: &Service, live: Live, queue: Queue) -> Result<(), ControlError> {
        if live.job.is_some() {
            return self.look_after_job(service, live).await;
        }
        if live.given_up.is_some() {
            return Ok(());
        }
        let Some(instance) = live.instance.clone() else {
            return self.start_again(service, live, queue).await;
        };
        let status = self.inner.engine.inspect(&instance).await?;
        let (exit, ended_at) = match status.as_ref().map(|status| &status.state) {
            Some(InstanceState::Starting | InstanceState::Running) => {
                return match live.port {
                    Some(_) => {
                        let live = self.note_end_of_undo(service, live).await?;
                        self.forget_restarts(service, live, status.map(|status| status.started_at)).await
                    }
                    None => self.gate_again(service, live, &instance, queue).await,
                };
            }
            Some(InstanceState::Ended { exit, at }) => (exit.clone(), *at),
            None => (Exit::Lost, Timestamp(0)),
        };
        let release = self.release_of(&live).await?;
        match decide(release.config.restart, &exit, live.restarts) {
            Decision::After(wait) => {
                if live.port.is_some() {
                    tracing::warn!(service = %service.name, release = release.label(), %exit, restarts = live.restarts, "restarting");
                    // Requests are parked from here on.
                    self.store_live(service, Live { port: None, ..live.clone() }).await?;
                }
                // An end in the future says that the clock was set back since: nobody knows how long the wait was.
                let now = self.now();
                if ended_at <= now && now.since(ended_at) < wait {
                    return Ok(());
                }
                let restarts = live.restarts + 1;
                self.start_again(service, Live { restarts, ..live }, queue).await
            }
            Decision::GiveUp(reason) => {
                let port = status.and_then(|status| status.port).unwrap_or_default();
                let reason = match self.cause_of_end(&instance, port).await {
                    Some(cause) => format!("{reason}: {cause}"),
                    None => reason,
                };
                tracing::error!(service = %service.name, release = release.label(), reason, "given up");
                self.store_live(service, Live { port: None, given_up: Some(reason), ..live }).await
            }
        }
    }

    /// Starts the live release in a fresh instance, whose id is stored first, and gates it. Gives way likewise.
    async fn start_again(&self, service: &Service, live: Live, queue: Queue) -> Result<(), ControlError> {
        let instance = InstanceId::from_random(random::bytes::<ID_BYTES>());
        let live = Live { instance: Some(instance.clone()), port: None, ..live };
        self.store_live(service, live.clone()).await?;
        tokio::select! {
            started = self.start_instance(service, &live.release, &instance, None) => started?,
            () = self.something_newer(service, queue) => return Ok(()),
        };
        self.gate_again(service, live, &instance, queue).await
    }

    /// Waits until a restarted instance is healthy. Gives way to a new deployment or to `down`.
    async fn gate_again(
        &self,
        service: &Service,
        live: Live,
        instance: &InstanceId,
        queue: Queue,
    ) -> Result<(), ControlError> {
        let release = self.release_of(&live).await?;
        let gate = Gate {
            instance,
            port: self.port_of(instance).await?,
            check: &release.config.health,
            host: service.host.as_str(),
            timeout: release.config.health.timeout,
            is_new: false,
        };
        let verdict = tokio::select! {
            verdict = self.await_healthy(&gate) => verdict?,
            () = self.something_newer(service, queue) => return Ok(()),
        };
        match verdict {
            Verdict::Healthy { port, timeline, .. } => {
                let start_took_ms = u64::try_from(timeline.healthy.as_millis()).ok();
                let live = Live { port: Some(port), start_took_ms, ..live };
                self.store_live(service, live.clone()).await?;
                self.note_end_of_undo(service, live).await.map(drop)
            }
            // The next pass sees the end and decides.
            Verdict::Ended(_) | Verdict::SideFailed { .. } => Ok(()),
            Verdict::TimedOut { .. } => {
                tracing::warn!(service = %service.name, "not healthy in time after a restart; ending it");
                self.inner.engine.stop(instance, release.config.stop_grace).await?;
                let restarts = live.restarts + 1;
                let policy = release.config.restart;
                let is_over = match policy.mode {
                    RestartMode::Always => false,
                    RestartMode::OnFailure => restarts > policy.max_retries,
                    RestartMode::Never => true,
                };
                let given_up = is_over.then(|| {
                    format!("it was not healthy in time, after {} restarts in a row", live.restarts)
                });
                self.store_live(service, Live { instance: None, restarts, given_up, ..live }).await
            }
        }
    }

    /// Returns when the service shall stop, or a deployment waits its turn.
    async fn something_newer(&self, service: &Service, queue: Queue) {
        let mut news = self.news();
        loop {
            let id = service.id.clone();
            let newer = self
                .inner
                .store
                .with(move |db| {
                    let stop = db.load_service(&id)?.wanted == Wanted::Stopped;
                    Ok(stop || queue == Queue::Matters && !db.list_unfinished(&id)?.is_empty())
                })
                .await;
            if newer.unwrap_or(true) || news.changed().await.is_err() {
                return;
            }
        }
    }

    /// Says, before the whole box stops its instances, that their end is nobody's fault: the next control plane starts
    /// every service again that shall run, whatever its restart policy, and takes a start that was under way once more.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn set_instances_aside(&self) -> Result<(), ControlError> {
        let now = self.now();
        let set_aside = self.inner.store.with(move |db| {
            for service in db.list_services()? {
                for mut deployment in db.list_unfinished(&service.id)? {
                    match (deployment.state, deployment.step) {
                        // What served before ends too, so nothing is left to retire.
                        (DeploymentState::Success, _) => deployment.finished_at = Some(now),
                        (DeploymentState::Deploying, Step::Start | Step::Health) => {
                            deployment.step = Step::Start;
                            deployment.entered = None;
                            deployment.instance = Some(InstanceId::from_random(random::bytes::<ID_BYTES>()));
                        }
                        _ => continue,
                    }
                    db.update_deployment(&deployment)?;
                }
                if let Some(live) = service.live.filter(|live| live.given_up.is_none()) {
                    db.set_live(&service.id, &Live { instance: None, port: None, restarts: 0, ..live })?;
                }
            }
            Ok(())
        });
        Ok(set_aside.await?)
    }

    async fn forget_restarts(
        &self,
        service: &Service,
        live: Live,
        started_at: Option<Timestamp>,
    ) -> Result<(), ControlError> {
        let steady = started_at.is_some_and(|started| self.now().since(started) >= RestartPolicy::STEADY);
        if live.restarts == 0 || !steady {
            return Ok(());
        }
        self.store_live(service, Live { restarts: 0, ..live }).await
    }

    /// Looks after the live release again and again, beside a step that does not touch it. Never returns.
    pub(crate) async fn keep_supervising(&self, id: &ServiceId) {
        loop {
            if let Err(error) = self.supervise(id, Queue::IsServed).await {
                tracing::warn!(service = %id, %error, "looking after the live release failed");
            }
            tokio::time::sleep(BESIDE_A_STEP).await;
        }
    }

    async fn release_of(&self, live: &Live) -> Result<Release, ControlError> {
        let id = live.release.clone();
        Ok(self.inner.store.with(move |db| db.load_release(&id)).await?)
    }

    pub(crate) async fn store_live(&self, service: &Service, live: Live) -> Result<(), ControlError> {
        let id = service.id.clone();
        self.inner.store.with(move |db| db.set_live(&id, &live)).await?;
        self.announce();
        self.sync_routes().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: RestartMode) -> RestartPolicy {
        RestartPolicy { mode, max_retries: 10 }
    }

    #[test]
    fn the_policy_decides_by_exit_and_count() {
        let failed = Exit::Code { code: 1 };
        let good = Exit::Code { code: 0 };
        assert_eq!(decide(policy(RestartMode::OnFailure), &failed, 0), Decision::After(BACKOFF_FIRST));
        assert!(matches!(decide(policy(RestartMode::OnFailure), &good, 0), Decision::GiveUp(_)));
        assert!(matches!(decide(policy(RestartMode::OnFailure), &failed, 10), Decision::GiveUp(_)));
        assert!(matches!(decide(policy(RestartMode::Always), &good, 3), Decision::After(_)));
        assert!(matches!(decide(policy(RestartMode::Never), &failed, 0), Decision::GiveUp(_)));
    }

    #[test]
    fn an_instance_lost_with_the_box_is_started_again_whatever_the_policy() {
        assert_eq!(decide(policy(RestartMode::Never), &Exit::Lost, 0), Decision::After(Duration::ZERO));
        assert_eq!(decide(policy(RestartMode::Never), &Exit::Lost, 99), Decision::After(BACKOFF_CEILING));
    }
}

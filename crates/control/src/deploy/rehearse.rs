//! Step rehearse: the new release, and the command that prepares its data, is tried on a copy of the data, without network, while the old one serves. What it says
//! against itself there it says before any caller waits.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trackbed_core::InstanceId;
use trackbed_core::deployment::{Deployment, DeploymentKind, EventKind, Failure, Rehearsal, Step};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::{CaptureOrder, Depth, Freezer, PortError, VolumePlace};
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::settings::ServiceConfig;
use trackbed_core::volume::Volume;
use trackbed_stdx::random;

use super::hold::START_MARGIN;
use super::points::data;
use super::pre_deploy::Trial;
use super::undo::UNDO_GRACE;
use super::{StepError, failed};
use crate::control::{Control, ControlError};
use crate::health::{Gate, Verdict};
use crate::spec::{Data, Process, Start};
use crate::words;

/// How often the copy is tried: the live instance may end or be started again in the middle of it.
const ATTEMPTS: u32 = 3;
/// Pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(2);

impl Control {
    pub(super) async fn rehearse(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        if deployment.rehearsal.is_none() || deployment.rehearsal_took_ms.is_some() {
            return Ok(self.end_rehearsal(deployment).await?);
        }
        let level = self.inner.engine.isolation().level;
        if matches!(level, IsolationLevel::Landlock | IsolationLevel::Plain) {
            return self
                .go_without(
                    deployment,
                    &format!("isolation level {} cannot keep it from the network", level.as_str()),
                )
                .await;
        }
        // An instance of an earlier attempt has seen its end, or may have changed its copy.
        self.end_rehearsal(deployment).await?;
        let rehearsal = self.renew_rehearsal(deployment).await?;
        let Some(release) = deployment.release.clone() else { return Ok(()) };
        let release = self.inner.store.with(move |db| db.load_release(&release)).await?;
        let volumes = self.volumes(service).await?;
        let places = self.copy_data(service, deployment, &rehearsal, &volumes).await?;
        let mut prepared = None;
        if deployment.pre_deploy.is_some() && !release.config.pre_deploy_untried {
            let tried =
                self.try_pre_deploy(service, deployment, &release, &rehearsal.instance, &places).await;
            match tried? {
                Trial::Done(took) => prepared = Some(took),
                Trial::NotBegun(error) => return self.not_begun(deployment, level, error).await,
            }
        }
        let mut healthy = None;
        if is_rehearsed(deployment.kind, &release.config) {
            let rehearsal = self.renew_rehearsal(deployment).await?;
            let copies: Vec<_> =
                places.iter().map(|(volume, place)| (volume.id.clone(), place.clone())).collect();
            let began = Instant::now();
            let start = Start {
                service,
                release: &release.id,
                instance: &rehearsal.instance,
                deployment: Some(deployment.id.as_str()),
                data: Data::Copies(&copies),
                process: Process::Service,
            };
            match self.start_on(start).await {
                Ok(_) => {}
                Err(ControlError::Port(error)) => return self.not_begun(deployment, level, error).await,
                Err(error) => return Err(error.into()),
            }
            self.gate_rehearsal(service, &release, &rehearsal.instance).await.map_err(told_as_rehearsal)?;
            healthy = Some(began.elapsed());
        }
        // What it took here it will take in the handover: a migration must not fail for a window that is now known to be
        // too short. What the owner says counts more.
        if let (Some(window), None) = (&mut deployment.hold_window_ms, release.config.hold_window) {
            let margin = |took: Option<Duration>| (took.unwrap_or_default() * START_MARGIN).as_millis();
            let usual = u64::try_from(margin(healthy)).unwrap_or(u64::MAX).max(*window);
            *window = usual.saturating_add(u64::try_from(margin(prepared)).unwrap_or(u64::MAX));
        }
        if let Some(took) = healthy {
            deployment.rehearsal_took_ms = u64::try_from(took.as_millis()).ok();
            let text = format!(
                "rehearsal: {} was healthy after {:.2} s on a copy of the data ({})",
                release.label(),
                took.as_secs_f64(),
                words::count(places.len() as u64, "volume")
            );
            self.event(deployment, EventKind::Note, &text).await?;
        }
        Ok(self.end_rehearsal(deployment).await?)
    }

    /// Chooses the id of the next instance on the copies, and stores it.
    async fn renew_rehearsal(&self, deployment: &mut Deployment) -> Result<Rehearsal, StepError> {
        let Some(rehearsal) = &mut deployment.rehearsal else {
            return Err(failed(Step::Rehearse, PortError::new("nothing is to be tried"), Vec::new()));
        };
        rehearsal.instance = InstanceId::from_random(random::bytes::<ID_BYTES>());
        let rehearsal = rehearsal.clone();
        self.save(deployment).await?;
        Ok(rehearsal)
    }

    /// An engine that has no network of its own to give refuses; then the release goes on untried.
    async fn not_begun(
        &self,
        deployment: &Deployment,
        level: IsolationLevel,
        error: PortError,
    ) -> Result<(), StepError> {
        match level {
            IsolationLevel::Full => Err(told_as_rehearsal(failed(Step::Rehearse, error, Vec::new()))),
            IsolationLevel::Userns | IsolationLevel::Landlock | IsolationLevel::Plain => {
                self.go_without(deployment, &error.message).await
            }
        }
    }

    async fn go_without(&self, deployment: &Deployment, why: &str) -> Result<(), StepError> {
        self.end_rehearsal(deployment).await?;
        let text = format!("the new release is not tried on a copy of the data: {why}");
        Ok(self.event(deployment, EventKind::Warning, &text).await?)
    }

    /// Copies the data of all volumes, as they are now or are wished, into stages of the rehearsal.
    async fn copy_data(
        &self,
        service: &Service,
        deployment: &Deployment,
        rehearsal: &Rehearsal,
        volumes: &[Volume],
    ) -> Result<Vec<(Volume, VolumePlace)>, StepError> {
        let mut places = Vec::new();
        let mut orders = Vec::new();
        for wish in &rehearsal.points {
            let volume = volumes.iter().find(|volume| volume.id == wish.volume);
            let is_wished = deployment.restore.contains(wish);
            if let Some(volume) = volume.filter(|_| !is_wished) {
                orders.push(CaptureOrder { volume: volume.clone(), point: wish.point.clone() });
            }
        }
        if !orders.is_empty() {
            self.capture_live(service, &orders)
                .await
                .map_err(|error| failed(Step::Rehearse, error, Vec::new()))?;
        }
        for wish in &rehearsal.points {
            let Some(volume) = volumes.iter().find(|volume| volume.id == wish.volume) else { continue };
            let staged = self
                .inner
                .volumes
                .stage(volume, &data(wish), &rehearsal.stage, Depth::Digests)
                .await
                .map_err(|error| failed(Step::Rehearse, error, Vec::new()))?;
            places.push((volume.clone(), staged.place));
        }
        Ok(places)
    }

    /// Captures volumes that may be in use. It is read again from scratch when the live instance comes or goes meanwhile.
    async fn capture_live(&self, service: &Service, orders: &[CaptureOrder]) -> Result<(), PortError> {
        let _turn = self.turn_to_capture(&service.id).await;
        for attempt in 1.. {
            let freezer = match self.freezer_of(service).await {
                Ok(freezer) => freezer,
                Err(error) => return Err(PortError::new(error.to_string())),
            };
            let freezer = freezer.as_ref().map(|freezer| freezer as &dyn Freezer);
            match self.inner.volumes.capture(orders, freezer).await {
                Ok(_) => break,
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(error) => {
                    tracing::info!(service = %service.name, %error, "the data is copied once more");
                    sleep(ATTEMPT_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    async fn gate_rehearsal(
        &self,
        service: &Service,
        release: &Release,
        instance: &InstanceId,
    ) -> Result<(), StepError> {
        let gate = Gate {
            instance,
            port: self.port_of(instance).await?,
            check: &release.config.health,
            host: service.host.as_str(),
            timeout: release.config.health.timeout,
            is_new: true,
        };
        match self.await_healthy(&gate).await? {
            Verdict::Healthy { .. } => Ok(()),
            verdict @ (Verdict::Ended(_) | Verdict::SideFailed { .. } | Verdict::TimedOut { .. }) => {
                Err(StepError::Failed(Box::new(self.explain(Step::Rehearse, &gate, &verdict).await)))
            }
        }
    }

    /// Ends what a rehearsal has started, and removes its copies. Repeating it is fine.
    pub(super) async fn end_rehearsal(&self, deployment: &Deployment) -> Result<(), ControlError> {
        let Some(rehearsal) = &deployment.rehearsal else { return Ok(()) };
        if deployment.step < Step::Rehearse {
            return Ok(());
        }
        self.inner.engine.stop(&rehearsal.instance, UNDO_GRACE).await?;
        for wish in &rehearsal.points {
            self.inner.volumes.discard(&wish.volume, &rehearsal.stage).await?;
        }
        Ok(())
    }
}

/// Returns whether the release itself is started on the copy: a restart brings nothing new, and a job may act.
pub(super) fn is_rehearsed(kind: DeploymentKind, config: &ServiceConfig) -> bool {
    config.rehearse && config.cron.is_none() && kind != DeploymentKind::Restart
}

/// Says that a failure is one of the rehearsal.
fn told_as_rehearsal(error: StepError) -> StepError {
    match error {
        StepError::Failed(failure) => {
            let reason = format!("rehearsal: {}", failure.reason);
            StepError::Failed(Box::new(Failure { reason, ..*failure }))
        }
        other => other,
    }
}

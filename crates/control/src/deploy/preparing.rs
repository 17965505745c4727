//! The steps before anything live is touched: plan, build, release, check.

use trackbed_core::deployment::{Deployment, EventKind, Failure, Step, Withdrawal};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::image::{Image, Layer};
use trackbed_core::ports::{BuildRequest, PlanRequest, PortError, Source};
use trackbed_core::release::Release;
use trackbed_core::service::Service;
use trackbed_core::settings::{Handover, ServiceConfig, VolumeRequest};
use trackbed_core::volume::Volume;
use trackbed_core::{InstanceId, ReleaseId, VolumeId};
use trackbed_stdx::random;
use trackbed_store::StoreError;

use super::hold::hold_window;
use super::points::choose_ids;
use super::{StepError, failed};
use crate::build_log::BuildLogFile;
use crate::control::Control;
use crate::environment::{Environment, for_build, owner_variables};
use crate::scale;
use crate::stray::settings_among;
use crate::words::bytes;

/// Lines of the build that a failure quotes.
const BUILD_TAIL_LINES: usize = 20;

impl Control {
    pub(super) async fn plan_source(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        // A service that is new gets its address now: whoever comes early is told that it starts.
        if service.live.is_none()
            && let Err(error) = self.sync_routes().await
        {
            tracing::warn!(%error, "the edge will hear of the new service later");
        }
        let source = self.source_of(deployment)?;
        let variables = self.owner_variables(service, Step::Plan).await?;
        let id = service.id.clone();
        let counts = self.inner.store.with(move |db| db.list_process_counts(&id)).await?;
        let request = PlanRequest {
            source,
            overrides: settings_among(&deployment.overrides),
            stored: scale::settings(&counts),
            variables,
        };
        let plan =
            self.inner.builder.plan(request).await.map_err(|error| failed(Step::Plan, error, Vec::new()))?;
        self.event(deployment, EventKind::Note, &plan.summary).await?;
        for warning in &plan.warnings {
            let place = match (&warning.file, warning.line) {
                (Some(file), Some(line)) => format!("{file}:{line}: "),
                (Some(file), None) => format!("{file}: "),
                (None, _) => String::new(),
            };
            self.event(deployment, EventKind::Warning, &format!("{place}{}", warning.message)).await?;
        }
        if let Some(reason) = self.reason_to_skip(service, deployment, &plan).await? {
            // `redeploy` deploys it all the same, and needs to know that it could be planned.
            deployment.plan = Some(plan);
            return Err(StepError::Withdrawn(Withdrawal::Skipped { reason }));
        }
        let volumes = self.volumes(service).await?;
        self.tell_findings(service, deployment, &plan, &volumes).await?;
        refuse_two_writers(Step::Plan, &plan.config, !volumes.is_empty() || !plan.config.volumes.is_empty())?;
        deployment.plan = Some(plan);
        Ok(())
    }

    pub(super) async fn build_image(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let Some(plan) = deployment.plan.clone() else { return Err(missing(Step::Build, "a plan")) };
        let source = self.source_of(deployment)?;
        let owner = self.owner_variables(service, Step::Build).await?;
        let log = BuildLogFile::create(&self.inner.config.data_dir, &deployment.id, self.inner.clock)?;
        let turn = self.build_turn(service, deployment).await?;
        let request = BuildRequest {
            source,
            plan,
            service: service.id.clone(),
            service_number: service.number,
            variables: for_build(service, deployment, &owner),
        };
        let built = self.inner.builder.build(request, &log).await;
        drop(turn);
        let image = built.map_err(|error| failed(Step::Build, error, log.tail(BUILD_TAIL_LINES)))?;
        if image.size_bytes() > 0 {
            let sizes = self.sizes(service, &image).await?;
            self.event(deployment, EventKind::Note, &sizes).await?;
        }
        deployment.image = Some(image);
        Ok(())
    }

    /// Says how large an image is, and how much of it the live release has already.
    async fn sizes(&self, service: &Service, image: &Image) -> Result<String, StepError> {
        let live = service.live.as_ref().map(|live| live.release.clone());
        let Some(live) = live else { return Ok(sizes_of(image, None)) };
        let live = self.inner.store.with(move |db| db.load_release(&live)).await?;
        Ok(sizes_of(image, Some(&live)))
    }

    pub(super) async fn write_release(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        if deployment.release.is_some() {
            return Ok(());
        }
        let (Some(plan), Some(image), Some(source)) =
            (deployment.plan.clone(), deployment.image.clone(), deployment.source.clone())
        else {
            return Err(missing(Step::Release, "a plan and an image"));
        };
        let owner = self.owner_variables(service, Step::Release).await?;
        let id = ReleaseId::from_random(random::bytes::<ID_BYTES>());
        let mut changed = deployment.clone();
        changed.release = Some(id.clone());
        let (service_id, now) = (service.id.clone(), self.now());
        // One transaction: a crash leaves either no release or a deployment that knows it.
        *deployment = self
            .inner
            .store
            .with(move |db| {
                let version = db.next_version(&service_id)?;
                let release = Release {
                    id,
                    service: service_id,
                    version,
                    source,
                    image,
                    config: plan.config,
                    created_at: now,
                };
                db.add_release(&release, &owner)?;
                db.update_deployment(&changed)?;
                Ok(changed)
            })
            .await?;
        Ok(())
    }

    /// Everything that can be found wrong before the old release is touched is found here.
    pub(super) async fn check_before_touching(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let Some(release_id) = deployment.release.clone() else {
            return Err(missing(Step::Check, "a release"));
        };
        let release = self.inner.store.with(move |db| db.load_release(&release_id)).await?;
        let volumes = self.ensure_volumes(service, &release.config.volumes).await?;
        for volume in &volumes {
            self.inner
                .volumes
                .ensure(volume)
                .await
                .map_err(|error| failed(Step::Check, error, Vec::new()))?;
        }
        if let Some(wanted) = &release.config.required_mount
            && !volumes.iter().any(|volume| volume.mount == *wanted)
        {
            let error =
                PortError::new(format!("the service requires a volume at {wanted}, and has none there"));
            let hint = format!("trackbed volume add data {wanted}");
            return Err(failed(Step::Check, error.hint(hint), Vec::new()));
        }
        refuse_two_writers(Step::Check, &release.config, !volumes.is_empty())?;
        self.refuse_unsettled_data(service, deployment).await?;
        self.refuse_overfull(deployment, &volumes).await?;
        self.refuse_stray_data(service, deployment).await?;
        // Taken once: after a crash in a later step, `live` may already have changed.
        if deployment.instance.is_none() {
            deployment.handover =
                Some(self.decide_handover(service, deployment, &release.config, &volumes).await?);
            deployment.hold_window_ms = hold_window(service, &release.config)
                .filter(|_| deployment.handover == Some(Handover::Held))
                .and_then(|window| u64::try_from(window.as_millis()).ok());
            deployment.instance = Some(InstanceId::from_random(random::bytes::<ID_BYTES>()));
            deployment.previous = service.live.as_ref().map(|live| live.release.clone());
            deployment.old_instance = service.live.as_ref().and_then(|live| live.instance.clone());
            choose_ids(deployment, &release.config, &volumes);
        }
        self.verify_wishes(deployment, &volumes).await?;
        let Some(instance) = deployment.instance.clone() else { return Ok(()) };
        self.fly_ahead(service, deployment, &instance, &release, &volumes).await
    }

    /// Decides how traffic moves to a release. What the owner asks for and cannot be had on this occasion is said.
    async fn decide_handover(
        &self,
        service: &Service,
        deployment: &Deployment,
        config: &ServiceConfig,
        volumes: &[Volume],
    ) -> Result<Handover, StepError> {
        // An app that insists on its port cannot stand beside its predecessor where both share the box's ports.
        let collides = config.port.is_some() && self.inner.engine.shares_ports();
        let has_volume = !volumes.is_empty();
        let held_alone = match &service.live {
            Some(live) if has_volume => {
                let live = live.release.clone();
                !self.inner.store.with(move |db| db.load_release(&live)).await?.config.shares_volumes()
            }
            Some(_) | None => false,
        };
        let wanted = match config.handover {
            Some(asked) => asked,
            None if has_volume && !config.shared => Handover::Held,
            None => Handover::Overlap,
        };
        let obstacle = match wanted {
            Handover::Overlap if collides => "both releases need the same port of the box",
            Handover::Overlap if held_alone => {
                "the live release holds its volumes alone; from now on they overlap"
            }
            // Data can be put in the place of other data only while nobody uses it.
            Handover::Overlap if !deployment.restore.is_empty() || deployment.adopt.is_some() => {
                "data is put in place while nobody uses it"
            }
            Handover::Overlap | Handover::Held => return Ok(wanted),
        };
        if config.handover.is_some() || config.shared {
            let text = format!("callers are held this time instead of an overlap: {obstacle}");
            self.event(deployment, EventKind::Note, &text).await?;
        }
        Ok(Handover::Held)
    }

    async fn ensure_volumes(
        &self,
        service: &Service,
        asked: &[VolumeRequest],
    ) -> Result<Vec<Volume>, StepError> {
        let (id, asked, now) = (service.id.clone(), asked.to_vec(), self.now());
        let outcome = self
            .inner
            .store
            .with(move |db| {
                let known = db.list_volumes(&id)?;
                for request in asked {
                    if known.iter().any(|volume| volume.name == request.name && volume.mount == request.mount)
                    {
                        continue;
                    }
                    let volume = VolumeId::from_random(random::bytes::<ID_BYTES>());
                    db.add_volume(&Volume::new(volume, id.clone(), request.name, request.mount, now))?;
                }
                db.list_volumes(&id)
            })
            .await;
        match outcome {
            Ok(volumes) => Ok(volumes),
            Err(StoreError::Conflict(message)) => {
                let hint =
                    "a volume keeps its name and mount path; use the same ones, or another name and path";
                Err(failed(Step::Check, PortError::new(message).hint(hint), Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn owner_variables(
        &self,
        service: &Service,
        stage: Step,
    ) -> Result<Environment, StepError> {
        let service = service.clone();
        match self.inner.store.with(move |db| owner_variables(db, &service)).await {
            Ok(variables) => Ok(variables),
            Err(StoreError::Conflict(message)) => {
                let hint = "set the variable that is missing, or change the reference: trackbed variables";
                Err(failed(stage, PortError::new(message).hint(hint), Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn source_of(&self, deployment: &Deployment) -> Result<Source, StepError> {
        let Some(digest) = deployment.source.clone() else {
            return Err(missing(deployment.step, "a source"));
        };
        let path = self.inner.config.data_dir.join("sources").join(digest.as_str());
        Ok(Source { digest, path })
    }
}

/// Refuses an overlap that would make two writers on a volume, unless the owner says that the app copes with them.
fn refuse_two_writers(stage: Step, config: &ServiceConfig, has_volume: bool) -> Result<(), StepError> {
    if config.handover != Some(Handover::Overlap) || !has_volume || config.shared {
        return Ok(());
    }
    let error = PortError::new(
        "`handover = \"overlap\"` would let two releases write to the service's volume at once during a deploy",
    );
    let hint = "take `handover` out: callers wait for the moment in which one release takes over from the other; \
                or, if the app copes with two writers, add `shared = true` under [deploy] in trackbed.toml";
    Err(failed(stage, error.hint(hint), Vec::new()))
}

fn sizes_of(image: &Image, live: Option<&Release>) -> String {
    let shared = |live: &Release| {
        let has = |layer: &&Layer| live.image.layers.iter().any(|other| other.digest == layer.digest);
        image.layers.iter().filter(has).map(|layer| layer.size_bytes).sum::<u64>()
    };
    let whole = format!("image: {}", bytes(image.size_bytes()));
    match live.map(|live| (live.label(), shared(live))) {
        Some((label, shared)) if shared > 0 => {
            format!("{whole}, {} of it shared with {label}", bytes(shared))
        }
        _ => whole,
    }
}

fn missing(stage: Step, what: &str) -> StepError {
    let reason = format!("the deployment has no {what}; deploy once more").replace("no a ", "no ");
    StepError::Failed(Box::new(Failure { stage, reason, hint: None, log_tail: Vec::new() }))
}

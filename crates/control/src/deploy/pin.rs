//! Steps pin and swap: the data as it is just before the new release starts is kept, and other data is put in its place
//! where that is wished. Callers of a `held` handover wait meanwhile.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use trackbed_core::deployment::{Deployment, EventKind, Failure, Step};
use trackbed_core::instance::AppLink;
use trackbed_core::ports::{AdoptedFile, CaptureOrder, Freezer, PortError, StrayFile};
use trackbed_core::restore_point::{Capture, PointReason, RestorePoint};
use trackbed_core::service::Service;
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;

use super::hold::data_patience;
use super::stage::volume_of;
use super::{StepError, failed};
use crate::adoptions::base_name;
use crate::control::{Control, ControlError};
use crate::words;

impl Control {
    /// Captures all volumes at the same instant. Nobody runs in a `held` handover; under `overlap` the old release stands
    /// still for it.
    pub(super) async fn pin_data(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        let volumes = self.volumes(service).await?;
        let mut orders = Vec::new();
        for pin in deployment.pins.iter().filter(|pin| pin.capture.is_none()) {
            // One that was removed since step `check` is not mounted, so nothing can happen to it.
            let Some(volume) = volumes.iter().find(|volume| volume.id == pin.volume) else { continue };
            orders.push(CaptureOrder { volume: volume.clone(), point: pin.point.clone() });
        }
        if orders.is_empty() {
            return Ok(());
        }
        let freezer = match deployment.handover {
            Some(Handover::Overlap) => self.freezer_of(service).await?,
            Some(Handover::Held) | None => None,
        };
        let freezer = freezer.as_ref().map(|freezer| freezer as &dyn Freezer);
        let (began, taken_at) = (Instant::now(), self.now());
        // Those who wait are given back to the old release when the window is over.
        let window = self.hold_left(deployment).unwrap_or(Duration::MAX);
        let captured = timeout(window, async {
            // A backup that began before the drain may still be at it.
            let _turn = self.turn_to_capture(&deployment.service).await;
            self.inner.volumes.capture(&orders, freezer).await
        });
        let captured = captured.await;
        let captures = captured
            .map_err(|_| window_went_to_the_pin(deployment))?
            .map_err(|error| failed(Step::Pin, error, Vec::new()))?;
        self.keep_pins(deployment, &orders, captures, taken_at).await?;
        self.tell_of_pins(deployment, &orders, began.elapsed()).await?;
        if data_patience(deployment) > Duration::from_secs(60) {
            // Whoever waits may have to wait for all that data to be put back: the edge is told for how long.
            self.owe_routes();
        }
        Ok(())
    }

    /// Stores the captures as restore points in the transaction that also says that the data is pinned.
    async fn keep_pins(
        &self,
        deployment: &mut Deployment,
        orders: &[CaptureOrder],
        captures: Vec<Capture>,
        taken_at: trackbed_core::Timestamp,
    ) -> Result<(), ControlError> {
        let mut points = Vec::new();
        for (order, capture) in orders.iter().zip(captures) {
            let id = deployment.id.clone();
            let is_replaced = deployment.restore.iter().any(|wish| wish.volume == order.volume.id);
            points.push(RestorePoint {
                id: order.point.clone(),
                volume: order.volume.id.clone(),
                service: deployment.service.clone(),
                taken_at,
                reason: match is_replaced {
                    true => PointReason::BeforeRestore { deployment: id },
                    false => PointReason::Deployment { deployment: id },
                },
                release: deployment.previous.clone(),
                capture: capture.clone(),
                proof: None,
            });
            for pin in deployment.pins.iter_mut().filter(|pin| pin.point == order.point) {
                pin.capture = Some(capture.clone());
            }
        }
        let copy = deployment.clone();
        self.inner
            .store
            .with(move |db| {
                for point in &points {
                    db.add_restore_point(point)?;
                }
                db.update_deployment(&copy)
            })
            .await?;
        self.announce();
        Ok(())
    }

    async fn tell_of_pins(
        &self,
        deployment: &Deployment,
        orders: &[CaptureOrder],
        took: Duration,
    ) -> Result<(), ControlError> {
        let mut parts = Vec::new();
        for order in orders {
            let name = &order.volume.name;
            let pin = deployment.pins.iter().find(|pin| pin.point == order.point);
            let Some(capture) = pin.and_then(|pin| pin.capture.as_ref()) else { continue };
            parts.push(format!("volume {name}: {}", words::captured(capture)));
            if let Some(limit) = order.volume.limit_bytes.filter(|limit| capture.bytes > *limit) {
                let text = format!(
                    "volume {name} holds {}, more than its limit of {}: raise it (trackbed volume limit {name} SIZE) \
                     or let the app remove what it no longer needs",
                    words::bytes(capture.bytes),
                    words::bytes(limit)
                );
                self.event(deployment, EventKind::Warning, &text).await?;
            }
        }
        let text = format!("data pinned in {:.2} s ({})", took.as_secs_f64(), parts.join("; "));
        self.event(deployment, EventKind::Note, &text).await
    }

    /// Puts restored and adopted data in its place. Nobody runs.
    pub(super) async fn swap_data(
        &self,
        service: &Service,
        deployment: &mut Deployment,
    ) -> Result<(), StepError> {
        if deployment.restore.is_empty() && deployment.adopt.is_none() {
            return Ok(());
        }
        let volumes = self.volumes(service).await?;
        for wish in &deployment.restore {
            let volume = volume_of(&volumes, wish)?;
            let swapped = self.inner.volumes.swap_in(volume, &deployment.id).await;
            swapped.map_err(|error| failed(Step::Swap, error, Vec::new()))?;
            let pin = deployment.pins.iter().find(|pin| pin.volume == volume.id);
            let kept = pin.map(|pin| format!("; what was there is restore point {}", pin.point));
            let text = format!(
                "volume {} has the data of restore point {}{}",
                volume.name,
                wish.point,
                kept.unwrap_or_default()
            );
            self.event(deployment, EventKind::Note, &text).await?;
        }
        self.adopt_files(deployment, &volumes, Step::Swap).await
    }

    /// Copies what the old release kept outside its volumes into one, and stores where the app finds it from now on.
    /// Repeating it is fine.
    pub(super) async fn adopt_files(
        &self,
        deployment: &Deployment,
        volumes: &[Volume],
        stage: Step,
    ) -> Result<(), StepError> {
        let Some(adoption) = &deployment.adopt else { return Ok(()) };
        let fail = |error| failed(stage, error, Vec::new());
        let Some(volume) = volumes.iter().find(|volume| volume.id == adoption.volume) else {
            return Err(fail(PortError::new(format!("volume {} is no longer there", adoption.volume))));
        };
        let by_path = self.adopted_files(deployment, stage).await?;
        // All of them or none.
        let adopted = by_path.iter().flat_map(|(path, files)| files.iter().map(|file| adopted(path, file)));
        let adopted: Vec<_> = adopted.collect();
        self.inner.volumes.adopt(volume, &adopted).await.map_err(fail)?;
        for (path, files) in by_path {
            let link = AppLink { at: path.clone(), to: format!("{}/{}", volume.mount, base_name(&path)) };
            let text = format!(
                "{path} is adopted into volume {}: {}, {}; the app finds it at {} through a link to {}",
                volume.name,
                words::count(files.len() as u64, "file"),
                words::bytes(files.iter().map(|file| file.size_bytes).sum()),
                link.at,
                link.to
            );
            let id = deployment.service.clone();
            self.inner.store.with(move |db| db.set_app_link(&id, &link)).await?;
            self.event(deployment, EventKind::Note, &text).await?;
        }
        Ok(())
    }
}

/// What stands at `/app/x/ba.db` goes to `ba.db` in the volume, and what lies below it to below that.
fn adopted(path: &str, file: &StrayFile) -> AdoptedFile {
    let rest = file.path.strip_prefix(path).unwrap_or_default();
    AdoptedFile { from: file.host_path.clone(), to: format!("{}{rest}", base_name(path)) }
}

fn window_went_to_the_pin(deployment: &Deployment) -> StepError {
    let window = Duration::from_millis(deployment.hold_window_ms.unwrap_or_default()).as_secs_f64();
    StepError::Failed(Box::new(Failure {
        stage: Step::Pin,
        reason: format!("the hold window of {window} s was over before the data was pinned"),
        hint: Some(
            "the app writes much between two deployments, or the disk is slow; hold callers longer: holdSeconds under \
             [deploy] in trackbed.toml"
                .into(),
        ),
        log_tail: Vec::new(),
    }))
}

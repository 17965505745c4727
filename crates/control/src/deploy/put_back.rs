//! Putting the data back when a deployment is undone: after the new instance is gone, and before the old release starts.
//! Repeating it is fine, also after a crash in the middle.

use trackbed_core::VolumeId;
use trackbed_core::deployment::{DataWish, Deployment, EventKind, PutBack, Step};
use trackbed_core::ports::{Depth, PortError};
use trackbed_core::restore_point::Difference;
use trackbed_core::service::Live;
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;

use super::StepError;
use super::points::data;
use crate::control::{Control, ControlError};
use crate::words;

impl Control {
    /// Ends what a deployment has made of data, and puts the data back as it was before it. `settled` collects the volumes
    /// that are as they were, also when it fails for others.
    pub(super) async fn put_data_back(
        &self,
        deployment: &mut Deployment,
        settled: &mut Vec<VolumeId>,
    ) -> Result<(), ControlError> {
        let service = self.load_service(deployment).await?;
        let volumes = self.volumes(&service).await?;
        let changed: Vec<DataWish> = deployment.may_have_changed().collect();
        let mut refused = None;
        for before in &changed {
            // One that was removed meanwhile is nobody's, and keeps what it has.
            let Some(volume) = volumes.iter().find(|volume| volume.id == before.volume) else { continue };
            let is_swapped = deployment.restore.iter().any(|wish| wish.volume == volume.id);
            let put_back = match is_swapped {
                true => {
                    self.inner.volumes.swap_back(volume, &deployment.id).await.map_err(ControlError::from)
                }
                false => self.put_pin_back(deployment, volume, before).await,
            };
            match put_back {
                Ok(()) => settled.push(volume.id.clone()),
                Err(error) => refused = refused.or(Some(of_volume(volume, error))),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        self.keep_adopted(deployment, &volumes).await?;
        self.tell_of_data(deployment, &volumes).await?;
        // The data is as it should be; what is left is in nobody's way.
        self.end_rehearsal(deployment).await?;
        if deployment.step >= Step::Stage {
            // What was to be restored is a copy of a point that stays.
            for wish in &deployment.restore {
                self.inner.volumes.discard(&wish.volume, &deployment.id).await?;
            }
        }
        Ok(())
    }

    /// Puts the pin of a volume in its place when the failed release has changed anything.
    async fn put_pin_back(
        &self,
        deployment: &mut Deployment,
        volume: &Volume,
        before: &DataWish,
    ) -> Result<(), ControlError> {
        let Some(aside) = deployment.aside.clone() else { return Ok(()) };
        let point = data(before);
        let known = deployment.put_back.iter().find(|known| known.volume == volume.id).cloned();
        let mut known = match known {
            Some(known) => known,
            None => {
                let difference = match self.inner.volumes.compare(volume, &point, None).await {
                    Ok(difference) if difference == Difference::default() => return Ok(()),
                    Ok(difference) => difference,
                    // What cannot be compared may differ.
                    Err(error) => {
                        tracing::warn!(volume = %volume.name, %error, "put back without a comparison");
                        Difference::default()
                    }
                };
                let known = PutBack { volume: volume.id.clone(), difference, place: None };
                self.note_put_back(deployment, &known).await?;
                known
            }
        };
        // Once it is staged, only the swap is repeated: afterwards the stage holds what the failed release left.
        if known.place.is_none() {
            let staged = self.inner.volumes.stage(volume, &point, &aside, Depth::Digests).await?;
            known.place = Some(staged.place.directory.to_string_lossy().into_owned());
            self.note_put_back(deployment, &known).await?;
        }
        Ok(self.inner.volumes.swap_in(volume, &aside).await?)
    }

    async fn note_put_back(&self, deployment: &mut Deployment, known: &PutBack) -> Result<(), ControlError> {
        deployment.put_back.retain(|other| other.volume != known.volume);
        deployment.put_back.push(known.clone());
        self.save(deployment).await
    }

    /// What was adopted stays adopted: the old release starts in a fresh instance, which would not find it any more. A
    /// file that cannot be had stops nobody; the instance that wrote it is kept for a while.
    async fn keep_adopted(&self, deployment: &Deployment, volumes: &[Volume]) -> Result<(), ControlError> {
        if deployment.adopt.is_none() || !deployment.has_touched_old() {
            return Ok(());
        }
        let error = match self.adopt_files(deployment, volumes, deployment.step).await {
            Ok(()) | Err(StepError::Recalled) => return Ok(()),
            Err(StepError::Ours(error)) => return Err(error),
            Err(StepError::Withdrawn(withdrawal)) => super::told(&withdrawal),
            Err(StepError::Failed(failure)) => failure.reason,
        };
        let paths = deployment.adopt.as_ref().map(|adoption| adoption.paths.clone()).unwrap_or_default();
        let text = format!(
            "{} stays outside the volumes, and the old release starts without it: {error}",
            paths.join(", ")
        );
        let id = deployment.service.clone();
        let forgotten = self
            .inner
            .store
            .with(move |db| paths.iter().try_for_each(|path| db.remove_app_link(&id, path).map(drop)));
        forgotten.await?;
        self.event(deployment, EventKind::Warning, &text).await
    }

    /// Says what was done to the data.
    async fn tell_of_data(
        &self,
        deployment: &mut Deployment,
        volumes: &[Volume],
    ) -> Result<(), ControlError> {
        let has_started = deployment.step >= Step::PreDeploy;
        let is_pinned = deployment.pins.iter().any(|pin| pin.capture.is_some());
        if deployment.data_undone.is_some() || !is_pinned {
            return Ok(());
        }
        let failed = self.label_of(deployment).await?;
        let mut said = Vec::new();
        for known in &deployment.put_back {
            let name =
                volumes.iter().find(|volume| volume.id == known.volume).map_or("", |it| it.name.as_str());
            let place = known.place.as_deref().unwrap_or_default();
            let changed = known.difference.added + known.difference.changed + known.difference.missing;
            let files = match changed {
                0 => "data".to_owned(),
                changed => words::count(changed, "file"),
            };
            let what = if changed <= 1 { "is" } else { "are" };
            said.push(format!(
                "the data of volume {name} is as it was before {failed}: {files} that {failed} had changed {what} set aside in {place}"
            ));
        }
        if deployment.handover == Some(Handover::Held) && deployment.step >= Step::Swap {
            let wished = deployment.restore.len() as u64;
            if wished > 0 {
                said.push(format!("the restore of {} is taken back", words::count(wished, "volume")));
            }
        } else if deployment.handover == Some(Handover::Overlap) && has_started {
            said.push(format!(
                "nothing was put back: the old release wrote on beside {failed}; the data just before is kept as a restore point"
            ));
        }
        if said.is_empty() {
            return Ok(());
        }
        let text = said.join("; ");
        self.event(deployment, EventKind::Note, &text).await?;
        deployment.data_undone = Some(text);
        self.save(deployment).await
    }

    /// Says that data could not be put back, that nothing is started on it therefore, and every way out.
    pub(super) async fn data_refusal(
        &self,
        deployment: &Deployment,
        live: Option<&Live>,
        unsettled: &[DataWish],
        why: &str,
    ) -> Result<String, ControlError> {
        let service = self.load_service(deployment).await?;
        let volumes = self.volumes(&service).await?;
        let failed = self.label_of(deployment).await?;
        let mut names = Vec::new();
        let mut ways = Vec::new();
        for before in unsettled {
            let Some(volume) = volumes.iter().find(|volume| volume.id == before.volume) else { continue };
            names.push(volume.name.to_string());
            ways.push(match live {
                Some(_) => format!("trackbed volume restore {} --at {}", volume.name, before.point),
                None => before.point.to_string(),
            });
        }
        let first = names.first().cloned().unwrap_or_default();
        let (names, ways) = (names.join(", "), ways.join(", "));
        let said =
            format!("the data of volume {names} could not be put back as it was before {failed} ({why})");
        let Some(live) = live else {
            return Ok(format!(
                "{said}: the next deployment finds what {failed} may have left; the data from before is kept as restore \
                 point {ways}"
            ));
        };
        let release = live.release.clone();
        let old = self.inner.store.with(move |db| db.load_release(&release)).await?.label();
        Ok(format!(
            "{said}, so {old} is not started on what {failed} may have left. To go back to the data from before: {ways}; \
             to another restore point: trackbed volume points {first}; to start {old} on the data as it is now: \
             trackbed restart"
        ))
    }

    async fn label_of(&self, deployment: &Deployment) -> Result<String, ControlError> {
        let Some(release) = deployment.release.clone() else { return Ok("the new release".into()) };
        Ok(self.inner.store.with(move |db| db.load_release(&release)).await?.label())
    }
}

/// Names the volume whose data could not be put back.
fn of_volume(volume: &Volume, error: ControlError) -> ControlError {
    match error {
        ControlError::Port(error) => {
            let named = PortError::new(format!("volume {}: {}", volume.name, error.message));
            PortError { hint: error.hint, ..named }.into()
        }
        other => other,
    }
}

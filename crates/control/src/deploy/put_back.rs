//! Putting the data back when a deployment is undone: after the new instance is gone, and before the old release starts.
//! Repeating it is fine, also after a crash in the middle.

use trackbed_core::deployment::{Deployment, EventKind, Pin, PutBack, Step};
use trackbed_core::ports::{Depth, PointData};
use trackbed_core::restore_point::Difference;
use trackbed_core::settings::Handover;
use trackbed_core::volume::Volume;

use super::StepError;
use crate::control::{Control, ControlError};
use crate::words;

impl Control {
    /// Ends what a deployment has made of data, and puts the data back as it was before it.
    pub(super) async fn put_data_back(&self, deployment: &mut Deployment) -> Result<(), ControlError> {
        let service = self.load_service(deployment).await?;
        let volumes = self.volumes(&service).await?;
        if deployment.handover == Some(Handover::Held) && deployment.step >= Step::Swap {
            for volume in &volumes {
                match deployment.restore.iter().any(|wish| wish.volume == volume.id) {
                    true => self.inner.volumes.swap_back(volume, &deployment.id).await?,
                    false => self.put_pin_back(deployment, volume).await?,
                }
            }
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
    async fn put_pin_back(&self, deployment: &mut Deployment, volume: &Volume) -> Result<(), ControlError> {
        let pin = deployment.pins.iter().find(|pin| pin.volume == volume.id && pin.capture.is_some());
        let (Some(Pin { point, .. }), Some(aside)) = (pin, deployment.aside.clone()) else { return Ok(()) };
        let point = PointData { volume: volume.id.clone(), point: point.clone() };
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
            Err(StepError::Failed(failure)) => failure.reason,
        };
        let path = deployment.adopt.as_ref().map_or("", |adoption| adoption.path.as_str());
        let (id, at) = (deployment.service.clone(), path.to_owned());
        self.inner.store.with(move |db| db.remove_app_link(&id, &at)).await?;
        let text =
            format!("{path} stays outside the volumes, and the old release starts without it: {error}");
        self.event(deployment, EventKind::Warning, &text).await
    }

    /// Says what was done to the data.
    async fn tell_of_data(
        &self,
        deployment: &mut Deployment,
        volumes: &[Volume],
    ) -> Result<(), ControlError> {
        let has_started = deployment.step >= Step::Start;
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

    /// Says that the data could not be put back in time, and how the owner does it.
    pub(super) async fn warn_of_data(&self, deployment: &mut Deployment) -> Result<(), ControlError> {
        let may_differ = deployment.handover == Some(Handover::Held) && deployment.step >= Step::Swap;
        if !may_differ || deployment.data_undone.is_some() {
            return Ok(());
        }
        let pins: Vec<_> = deployment.pins.iter().filter(|pin| pin.capture.is_some()).collect();
        if pins.is_empty() {
            return Ok(());
        }
        let failed = self.label_of(deployment).await?;
        let points: Vec<_> =
            pins.iter().map(|pin| format!("trackbed volume restore --at {}", pin.point)).collect();
        let text = format!(
            "the data could not be put back, so the old release finds what {failed} may have left; the data as it was before is kept: {}",
            points.join(", ")
        );
        self.event(deployment, EventKind::Warning, &text).await?;
        deployment.data_undone = Some(text);
        self.save(deployment).await
    }

    async fn label_of(&self, deployment: &Deployment) -> Result<String, ControlError> {
        let Some(release) = deployment.release.clone() else { return Ok("the new release".into()) };
        Ok(self.inner.store.with(move |db| db.load_release(&release)).await?.label())
    }
}

//! How the data of a service does: its last restore points, the last proof, and what its owner should hear of.

use std::time::Duration;

use trackbed_core::Timestamp;
use trackbed_core::restore_point::{ProofVerdict, RestorePoint, Schedule};
use trackbed_core::service::Service;
use trackbed_core::volume::Volume;

use crate::control::{Control, ControlError};
use crate::keeping::{lock, spoken};
use crate::words;

/// Age of the last proven point from which on it is a warning: a daily backup, and two hours for its drill.
const PROVEN_WITHIN: Duration = Duration::from_secs(26 * 60 * 60);
/// What a backup may be late by before that is a warning.
const LATE: Duration = Duration::from_secs(2 * 60 * 60);

/// How the data of a volume does.
#[derive(Debug, Clone)]
pub struct VolumeData {
    /// The volume.
    pub volume: Volume,
    /// The newest restore point.
    pub last: Option<RestorePoint>,
    /// The newest restore point that is proven restorable.
    pub last_proven: Option<RestorePoint>,
    /// How old the data of that point is: what would be lost if the volume were lost now.
    pub proven_age: Option<Duration>,
    /// Restore points.
    pub points: usize,
    /// Bytes that they take on disk, as counted when each was taken: what points share is counted with the first.
    pub stored_bytes: u64,
    /// What its owner should hear of, worst first.
    pub warnings: Vec<String>,
}

impl Control {
    /// Returns how the data of each volume of a service does, by mount path.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn data_status(&self, service: &Service) -> Result<Vec<VolumeData>, ControlError> {
        let (id, now) = (service.id.clone(), self.now());
        let volumes = self
            .inner
            .store
            .with(move |db| {
                let volumes = db.list_volumes(&id)?.into_iter();
                let with_points = volumes.map(|volume| {
                    let points = db.list_restore_points(&volume.id)?;
                    Ok((volume, points))
                });
                with_points.collect::<Result<Vec<_>, trackbed_store::StoreError>>()
            })
            .await?;
        let trouble = lock(&self.inner.keeping.troubles).get(&service.id).cloned();
        let unreadable = lock(&self.inner.keeping.unreadable).clone();
        let status = volumes.into_iter().map(|(volume, points)| {
            let mut data = status_of(volume, &points, now);
            if let Some((of, text)) = &unreadable
                && of.volume == data.volume.id
            {
                data.warnings.insert(0, text.clone());
            }
            if let Some(trouble) = &trouble {
                let ago = spoken(now.since(trouble.at));
                let text =
                    format!("the last backup failed {ago} ago, and is tried again: {}", trouble.message);
                data.warnings.insert(0, text);
            }
            data
        });
        Ok(status.collect())
    }

    /// Returns what the owner of a service should hear of its data: of its volumes, of data outside them, and of the disk.
    pub(crate) async fn data_warnings(&self, service: &Service) -> Result<Vec<String>, ControlError> {
        let mut warnings = Vec::new();
        for data in self.data_status(service).await? {
            let name = &data.volume.name;
            warnings.extend(data.warnings.iter().map(|warning| format!("volume `{name}`: {warning}")));
        }
        warnings.extend(self.stray_warnings(service));
        warnings.extend(lock(&self.inner.keeping.disk).clone());
        Ok(warnings)
    }
}

/// Judges a volume by its points, newest first.
fn status_of(volume: Volume, points: &[RestorePoint], now: Timestamp) -> VolumeData {
    let last = points.first().cloned();
    let last_proven = points.iter().find(|point| point.is_proven()).cloned();
    let proven_age = last_proven.as_ref().map(|point| now.since(point.taken_at));
    let stored_bytes = points.iter().map(|point| point.capture.stored_bytes).sum();
    let mut warnings = Vec::new();
    warnings.extend(broken_among(points, last_proven.as_ref(), now));
    warnings.extend(undecided_among(&volume, points));
    warnings.extend(is_late(&volume, last.as_ref(), now));
    warnings.extend(is_unproven(&volume, proven_age, now));
    warnings.extend(is_too_large(&volume, last.as_ref()));
    VolumeData { volume, last, last_proven, proven_age, points: points.len(), stored_bytes, warnings }
}

fn broken_among(points: &[RestorePoint], proven: Option<&RestorePoint>, now: Timestamp) -> Option<String> {
    let broken = points.iter().find(|point| point.is_broken())?;
    let reason = match broken.proof.as_ref().map(|proof| &proof.verdict) {
        Some(ProofVerdict::Broken { reason }) => reason.as_str(),
        Some(ProofVerdict::Proven { .. } | ProofVerdict::Unknown { .. }) | None => return None,
    };
    let others = points.iter().filter(|point| point.is_broken()).count() - 1;
    let others = match others {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    let way_out = match proven {
        Some(point) => {
            format!("the newest proven one is {}, {} old", point.id, spoken(now.since(point.taken_at)))
        }
        None => "none is proven; take one now: trackbed volume snapshot".to_owned(),
    };
    Some(format!("restore point {}{others} cannot be restored: {reason}; {way_out}", broken.id))
}

fn undecided_among(volume: &Volume, points: &[RestorePoint]) -> Option<String> {
    let mut undecided = points.iter().filter(|point| point.is_undecided());
    let first = undecided.next()?;
    let Some(ProofVerdict::Unknown { reason }) = first.proof.as_ref().map(|proof| &proof.verdict) else {
        return None;
    };
    let others = match undecided.count() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    Some(format!(
        "restore point {}{others} could not be proven restorable: {reason}; it is tried again every day, or now: \
         trackbed volume verify {} {}",
        first.id, volume.name, first.id
    ))
}

fn is_late(volume: &Volume, last: Option<&RestorePoint>, now: Timestamp) -> Option<String> {
    let interval = volume.schedules.iter().map(|schedule| schedule.interval()).min()?;
    let since = last.map_or(volume.created_at, |point| point.taken_at);
    let age = now.since(since);
    if age <= interval + LATE {
        return None;
    }
    let schedules: Vec<_> = volume.schedules.iter().map(|schedule| Schedule::as_str(*schedule)).collect();
    let schedules = schedules.join(", ");
    Some(match last {
        Some(_) => format!("the last backup is {} old, although they are due {schedules}", spoken(age)),
        None => format!("there is no backup yet, although they are due {schedules}"),
    })
}

fn is_unproven(volume: &Volume, proven_age: Option<Duration>, now: Timestamp) -> Option<String> {
    let interval = volume.schedules.iter().map(|schedule| schedule.interval()).min()?;
    let limit = PROVEN_WITHIN.max(interval + LATE);
    match proven_age {
        Some(age) if age > limit => {
            Some(format!("the last restore point that is proven restorable is {} old", spoken(age)))
        }
        None if now.since(volume.created_at) > limit => {
            Some("no restore point is proven restorable".to_owned())
        }
        Some(_) | None => None,
    }
}

fn is_too_large(volume: &Volume, last: Option<&RestorePoint>) -> Option<String> {
    let (limit, bytes) = (volume.limit_bytes?, last?.capture.bytes);
    (bytes > limit).then(|| {
        format!(
            "it held {} at its last restore point, which is above its limit of {}",
            words::bytes(bytes),
            words::bytes(limit)
        )
    })
}

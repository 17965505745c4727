//! What step `check` decides about data: the ids of what is to be made, and whether what is wished can be had.

use trackbed_core::deployment::{DataWish, Deployment, DeploymentKind, Pin, Rehearsal, Step};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::ports::{PointData, PortError, StrayFile};
use trackbed_core::service::Service;
use trackbed_core::settings::ServiceConfig;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, InstanceId, RestorePointId};
use trackbed_stdx::random;

use super::rehearse::is_rehearsed;
use super::{StepError, failed, pre_deploy};
use crate::control::{Control, ControlError};
use crate::resolve::refuse_broken;
use crate::unsettled::refuse_unsettled;
use crate::words;

/// Files that an adoption moves at most: beyond that it is a tree that the app should be told to keep elsewhere.
const ADOPTED_MAX: usize = 10_000;

/// Chooses the ids of all that is made of data, so that a stray of a crash can always be told from ours.
pub(super) fn choose_ids(deployment: &mut Deployment, config: &ServiceConfig, volumes: &[Volume]) {
    let points = || {
        let point = || RestorePointId::from_random(random::bytes::<ID_BYTES>());
        volumes.iter().map(move |volume| (volume.id.clone(), point()))
    };
    if pre_deploy::is_wanted(deployment.kind, config) {
        deployment.pre_deploy = Some(InstanceId::from_random(random::bytes::<ID_BYTES>()));
    }
    deployment.pins = points().map(|(volume, point)| Pin { volume, point, capture: None }).collect();
    if volumes.is_empty() {
        return;
    }
    deployment.aside = Some(DeploymentId::from_random(random::bytes::<ID_BYTES>()));
    let is_rehearsed = is_rehearsed(deployment.kind, config);
    let is_tried = deployment.pre_deploy.is_some() && !config.pre_deploy_untried;
    if is_rehearsed || is_tried {
        let wished = deployment.restore.clone();
        let data = points().map(|(volume, point)| {
            let wish = wished.iter().find(|wish| wish.volume == volume);
            wish.cloned().unwrap_or(DataWish { volume, point })
        });
        deployment.rehearsal = Some(Rehearsal {
            instance: InstanceId::from_random(random::bytes::<ID_BYTES>()),
            stage: DeploymentId::from_random(random::bytes::<ID_BYTES>()),
            points: data.collect(),
        });
    }
}

/// Names the data of a wish.
pub(super) fn data(wish: &DataWish) -> PointData {
    PointData { volume: wish.volume.clone(), point: wish.point.clone() }
}

impl Control {
    /// Refuses what is pushed or adopted while a volume is over its owner's limit. An earlier release, earlier data, and the
    /// live release once more bring nothing new, and may be what helps.
    pub(super) async fn refuse_overfull(
        &self,
        deployment: &Deployment,
        volumes: &[Volume],
    ) -> Result<(), StepError> {
        let is_pushed = matches!(deployment.kind, DeploymentKind::Up | DeploymentKind::Redeploy);
        if !is_pushed && deployment.adopt.is_none() {
            return Ok(());
        }
        for volume in volumes {
            let Some(limit) = volume.limit_bytes else { continue };
            let used = self.inner.volumes.used_bytes(volume).await;
            let used = used.map_err(|error| failed(Step::Check, error, Vec::new()))?;
            if used <= limit {
                continue;
            }
            let name = &volume.name;
            let error = PortError::new(format!(
                "volume `{name}` uses {}, more than its limit of {}",
                words::bytes(used),
                words::bytes(limit)
            ));
            let hint = format!(
                "raise the limit: trackbed volume limit {name} SIZE; or remove what is no longer needed \
                 (trackbed volume usage {name}); rollback, restore and restart are not refused"
            );
            return Err(failed(Step::Check, error.hint(hint), Vec::new()));
        }
        Ok(())
    }

    /// Refuses a deployment that was asked for before it was known that data could not be put back, unless it puts that
    /// data back itself.
    pub(super) async fn refuse_unsettled_data(
        &self,
        service: &Service,
        deployment: &Deployment,
    ) -> Result<(), StepError> {
        let (service, wishes) = (service.clone(), deployment.restore.clone());
        let refusal = self.inner.store.with(move |db| refuse_unsettled(db, &service, &wishes)).await?;
        let Some((message, hint)) = refusal else { return Ok(()) };
        Err(failed(Step::Check, PortError::new(message).hint(hint), Vec::new()))
    }

    /// Refuses a deployment whose wishes for data cannot be fulfilled.
    pub(super) async fn verify_wishes(
        &self,
        deployment: &Deployment,
        volumes: &[Volume],
    ) -> Result<(), StepError> {
        let gone = |message: String| failed(Step::Check, PortError::new(message), Vec::new());
        for wish in &deployment.restore {
            let Some(volume) = volumes.iter().find(|volume| volume.id == wish.volume) else {
                return Err(gone(format!("volume {} is no longer there", wish.volume)));
            };
            let id = wish.point.clone();
            let (found, refusal) = self
                .inner
                .store
                .with(move |db| {
                    let found = db.find_restore_point(&id)?;
                    let refusal = found.as_ref().map(|point| refuse_broken(db, point)).transpose()?.flatten();
                    Ok((found, refusal))
                })
                .await?;
            if let Some(ControlError::Conflict { message, hint }) = refusal {
                return Err(failed(Step::Check, PortError { message, hint }, Vec::new()));
            }
            if found.is_none_or(|point| point.volume != wish.volume) {
                let name = &volume.name;
                return Err(gone(format!("volume `{name}` has no restore point {} any more", wish.point)));
            }
        }
        if deployment.adopt.is_some() {
            self.adopted_files(deployment, Step::Check).await?;
        }
        Ok(())
    }

    /// Returns the files that an adoption moves, by path, as the release that wrote them left them: the one that is named
    /// with its journals, or all below a directory.
    pub(super) async fn adopted_files(
        &self,
        deployment: &Deployment,
        stage: Step,
    ) -> Result<Vec<(String, Vec<StrayFile>)>, StepError> {
        let Some(adoption) = &deployment.adopt else { return Ok(Vec::new()) };
        let Some(old) = &deployment.old_instance else {
            let paths = adoption.paths.join(", ");
            let error = PortError::new(format!("nothing runs that could have written {paths}"));
            return Err(failed(stage, error.hint("start the service first: trackbed restart"), Vec::new()));
        };
        let files = self.inner.engine.stray_files(old, ADOPTED_MAX).await;
        let files = files.map_err(|error| failed(stage, error, Vec::new()))?;
        if files.len() >= ADOPTED_MAX {
            let error =
                PortError::new(format!("the app keeps more than {ADOPTED_MAX} files outside its volumes"));
            let hint = "let it keep them in the volume: change the path in its settings";
            return Err(failed(stage, error.hint(hint), Vec::new()));
        }
        let mut by_path = Vec::new();
        for path in &adoption.paths {
            let parts: Vec<_> = files.iter().filter(|file| is_part_of(&file.path, path)).cloned().collect();
            if parts.iter().all(|file| is_journal_of(&file.path, path)) {
                let error = PortError::new(format!("the app has written nothing at {path}"));
                let hint = "`trackbed volume list` names what lies outside the volumes";
                return Err(failed(stage, error.hint(hint), Vec::new()));
            }
            by_path.push((path.clone(), parts));
        }
        Ok(by_path)
    }
}

/// Returns whether a file is the one that is named, a journal of it, or lies below it. What a journal's index (`-shm`)
/// holds is made anew.
fn is_part_of(file: &str, named: &str) -> bool {
    let rest = file.strip_prefix(named);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || is_journal_of(file, named)
}

fn is_journal_of(file: &str, named: &str) -> bool {
    file.strip_prefix(named).is_some_and(|rest| rest == "-wal" || rest == "-journal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_moves_with_its_journals_and_nothing_else() {
        let named = "/app/ba.db";
        let moves = ["/app/ba.db", "/app/ba.db-wal", "/app/ba.db-journal"];
        assert!(moves.iter().all(|file| is_part_of(file, named)));
        let stays = ["/app/ba.db-shm", "/app/ba.db2", "/app/ba.db-old", "/app/x/ba.db"];
        assert!(!stays.iter().any(|file| is_part_of(file, named)));
        assert!(is_part_of("/app/chroma/a/b.bin", "/app/chroma"));
    }
}

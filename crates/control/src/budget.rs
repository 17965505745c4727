//! The disk budget: snapshots, sources, layers, logs and caches share the disk with the volumes, and give way to them.
//!
//! A reserve of the disk ([`reserve`]) is kept free for the volumes. What nobody needs goes in any case, four times a day.
//! When less than the reserve is free, more goes, one after the other until there is room again:
//!
//! 1. the caches of builds, which only make the next one faster;
//! 2. logs of all but the newest builds;
//! 3. sources and images of all but the newest releases, the live one and the one before it;
//! 4. restore points: those of a volume down to the newest and the newest proven one, and what a deployment needs.
//!
//! A volume never goes, nor the image of anything that runs. From twice the reserve on there is a warning.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use trackbed_core::deployment::{Deployment, DeploymentKind, DeploymentState, Step};
use trackbed_core::image::Image;
use trackbed_core::ports::{DiskSpace, LetGo, PortError};
use trackbed_core::{DeploymentId, Digest, ReleaseId, Timestamp};
use trackbed_store::{Db, StoreError};

use crate::bounded::bound;
use crate::build_log::remove_build_logs;
use crate::control::{Control, ControlError};
use crate::keeping::lock;
use crate::retention::Room;
use crate::words;

/// Share of the disk that is kept free, in percent.
const RESERVE_PERCENT: u64 = 5;
/// What is kept free at least: enough for a database to checkpoint and for one more deployment.
const RESERVE_LEAST_BYTES: u64 = 1 << 30;
/// How long removing layers, sources and caches may take.
const COLLECT_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A source stays for a day after it was received last, whatever became of it.
const SOURCE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Deployments of a service that are looked through for what they refer to.
const LOOKED_THROUGH: u32 = 200;

/// How much of the past of a service's code is kept.
#[derive(Debug, Clone, Copy)]
struct Past {
    releases: usize,
    /// Pushed deployments, whose source a `redeploy` takes.
    pushed: usize,
    logs: usize,
    /// Whether the age of a source counts.
    spares_young_sources: bool,
}

/// What is kept as long as there is room.
const ROOMY: Past = Past { releases: 20, pushed: 5, logs: 100, spares_young_sources: true };
/// What is kept when there is none.
const SCARCE: Past = Past { releases: 3, pushed: 1, logs: 10, spares_young_sources: false };

/// Returns what of a disk is kept free for the volumes, in bytes: 5 %, at least 1 GiB, but never more than a quarter of
/// a small disk.
pub(crate) fn reserve(total_bytes: u64) -> u64 {
    (total_bytes / 100 * RESERVE_PERCENT).max(RESERVE_LEAST_BYTES.min(total_bytes / 4))
}

impl Control {
    /// Lets go of code and logs that nobody needs.
    pub(crate) async fn tidy_code(&self) {
        self.let_go_of_code(ROOMY).await;
        self.let_go_of_logs(ROOMY).await;
    }

    /// Looks at the room on the disk, warns, and makes room when less than the reserve is left.
    pub(crate) async fn keep_disk_free(&self) {
        let Some(space) = self.space().await else { return };
        *lock(&self.inner.keeping.disk) = warning(space);
        if !is_scarce(space) {
            return;
        }
        let free = words::bytes(space.free_bytes);
        tracing::warn!(free, "the disk is nearly full; what can be made again or is old goes");
        for measure in [Measure::Caches, Measure::Logs, Measure::Code, Measure::Points] {
            self.make_room(measure).await;
            let Some(space) = self.space().await else { return };
            *lock(&self.inner.keeping.disk) = warning(space);
            if !is_scarce(space) {
                return;
            }
        }
        tracing::error!(
            "nothing is left on the disk that may go, and less than the reserve of the volumes is free"
        );
    }

    async fn make_room(&self, measure: Measure) {
        match measure {
            Measure::Caches => self.let_go_of_caches().await,
            Measure::Logs => self.let_go_of_logs(SCARCE).await,
            Measure::Code => self.let_go_of_code(SCARCE).await,
            Measure::Points => {
                let collected = match self.retire_points(Room::Scarce).await {
                    Ok(0) => return,
                    Ok(_) => self.collect_points().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = collected {
                    tracing::warn!(%error, "restore points could not be let go");
                }
            }
        }
    }

    /// Returns the bytes that may be written beside the volumes without touching their reserve; none when that is not known.
    pub async fn room(&self) -> Option<u64> {
        let space = self.space().await?;
        Some(space.free_bytes.saturating_sub(reserve(space.total_bytes)))
    }

    async fn space(&self) -> Option<DiskSpace> {
        match self.inner.volumes.space().await {
            Ok(space) => Some(space),
            Err(error) => {
                tracing::warn!(%error, "the room on the disk is not known");
                None
            }
        }
    }

    async fn let_go_of_caches(&self) {
        let Some(no_build) = self.no_build() else { return };
        let builder = self.inner.builder.clone();
        let dropped = self.holding(no_build, "removing caches", async move { builder.drop_caches().await });
        if let Err(error) = dropped.await {
            tracing::warn!(%error, "the caches of builds could not be removed");
        }
    }

    async fn let_go_of_code(&self, past: Past) {
        match self.collect_code(past).await {
            Ok(Some(gone)) if gone != LetGo::default() => {
                let LetGo { layers, layer_bytes, sources } = gone;
                tracing::info!(layers, layer_bytes, sources, "old layers and sources removed");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "old layers and sources could not be removed"),
        }
    }

    /// Removes the layers and sources that nothing needs. None when something is being built: the next pass tries again.
    async fn collect_code(&self, past: Past) -> Result<Option<LetGo>, ControlError> {
        let Some(no_build) = self.no_build() else { return Ok(None) };
        let now = self.now();
        let kept = self.inner.store.with(move |db| keep_code(db, past, now)).await?;
        let Some(Kept { images, sources }) = kept else { return Ok(None) };
        let builder = self.inner.builder.clone();
        let collected = async move { builder.collect(&images, &sources).await };
        Ok(Some(self.holding(no_build, "removing layers and sources", collected).await?))
    }

    /// Returns all slots of builds: with them in hand none begins, so none finds a layer that is about to go.
    fn no_build(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.turns.slots.clone().try_acquire_many_owned(self.slots()).ok()
    }

    /// Waits for something within [`COLLECT_LIMIT`]. What hangs is waited for no longer, but it keeps the slots until it
    /// ends: it may go on removing, and a build that began meanwhile would lose what it has just found.
    async fn holding<T: Send + 'static>(
        &self,
        no_build: OwnedSemaphorePermit,
        what: &'static str,
        work: impl Future<Output = Result<T, PortError>> + Send + 'static,
    ) -> Result<T, PortError> {
        let (told, answer) = oneshot::channel();
        self.inner.tasks.spawn(what, async move {
            let _no_build = no_build;
            // Nobody may listen any more.
            let _ = told.send(work.await);
        });
        let ended = || PortError::new(format!("{what} ended early"));
        bound(what, COLLECT_LIMIT, async move { answer.await.unwrap_or_else(|_| Err(ended())) }).await
    }

    async fn let_go_of_logs(&self, past: Past) {
        let kept = self.inner.store.with(move |db| {
            let mut kept: HashSet<DeploymentId> =
                db.list_all_unfinished()?.into_iter().map(|deployment| deployment.id).collect();
            for service in db.list_services()? {
                let newest =
                    db.list_deployments(&service.id, u32::try_from(past.logs).unwrap_or(u32::MAX))?;
                kept.extend(newest.into_iter().map(|deployment| deployment.id));
            }
            Ok(kept)
        });
        let removed = match kept.await {
            Ok(kept) => remove_build_logs(&self.inner.config.data_dir, kept).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "old logs of builds could not be removed");
        }
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.inner.config.builds_at_once.max(1)).unwrap_or(u32::MAX)
    }
}

/// What goes when the disk is nearly full, in this order.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Caches,
    Logs,
    Code,
    Points,
}

fn is_scarce(space: DiskSpace) -> bool {
    space.free_bytes < reserve(space.total_bytes)
}

fn warning(space: DiskSpace) -> Option<String> {
    let reserve = reserve(space.total_bytes);
    if space.free_bytes >= reserve.saturating_mul(2) {
        return None;
    }
    let (free, total) = (words::bytes(space.free_bytes), words::bytes(space.total_bytes));
    let then = match is_scarce(space) {
        true => {
            "caches, old logs, old releases and old restore points go now; free space on it, or make it larger"
        }
        false => "free space on it, or make it larger, before restore points have to go",
    };
    Some(format!("{free} of {total} are free on the disk of the volumes: {then}"))
}

/// The code that is kept.
struct Kept {
    images: Vec<Image>,
    sources: Vec<Digest>,
}

/// Decides which images and sources are kept, and stores that the others are gone. None while an image is made of which
/// nobody knows yet.
fn keep_code(db: &Db<'_>, past: Past, now: Timestamp) -> Result<Option<Kept>, StoreError> {
    let unfinished = db.list_all_unfinished()?;
    let is_being_built =
        |deployment: &Deployment| deployment.step == Step::Build && deployment.entered == Some(Step::Build);
    if unfinished.iter().any(is_being_built) {
        return Ok(None);
    }
    let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
    let mut sources: BTreeSet<Digest> = BTreeSet::new();
    let mut needed: HashSet<ReleaseId> = HashSet::new();
    for deployment in unfinished {
        images.extend(deployment.image.map(|image| (image.digest.clone(), image)));
        sources.extend(deployment.source);
        needed.extend(deployment.release.into_iter().chain(deployment.previous));
    }
    for service in db.list_services()? {
        let deployments = db.list_deployments(&service.id, LOOKED_THROUGH)?;
        needed.extend(service.live.map(|live| live.release));
        // What ran before the live one: also what a retirement that is owed still runs.
        let mut successes =
            deployments.iter().filter(|deployment| deployment.state == DeploymentState::Success);
        needed.extend(successes.next().and_then(|deployment| deployment.previous.clone()));
        let is_pushed = |deployment: &&Deployment| {
            matches!(deployment.kind, DeploymentKind::Up | DeploymentKind::Redeploy)
                && deployment.plan.is_some()
        };
        let pushed = deployments.iter().filter(is_pushed).take(past.pushed);
        sources.extend(pushed.filter_map(|deployment| deployment.source.clone()));
        for (index, release) in db.list_kept_releases(&service.id)?.into_iter().enumerate() {
            if index >= past.releases && !needed.contains(&release.id) {
                db.set_collected(&release.id)?;
                continue;
            }
            sources.insert(release.source);
            images.insert(release.image.digest.clone(), release.image);
        }
    }
    for (source, received_at) in db.list_sources()? {
        if past.spares_young_sources && now.since(received_at) < SOURCE_KEPT {
            sources.insert(source);
        } else if !sources.contains(&source) {
            // The word first: nobody deploys what is about to go.
            db.remove_source(&source)?;
        }
    }
    Ok(Some(Kept { images: images.into_values().collect(), sources: sources.into_iter().collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn a_share_of_a_large_disk_and_a_gigabyte_of_a_usual_one_are_kept_free() {
        assert_eq!(reserve(1000 * GB), 50 * GB);
        assert_eq!(reserve(10 * GB), GB);
        assert_eq!(reserve(2 * GB), GB / 2, "a small disk is not all reserve");
    }

    #[test]
    fn the_owner_is_warned_before_anything_goes() {
        let with = |free_bytes| DiskSpace { total_bytes: 10 * GB, free_bytes };
        assert_eq!(warning(with(3 * GB)), None);
        let early = warning(with(GB + GB / 2)).unwrap();
        assert!(
            early.contains("before restore points have to go") && !is_scarce(with(GB + GB / 2)),
            "{early}"
        );
        assert!(warning(with(GB / 2)).unwrap().contains("go now"));
    }
}

//! `trackbed recover`: an empty machine becomes the box that its copies were made of.
//!
//! Everything is fetched and checked before the state comes into its place, which is the last thing that happens: a data
//! directory without `state.db` is no box yet, and the same command goes on with it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trackbed_api::BackupCopy;
use trackbed_control::{Recovered, settle_recovered};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::offsite::OffsiteTarget;
use trackbed_core::ports::{Depth, PointData, Volumes};
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, Secret, Timestamp};
use trackbed_offsite::{Copies, History, Limits, Lost, Progress};
use trackbed_stdx::files;
use trackbed_store::{Key, Store};
use trackbed_volume::LocalVolumes;

use crate::recover_tell::{ago, now, points_of, tell_found, tell_lost, tell_passed_over, told};
use crate::remote_drill::point_of;

/// Holds the lock of a data directory on its way.
type Begun = Box<dyn Send>;

/// What `recover` is started with.
#[derive(Debug, Clone)]
pub struct RecoverConfig {
    /// Where the box will be; empty, or left by an interrupted recovery.
    pub data_dir: PathBuf,
    /// The address of the target.
    pub url: String,
    /// Settings and credentials of its store.
    pub options: Vec<(String, Secret<String>)>,
    /// The age identity that opens the copies.
    pub identity: Secret<String>,
    /// A cap in bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// Make the copies this box's: the one that made them refuses to go on.
    pub take_over: bool,
    /// Which copies to take.
    pub at: RecoverAt,
}

/// Which copies of a box are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverAt {
    /// The newest that are whole.
    Newest,
    /// The newest that are whole and were made no later.
    Time(Timestamp),
    /// Those with this number, also when they are not whole: what is left of them.
    Number(u64),
}

/// Says that a data directory is on its way to become a box.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    /// Whose key opens the copies: earlier ones may be of another box that went over into this one.
    recipient: String,
}

/// Lists the copies that a target holds, newest first. Writes nothing.
///
/// # Errors
/// When the key does not fit, there are no copies, or the target cannot be read.
pub async fn list_copies(config: RecoverConfig) -> Result<Vec<BackupCopy>> {
    let (data_dir, target) = (config.data_dir.clone(), target_of(config));
    let history = History::open(&target, &data_dir, Limits::default()).await.map_err(told)?;
    let all = history.list().await.map_err(told)?;
    let shown = all.into_iter().map(|found| BackupCopy {
        number: found.number,
        taken_at: found.taken_at.map(|at| at.0),
        objects: found.paths.len() as u64,
        bytes: found.bytes,
        points: points_of(&found).len() as u64,
        faults: found.faults,
        head: found.head,
    });
    Ok(shown.collect())
}

/// Recovers a box.
///
/// # Errors
/// When the key does not fit or there are no copies: then nothing was written. When something is damaged or cannot be
/// read: then the same command goes on later. When the data directory is a box already.
pub async fn recover(config: RecoverConfig) -> Result<()> {
    let data_dir = config.data_dir.clone();
    if data_dir.join("state.db").exists() {
        bail!("{} holds a box already; name another --data-dir, or move it away first", data_dir.display());
    }
    let (at, take_over) = (config.at, config.take_over);
    let target = target_of(config);
    let history = History::open(&target, &data_dir, Limits::default()).await.map_err(told)?;
    let (copies, lost, begun) = match at {
        RecoverAt::Newest => fetch_whole(&history, &data_dir, None).await?,
        RecoverAt::Time(at) => fetch_whole(&history, &data_dir, Some(at)).await?,
        RecoverAt::Number(number) => fetch_what_is_left(&history, &data_dir, number).await?,
    };
    let folder = state_folder(&data_dir);
    let recovered = fill(&data_dir, &folder, &copies, &lost).await?;
    warn_of_moved_programs(&data_dir, &recovered, copies.data_dir());
    if take_over {
        copies.take_over(&data_dir, now()).await.map_err(told)?;
        tracing::info!("the copies are this box's now; the box that made them refuses to go on");
    } else {
        tracing::info!(
            "the copies stay with the box that made them; when it is gone for good: `trackbed backup target set … --take-over`"
        );
    }
    finish(&data_dir, &folder).context("cannot put the state in its place")?;
    drop(begun);
    tracing::info!(
        services = recovered.services.len(),
        volumes = recovered.volumes.len(),
        "recovered; start it: trackbed serve --data-dir {}",
        data_dir.display()
    );
    Ok(())
}

fn target_of(config: RecoverConfig) -> OffsiteTarget {
    OffsiteTarget {
        url: config.url,
        options: config.options,
        identity: config.identity,
        bandwidth_bytes: config.bandwidth_bytes,
    }
}

fn state_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("offsite/recovered")
}

/// Fetches the newest copies of which all is there and is what was sent. What turns out to be damaged on the way makes
/// it begin anew with earlier ones; what they have in common is kept.
async fn fetch_whole(
    history: &History,
    data_dir: &Path,
    not_after: Option<Timestamp>,
) -> Result<(Copies, Vec<Lost>, Begun)> {
    let (mut damaged, mut begun) = (BTreeSet::new(), None);
    loop {
        let (copies, passed) = history.newest_whole(not_after, &damaged).await.map_err(told)?;
        tell_passed_over(&copies, &passed);
        tell_found(&copies);
        // Not before it is known that there is something to write.
        let begun_now = match begun.take() {
            Some(begun) => begun,
            None => begin(data_dir, &copies.recipient())?,
        };
        let lost = fetch_all(&copies, data_dir).await?;
        if lost.is_empty() {
            return Ok((copies, lost, begun_now));
        }
        begun = Some(begun_now);
        tell_lost(&lost);
        damaged.extend(lost.into_iter().map(|lost| lost.object));
    }
}

/// Fetches what can be had of the copies with this number.
async fn fetch_what_is_left(
    history: &History,
    data_dir: &Path,
    number: u64,
) -> Result<(Copies, Vec<Lost>, Begun)> {
    let (copies, _) = history.numbered(number).await.map_err(told)?;
    tell_found(&copies);
    let begun = begin(data_dir, &copies.recipient())?;
    let lost = fetch_all(&copies, data_dir).await?;
    if let Some(state) = lost.iter().find(|lost| lost.object == copies.state_object()) {
        bail!(
            "number {number} cannot be recovered without its state, and {}; `--list` shows what else there is",
            state.reason
        );
    }
    tell_lost(&lost);
    Ok((copies, lost, begun))
}

/// Fetches the state and everything else. Returns what cannot be had.
async fn fetch_all(copies: &Copies, data_dir: &Path) -> Result<Vec<Lost>> {
    // First, because nothing can be done without it.
    if let Some(lost) = copies.fetch_state(&state_folder(data_dir)).await.map_err(told)? {
        return Ok(vec![lost]);
    }
    let mut said = 0;
    let say = |progress: Progress| {
        let percent = progress.bytes.saturating_mul(100) / progress.of_bytes.max(1);
        if percent >= said + 10 || progress.objects == progress.of_objects {
            said = percent;
            tracing::info!(
                objects = progress.objects,
                of = progress.of_objects,
                percent,
                kept = progress.kept,
                "fetched"
            );
        }
    };
    Ok(copies.fetch(data_dir, |_| true, say).await.map_err(told)?.1)
}

/// Takes the data directory, empty or begun by an earlier attempt at the same box.
fn begin(data_dir: &Path, recipient: &str) -> Result<Begun> {
    // Private each, because levels without mounts let apps pass through the data directory.
    for name in ["offsite", "sources", "snapshots", "tmp"] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir.join(name))
            .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    }
    let Some(lock) = files::try_lock(&data_dir.join("lock")).context("cannot lock the data directory")?
    else {
        bail!("{} is in use by another trackbed", data_dir.display());
    };
    let path = data_dir.join("offsite/recovering.json");
    match fs::read(&path) {
        Ok(bytes) => {
            let marker: Marker = serde_json::from_slice(&bytes).context("cannot read what was begun")?;
            if marker.recipient != recipient {
                bail!(
                    "{} holds an unfinished recovery of other copies, sealed for {}; name another --data-dir",
                    data_dir.display(),
                    marker.recipient
                );
            }
            tracing::info!("going on with what an earlier recovery has fetched");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = serde_json::to_vec(&Marker { recipient: recipient.to_owned() })?;
            files::write_atomic(&path, &text, 0o600).context("cannot begin")?;
        }
        Err(error) => return Err(error).context("cannot read what was begun"),
    }
    Ok(Box::new(lock))
}

/// Makes the recovered state ready, and fills every volume from its newest point that can be restored.
async fn fill(data_dir: &Path, folder: &Path, copies: &Copies, lost: &[Lost]) -> Result<Recovered> {
    private(&folder.join("key"))?;
    let key = Key::open(&folder.join("key"))?;
    let store = Store::open(&folder.join("state.db"), key)?;
    let recovered = settle_recovered(&store, now()).await?;
    drop(store);
    let volumes = LocalVolumes::new(data_dir);
    for (volume, points) in &recovered.volumes {
        volumes.ensure(volume).await?;
        match fill_volume(&volumes, volume, points, copies).await {
            // Whoever asked for what is left gets what is left.
            Err(error) if !lost.is_empty() => {
                tracing::error!(volume = %volume.name, "the data of this volume is lost, and it begins empty: {error:#}");
            }
            other => other?,
        }
    }
    Ok(recovered)
}

async fn fill_volume(
    volumes: &LocalVolumes,
    volume: &Volume,
    points: &[RestorePoint],
    copies: &Copies,
) -> Result<()> {
    let stage = stage_of(volume);
    let there: Vec<PointData> = copies.paths().filter_map(point_of).collect();
    let mut last = None;
    for point in points.iter().filter(|point| there.iter().any(|data| data.point == point.id)) {
        let data = PointData { volume: volume.id.clone(), point: point.id.clone() };
        // An earlier attempt may have ended between staging and discarding.
        volumes.discard(&volume.id, &stage).await?;
        let staged = match volumes.stage(volume, &data, &stage, Depth::Content).await {
            Ok(staged) => staged,
            Err(error) => {
                tracing::error!(volume = %volume.name, point = %point.id, %error, "this point cannot be restored; the one before is tried");
                last = Some(error);
                continue;
            }
        };
        volumes.swap_in(volume, &stage).await?;
        volumes.discard(&volume.id, &stage).await?;
        tracing::info!(volume = %volume.name, point = %point.id, taken = ago(point.taken_at), files = staged.files, bytes = staged.bytes, rows = staged.rows, "volume restored and verified");
        return Ok(());
    }
    match last {
        None => {
            tracing::warn!(volume = %volume.name, "it has no restore point among the copies, and begins empty");
            Ok(())
        }
        Some(error) => Err(error).with_context(|| {
            format!("no restore point of volume `{}` can be restored from the copies", volume.name)
        }),
    }
}

/// The stage that a volume is filled by: the same in every attempt.
fn stage_of(volume: &Volume) -> DeploymentId {
    let digest = Sha256::digest(format!("recover {}", volume.id));
    let mut bytes = [0; ID_BYTES];
    bytes.copy_from_slice(&digest[..ID_BYTES]);
    DeploymentId::from_random(bytes)
}

/// Says which programs of the box must be here and are not: an interpreter that lay outside the data directory, or in a
/// data directory of another name.
fn warn_of_moved_programs(data_dir: &Path, recovered: &Recovered, was: &str) {
    if Path::new(was) != data_dir {
        tracing::info!(was, now = %data_dir.display(), "the data directory has another name than it had");
    }
    for release in &recovered.releases {
        for path in release.image.host_paths.iter().filter(|path| !Path::new(path).exists()) {
            tracing::warn!(
                release = release.label(),
                "{path} is missing on this machine, and the release needs it: install it there, or `trackbed up` once more"
            );
        }
        if let Some(container) = &release.image.container {
            tracing::warn!(
                release = release.label(),
                "its container image {} is in no copy: `trackbed redeploy` or `trackbed up` makes it anew on this machine",
                container.id
            );
        }
    }
}

/// The state last: from here on the data directory is a box.
fn finish(data_dir: &Path, folder: &Path) -> io::Result<()> {
    private(&folder.join("state.db"))?;
    fs::rename(folder.join("key"), data_dir.join("key"))?;
    files::remove_tree(&data_dir.join("offsite/recovering.json"))?;
    files::sync_folder(&data_dir.join("offsite"))?;
    fs::File::open(folder.join("state.db"))?.sync_all()?;
    fs::rename(folder.join("state.db"), data_dir.join("state.db"))?;
    files::sync_folder(data_dir)?;
    files::remove_tree(folder)
}

fn private(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

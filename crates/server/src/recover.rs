//! `trackbed recover`: an empty machine becomes the box that its copies were made of.
//!
//! Everything is fetched and checked before the state comes into its place, which is the last thing that happens: a data
//! directory without `state.db` is no box yet, and the same command goes on with it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trackbed_control::{Recovered, settle_recovered};
use trackbed_core::ids::ID_BYTES;
use trackbed_core::offsite::OffsiteTarget;
use trackbed_core::ports::{Depth, PointData, PortError, Volumes};
use trackbed_core::restore_point::RestorePoint;
use trackbed_core::volume::Volume;
use trackbed_core::{DeploymentId, Secret, Timestamp};
use trackbed_offsite::{Copies, Keys, Limits, Progress};
use trackbed_stdx::{clock, files};
use trackbed_store::{Key, Store};
use trackbed_volume::LocalVolumes;

use crate::remote_drill::point_of;

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
}

/// Says that a data directory is on its way to become a box.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    #[serde(rename = "box")]
    box_id: String,
}

/// Recovers a box.
///
/// # Errors
/// When the key does not fit or there are no copies: then nothing was written. When something is damaged or cannot be
/// read: then the same command goes on later. When the data directory is a box already.
pub async fn recover(config: RecoverConfig) -> Result<()> {
    let data_dir = config.data_dir;
    if data_dir.join("state.db").exists() {
        bail!("{} holds a box already; name another --data-dir, or move it away first", data_dir.display());
    }
    Keys::parse(&config.identity).map_err(told)?;
    let target = OffsiteTarget {
        url: config.url,
        options: config.options,
        identity: config.identity,
        bandwidth_bytes: config.bandwidth_bytes,
    };
    let copies = Copies::open(&target, &data_dir, Limits::default()).await.map_err(told)?;
    tracing::info!(
        from = copies.box_id(),
        sequence = copies.sequence(),
        taken = ago(copies.taken_at()),
        bytes = copies.size_bytes(),
        "copies found"
    );
    let begun = begin(&data_dir, copies.box_id())?;
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
    copies.fetch(&data_dir, |_| true, say).await.map_err(told)?;
    let folder = data_dir.join("offsite/recovered");
    copies.fetch_state(&folder).await.map_err(told)?;
    let recovered = fill(&data_dir, &folder, &copies).await?;
    warn_of_moved_programs(&data_dir, &recovered, copies.data_dir());
    if config.take_over {
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

/// Takes the data directory, empty or begun by an earlier attempt at the same box.
fn begin(data_dir: &Path, box_id: &str) -> Result<impl Drop + use<>> {
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
            if marker.box_id != box_id {
                bail!(
                    "{} holds an unfinished recovery of another box ({}); name another --data-dir",
                    data_dir.display(),
                    marker.box_id
                );
            }
            tracing::info!("going on with what an earlier recovery has fetched");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = serde_json::to_vec(&Marker { box_id: box_id.to_owned() })?;
            files::write_atomic(&path, &text, 0o600).context("cannot begin")?;
        }
        Err(error) => return Err(error).context("cannot read what was begun"),
    }
    Ok(lock)
}

/// Makes the recovered state ready, and fills every volume from its newest point that can be restored.
async fn fill(data_dir: &Path, folder: &Path, copies: &Copies) -> Result<Recovered> {
    private(&folder.join("key"))?;
    let key = Key::open(&folder.join("key"))?;
    let store = Store::open(&folder.join("state.db"), key)?;
    let recovered = settle_recovered(&store, now()).await?;
    drop(store);
    let volumes = LocalVolumes::new(data_dir);
    for (volume, points) in &recovered.volumes {
        volumes.ensure(volume).await?;
        fill_volume(&volumes, volume, points, copies).await?;
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

fn now() -> Timestamp {
    Timestamp(clock::now_ms())
}

fn ago(at: Timestamp) -> String {
    let seconds = now().since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} minutes ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn told(error: trackbed_offsite::OffsiteError) -> anyhow::Error {
    let PortError { message, hint } = error.into();
    match hint {
        Some(hint) => anyhow::anyhow!("{message}; {hint}"),
        None => anyhow::anyhow!("{message}"),
    }
}

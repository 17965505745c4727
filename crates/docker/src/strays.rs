//! Finds what an app has written outside its volumes, where it is lost with its container.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use trackbed_core::InstanceId;
use trackbed_core::ports::{PortError, StrayFile};

use crate::daemon::{self, words};
use crate::engine::{Docker, unknown};
use crate::life::Life;
use crate::records::Order;

/// The first bytes of every SQLite database that holds anything.
const DATABASE: &[u8; 16] = b"SQLite format 3\0";
/// Folders that systems and tools fill and fill again: nothing in them is anybody's data.
const NOISE: [&str; 6] = ["/tmp/", "/run/", "/var/run/", "/var/cache/", "/var/log/", "/dev/"];
/// The same, wherever they are.
const NOISE_PARTS: [&str; 5] = ["/__pycache__/", "/.cache/", "/node_modules/", "/.npm/", "/.git/"];
/// What engines themselves put into every container.
const ENGINES_OWN: [&str; 5] =
    ["/.dockerenv", "/sbin/docker-init", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
/// Changes that are looked at.
const CHANGES_LIMIT: usize = 100_000;
/// Opens no link (open(2)).
const O_NOFOLLOW: i32 = 0o400_000;
const O_NONBLOCK: i32 = 0o4_000;

/// Finds files of a container that are neither in a volume nor the image's own; see
/// [`trackbed_core::ports::Engine::stray_files`].
pub(crate) async fn find(
    docker: &Docker,
    id: &InstanceId,
    limit: usize,
) -> Result<Vec<StrayFile>, PortError> {
    let order = match docker.life(id).await {
        None => return Err(unknown(id)),
        Some(Life::Beginning) => return Ok(Vec::new()),
        Some(Life::Living { .. } | Life::Ended(_)) => {
            docker.folder(id).find_order().ok_or_else(|| unknown(id))?
        }
    };
    let daemon = daemon::connect(&order.daemon).await?;
    let name = order.container();
    let failed = |error: &bollard::errors::Error| {
        PortError::new(format!("cannot read the files of instance {id}: {}", words(error)))
    };
    let seen = match daemon.inspect(&name).await {
        // It never ran, or somebody has removed it.
        Err(error) if daemon::is_missing(&error) => return Ok(Vec::new()),
        seen => seen.map_err(|error| failed(&error))?,
    };
    // Drivers that keep what was written apart say where. Of others the names are known, not the files.
    let top = seen.graph_driver.and_then(|driver| driver.data.get("UpperDir").cloned());
    let changes =
        daemon.api.container_changes(&name).await.map_err(|error| failed(&error))?.unwrap_or_default();
    let mut files: Vec<StrayFile> = changes
        .into_iter()
        .take(CHANGES_LIMIT)
        .map(|change| change.path)
        .filter(|path| !is_noise(path, &order))
        .filter_map(|path| look(top.as_deref()?, &path))
        .collect();
    files.sort_by_key(|file| (!file.is_database, std::cmp::Reverse(file.size_bytes)));
    files.truncate(limit);
    Ok(files)
}

fn is_noise(path: &str, order: &Order) -> bool {
    let below =
        |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ENGINES_OWN.contains(&path)
        || NOISE.iter().any(|folder| path.starts_with(folder))
        || NOISE_PARTS.iter().any(|part| path.contains(part))
        || order.volumes.iter().any(|volume| below(volume.mount.as_str()))
}

/// Looks at one file. The app is hostile: no link is followed at the end, and names with `..` do not come from an engine.
fn look(top: &str, path: &str) -> Option<StrayFile> {
    let host_path = Path::new(top).join(path.trim_start_matches('/'));
    if path.split('/').any(|part| part == "..") || has_link(Path::new(top), path) {
        return None;
    }
    let mut file =
        std::fs::OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(&host_path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut head = [0; DATABASE.len()];
    let is_database = file.read_exact(&mut head).is_ok() && &head == DATABASE;
    Some(StrayFile { path: path.to_owned(), host_path, size_bytes: metadata.len(), is_database })
}

fn has_link(top: &Path, path: &str) -> bool {
    let mut at = top.to_owned();
    path.split('/').filter(|part| !part.is_empty()).any(|part| {
        at.push(part);
        at.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
    })
}

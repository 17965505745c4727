//! The files of a service's volumes, copied and proven.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use trackbed_api::{DrillRequest, SnapshotRequest, VolumeRequest};
use trackbed_client::{Client, ServiceClient};

use super::program::Railway;
use crate::commands::volume::send_folder;
use crate::human::{count, plain};
use crate::names::nearest;
use crate::session::{Refusal, Session};
use crate::target::Names;

/// How long the files of a volume may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug, Deserialize)]
struct Volumes {
    volumes: Vec<TheirVolume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TheirVolume {
    id: String,
    name: String,
    mount_path: String,
    service_name: Option<String>,
    #[serde(default)]
    is_pending_deletion: bool,
}

/// Reads a list and returns the volumes of the service; without its name only one that is alone.
///
/// # Errors
/// When it is no list, or has several and it is not known whose are wanted.
pub(super) fn chosen(session: &Session, service: Option<&str>, answer: &str) -> Result<Vec<TheirVolume>> {
    let all: Volumes =
        serde_json::from_str(answer).context("`railway volume list --json` gave no list of volumes")?;
    // Railway takes a name in any case.
    let is_its = |volume: &TheirVolume| match service {
        Some(service) => volume.service_name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(service)),
        None => true,
    };
    let its = all.volumes.into_iter().filter(is_its);
    let (leaving, its): (Vec<_>, Vec<_>) = its.partition(|volume| volume.is_pending_deletion);
    for volume in leaving {
        let name = plain(&volume.name);
        session.output.talk(format!("volume {name} is left out: Railway is about to delete it"));
    }
    if service.is_none() && its.len() > 1 {
        return Err(Refusal::with_hint(
            "the environment has several volumes, and it is not known whose are wanted",
            "name the service: --service NAME",
        ));
    }
    Ok(its)
}

/// Copies a volume. Returns whether all files came over, and whole.
///
/// # Errors
/// When the volume here has files already, or Railway or the box refuses.
pub(super) async fn fetch(
    session: &Session,
    client: &Client,
    names: &Names,
    railway: &Railway<'_>,
    environment: &str,
    theirs: &TheirVolume,
    download: &Path,
) -> Result<bool> {
    let name = nearest(&theirs.name).unwrap_or_else(|| "data".to_owned());
    let service = names.of(client);
    let known = service.volumes().await?.into_iter().find(|volume| volume.mount == theirs.mount_path);
    let name = match known {
        Some(volume) => volume.name,
        None => {
            let request = VolumeRequest { name, mount: theirs.mount_path.clone() };
            service.add_volume(&request).await?.name
        }
    };
    let volume = service.volume(&name);
    if !volume.files("/").await?.is_empty() {
        let message = format!("volume {name} holds files already; nothing was copied into it");
        return Err(Refusal::with_hint(message, "remove them, or import with --no-data"));
    }
    let to = download.to_string_lossy();
    // By its id: names may be those of several. Each level of the command has options of its own, which stand before the next.
    let get = [
        "volume",
        "--environment",
        environment,
        "files",
        "--volume",
        &theirs.id,
        "download",
        "/",
        &to,
        "--json",
    ];
    railway.ask_within(&get, DOWNLOAD_LIMIT).await?;
    let sent = send_folder(session, &volume, download, "").await?;
    let copied = count(sent.entries.len() as u64, "file");
    session.output.talk(format!("volume {name} at {}: {copied} copied", theirs.mount_path));
    Ok(sent.left == 0 && is_sound(session, &service, &name).await?)
}

/// Takes the volume's first restore point and proves it: a database that was written to while it was copied shows there.
async fn is_sound(session: &Session, service: &ServiceClient<'_>, volume: &str) -> Result<bool> {
    let output = &session.output;
    let taken = service.snapshot(&SnapshotRequest { volume: Some(volume.to_owned()) }).await?;
    let mut is_sound = true;
    for point in taken {
        let proof = service.volume(volume).drill(&DrillRequest { point: Some(point.id) }).await?.proof;
        if proof.as_ref().is_some_and(|proof| proof.proven) {
            output.talk(format!("volume {volume}: what came is whole, as its restore point proves"));
            continue;
        }
        is_sound = false;
        let reason =
            proof.and_then(|proof| proof.reason).unwrap_or_else(|| "it was not looked at".to_owned());
        output.talk(format!(
            "volume {volume}: what came is NOT whole: {}\n  It was written to while it was copied, or it is damaged on \
             Railway, too. Let the service there run without\n  writing (start command `sleep infinity`), `trackbed \
             volume remove {volume}` here, and import again.",
            plain(&reason)
        ));
    }
    Ok(is_sound)
}

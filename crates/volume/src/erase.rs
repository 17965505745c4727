//! The end of a removed volume: the only place in which a volume is ever deleted.

use std::fs;
use std::io;
use std::path::Path;

use trackbed_core::ports::PortError;
use trackbed_core::volume::Volume;
use trackbed_stdx::files;

use crate::place::LocalVolumes;
use crate::restore::lock;

impl LocalVolumes {
    pub(crate) async fn erase_volume(&self, volume: &Volume) -> Result<(), PortError> {
        if volume.removed_at.is_none() {
            let error =
                PortError::new(format!("volume `{}` is not removed, so it is not deleted", volume.name));
            return Err(error.hint("trackbed volume remove"));
        }
        let (place, name) = (self.place(&volume.id), volume.name.to_string());
        let erased = tokio::task::spawn_blocking(move || {
            let refused =
                |error: io::Error| PortError::new(format!("cannot delete volume `{name}`: {error}"));
            let Some(folder) = place.directory.parent() else { return Ok(()) };
            if folder.exists() {
                let _held = match place.lock.exists() {
                    true => Some(lock::take(&place.lock, &format!("volume `{name}`"))?),
                    false => None,
                };
                rename_away(folder).map_err(refused)?;
            }
            files::remove_tree(&gone(folder)).map_err(refused)
        })
        .await;
        erased.unwrap_or_else(|error| Err(PortError::new(format!("the deletion ended badly: {error}"))))
    }
}

/// Takes the volume out of sight at once: half a volume is never taken for one.
fn rename_away(folder: &Path) -> io::Result<()> {
    files::remove_tree(&gone(folder))?;
    fs::rename(folder, gone(folder))?;
    folder.parent().map_or(Ok(()), files::sync_folder)
}

fn gone(folder: &Path) -> std::path::PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".gone-{name}"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use trackbed_core::ports::Volumes;
    use trackbed_core::{ServiceId, Timestamp, VolumeId};

    #[tokio::test]
    async fn only_a_removed_volume_that_nobody_holds_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = LocalVolumes::new(folder.path());
        let (id, service) = (VolumeId::from_random([1; 10]), ServiceId::from_random([2; 10]));
        let (name, mount) = ("data".parse().unwrap(), "/data".parse().unwrap());
        let mut volume = Volume::new(id, service, name, mount, Timestamp(0));
        let place = volumes.ensure(&volume).await.unwrap();
        fs::write(place.directory.join("kept"), "x").unwrap();
        let error = volumes.erase(&volume).await.unwrap_err();
        assert!(error.message.contains("is not removed"), "{error}");
        volume.removed_at = Some(Timestamp(1));
        let held = files::try_lock(&place.lock).unwrap().unwrap();
        assert!(volumes.erase(&volume).await.is_err());
        assert!(place.directory.join("kept").exists());
        drop(held);
        volumes.erase(&volume).await.unwrap();
        volumes.erase(&volume).await.unwrap();
        assert_eq!(fs::read_dir(folder.path().join("volumes")).unwrap().count(), 0);
    }
}

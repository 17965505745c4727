//! A drill from the target alone: one point, chosen at random, is fetched into an empty place and proven there.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use trackbed_control::RemoteDrill;
use trackbed_core::Timestamp;
use trackbed_core::offsite::{OffsiteDrill, OffsiteTarget};
use trackbed_core::ports::{PointData, PortError, Volumes};
use trackbed_core::restore_point::ProofVerdict;
use trackbed_offsite::{Copies, Limits};
use trackbed_stdx::{files, random};
use trackbed_volume::{LocalVolumes, SnapshotStore};

/// Drills of the data directory that they are kept beside.
pub(crate) struct FromTarget {
    pub(crate) data_dir: PathBuf,
}

/// A place to restore to, removed when dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.0) {
            tracing::warn!(%error, place = %self.0.display(), "what a drill fetched cannot be removed");
        }
    }
}

const POINTS: &str = "snapshots/points/";
const MANIFEST: &str = ".manifest";

#[async_trait]
impl RemoteDrill for FromTarget {
    async fn drill(&self, target: &OffsiteTarget, now: Timestamp) -> Result<Option<OffsiteDrill>, PortError> {
        let copies = Copies::open(target, &self.data_dir, Limits::default()).await?;
        let points: Vec<PointData> = copies.paths().filter_map(point_of).collect();
        if points.is_empty() {
            return Ok(None);
        }
        let drawn = usize::from_le_bytes(random::bytes()) % points.len();
        let data = points[drawn].clone();
        let place = Place(self.data_dir.join(format!("offsite/drill-{drawn}")));
        let (fetched_bytes, verdict) = self.prove(&copies, &data, &place.0).await?;
        let broken = match verdict {
            ProofVerdict::Proven { .. } => None,
            ProofVerdict::Broken { reason } | ProofVerdict::Unknown { reason } => Some(reason),
        };
        Ok(Some(OffsiteDrill { at: now, point: data.point.to_string(), broken, fetched_bytes }))
    }
}

impl FromTarget {
    async fn prove(
        &self,
        copies: &Copies,
        data: &PointData,
        place: &Path,
    ) -> Result<(u64, ProofVerdict), PortError> {
        let (store, wanted) = (SnapshotStore::open(&self.data_dir), data.clone());
        // Which packs, the box knows; every byte of them comes from the target.
        let packs = tokio::task::spawn_blocking(move || store.packs_of(&wanted)).await;
        let packs = packs.map_err(|error| PortError::new(error.to_string()))?.ok().flatten();
        let folder = format!("{POINTS}{}/{}", data.volume, data.point);
        let is_needed = |path: &str| match path.strip_prefix("snapshots/packs/") {
            Some(name) => packs
                .as_ref()
                .is_none_or(|packs| name.split_once('.').is_some_and(|(id, _)| packs.contains(id))),
            None => path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('.')),
        };
        let (fetched, lost) = copies.fetch(place, is_needed, |_| {}).await?;
        if let Some(lost) = lost.into_iter().next() {
            return Ok((fetched.bytes, ProofVerdict::Broken { reason: lost.reason }));
        }
        let proof = LocalVolumes::new(place).prove(data).await?;
        Ok((fetched.bytes, proof.verdict))
    }
}

/// Returns the point of which a path is the manifest.
pub(crate) fn point_of(path: &str) -> Option<PointData> {
    let (volume, point) = path.strip_prefix(POINTS)?.strip_suffix(MANIFEST)?.split_once('/')?;
    Some(PointData { volume: volume.parse().ok()?, point: point.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_point_and_nothing_else_does() {
        let (volume, point) = ("vol_0000000000000001", "rp_0000000000000002");
        let found = point_of(&format!("{POINTS}{volume}/{point}.manifest")).unwrap();
        assert_eq!((found.volume.as_str(), found.point.as_str()), (volume, point));
        assert!(point_of(&format!("{POINTS}{volume}/{point}.content.json")).is_none());
        assert!(point_of("snapshots/packs/x.pack").is_none());
    }
}

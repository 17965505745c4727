//! Which packs a restore point needs: what must be fetched to restore it from copies elsewhere.

use std::cell::RefCell;
use std::collections::BTreeSet;

use trackbed_core::ports::PointData;

use super::tree::Leaves;
use super::{ChunkId, SnapshotStore, StoreError};
use crate::manifest::Kind;

impl SnapshotStore {
    /// Returns the ids of the packs that hold what a point consists of, as far as they are known here; none when there is
    /// no such point. A collection may move chunks to other packs meanwhile.
    ///
    /// # Errors
    /// When the manifest or a node of a file's tree is damaged or cannot be read.
    pub fn packs_of(&self, data: &PointData) -> Result<Option<BTreeSet<String>>, StoreError> {
        let Some(manifest) = self.manifest(data)? else { return Ok(None) };
        let reader = self.reader()?;
        let catalogue = reader.catalogue();
        let packs = RefCell::new(BTreeSet::new());
        let note = |id: &ChunkId| {
            if let Some(place) = catalogue.places(id).next() {
                packs.borrow_mut().insert(catalogue.packs[place.pack as usize].id.clone());
            }
        };
        for entry in &manifest.entries {
            let Kind::File(file) = &entry.kind else { continue };
            let load = |id: &ChunkId, _| {
                note(id);
                let mut node = Vec::new();
                reader.chunk(id, &mut node).map(|()| node)
            };
            for leaf in Leaves::new(file.size, file.content, load) {
                if let Some(id) = leaf? {
                    note(&id);
                }
            }
        }
        Ok(Some(packs.into_inner()))
    }
}

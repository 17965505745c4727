//! Which chunks are needed: those of every point that exists, and those that were read ahead for a capture to come.

use std::collections::HashSet;

use trackbed_core::VolumeId;
use trackbed_core::ports::PointData;

use super::list;
use crate::capture::remembered;
use crate::chunk_store::{ChunkId, ChunkReader, HOLE, IdSet, SnapshotStore, StoreError, depth_of_file};
use crate::manifest::{FileContent, Kind};

/// Finds the needed chunks.
pub(super) struct Marker<'a> {
    reader: &'a ChunkReader,
    pub(super) needed: IdSet,
    /// Nodes that were followed, each at a height: a file may hold the very bytes of a node.
    nodes: HashSet<(ChunkId, u32)>,
}

impl<'a> Marker<'a> {
    /// Marks all that is needed.
    ///
    /// # Errors
    /// When a manifest or a node cannot be read: then nobody knows what it needs, and nothing may be removed. With it, the
    /// point whose it is.
    pub(super) fn mark(
        store: &SnapshotStore,
        reader: &'a ChunkReader,
        ahead: &[VolumeId],
    ) -> Result<IdSet, (Option<PointData>, Box<StoreError>)> {
        let mut marker = Self { reader, needed: IdSet::default(), nodes: HashSet::new() };
        for data in list(store).map_err(|error| (None, Box::new(error)))? {
            marker.point(store, &data).map_err(|error| (Some(data), Box::new(error)))?;
        }
        for volume in ahead {
            for file in remembered(store, volume) {
                // A cache: what it names may be gone.
                match marker.file(&file) {
                    Err(error) if !error.is_damage() => return Err((None, Box::new(error))),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(marker.needed)
    }

    fn point(&mut self, store: &SnapshotStore, data: &PointData) -> Result<(), StoreError> {
        for entry in store.manifest(data)?.into_iter().flat_map(|manifest| manifest.entries) {
            if let Kind::File(file) = entry.kind {
                self.file(&file)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &FileContent) -> Result<(), StoreError> {
        match file.content {
            Some(top) => self.follow(top, depth_of_file(file.size)),
            None => Ok(()),
        }
    }

    fn follow(&mut self, id: ChunkId, depth: u32) -> Result<(), StoreError> {
        self.needed.insert(id);
        if depth == 0 || !self.nodes.insert((id, depth)) {
            return Ok(());
        }
        let mut node = Vec::new();
        self.reader.chunk(&id, &mut node)?;
        for child in node.chunks_exact(32).filter_map(ChunkId::read).filter(|child| *child != HOLE) {
            self.follow(child, depth - 1)?;
        }
        Ok(())
    }
}

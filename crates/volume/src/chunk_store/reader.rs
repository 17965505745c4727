//! Reading what was stored; every byte is checked against its name before anybody sees it.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::catalogue::{self, Catalogue, Place};
use super::index::Index;
use super::tree::{self, CHUNK_BYTES, Leaves};
use super::{ChunkId, StoreError};

/// Packs that are kept open.
const OPEN_PACKS_MAX: usize = 32;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes: that of its chunk, or of the hole.
    pub length: u64,
    /// Its bytes; none for a hole, which reads as zeros.
    pub chunk: Option<ChunkId>,
}

/// Reads chunks. Shared between threads.
#[derive(Debug)]
pub struct ChunkReader {
    folder: PathBuf,
    catalogue: RwLock<Arc<Catalogue>>,
    /// The most recently opened last.
    open: Mutex<VecDeque<(String, Arc<File>)>>,
}

impl ChunkReader {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let catalogue = RwLock::new(Arc::new(Catalogue::load(folder)?));
        Ok(Self { folder: folder.to_owned(), catalogue, open: Mutex::default() })
    }

    /// Returns the parts of a file of `size` bytes whose content has a name, in order and without gaps. Holes that touch
    /// are one. Costs 56 bytes for each chunk; [`ChunkReader::extents`] does not.
    ///
    /// # Errors
    /// When a node of the file's tree is missing or damaged.
    pub fn recipe(&self, size: u64, content: Option<&ChunkId>) -> Result<Vec<Extent>, StoreError> {
        let mut extents: Vec<Extent> = Vec::new();
        for extent in self.extents(size, content) {
            let extent = extent?;
            match extents.last_mut() {
                Some(last) if last.chunk.is_none() && extent.chunk.is_none() => last.length += extent.length,
                _ => extents.push(extent),
            }
        }
        Ok(extents)
    }

    /// As [`ChunkReader::recipe`], part by part, each of at most [`CHUNK_BYTES`].
    pub fn extents(
        &self,
        size: u64,
        content: Option<&ChunkId>,
    ) -> impl Iterator<Item = Result<Extent, StoreError>> + '_ {
        let mut offset = 0;
        self.leaves(size, content.copied()).map(move |chunk| {
            let extent = Extent { offset, length: (size - offset).min(CHUNK_BYTES as u64), chunk: chunk? };
            offset += extent.length;
            Ok(extent)
        })
    }

    pub(crate) fn leaves(
        &self,
        size: u64,
        content: Option<ChunkId>,
    ) -> impl Iterator<Item = Result<Option<ChunkId>, StoreError>> + '_ {
        Leaves::new(size, content, |id, bytes| self.node(id, bytes))
    }

    fn node(&self, id: &ChunkId, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let mut node = Vec::new();
        self.chunk(id, &mut node)?;
        if node.len() == bytes {
            return Ok(node);
        }
        // Its digest fits, so it is what was written: the manifest's size is not the one it was written with.
        let why = format!("it has {} bytes, and a node of this file needs {bytes}", node.len());
        Err(StoreError::DamagedChunk { chunk: *id, pack: self.pack_of(id), why })
    }

    /// Fills `out` with the bytes of a chunk, checked against its digest.
    ///
    /// # Errors
    /// When it is in no pack, or damaged in each: then this is written down, and the next capture that meets the same
    /// bytes stores them again.
    pub fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<(), StoreError> {
        match self.read_best(id, out) {
            // Moved to another pack since: look once more.
            Err(error) if is_gone(&error) => {
                let fresh = Arc::new(Catalogue::load(&self.folder)?);
                *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                self.read_best(id, out)
            }
            other => other,
        }
    }

    fn read_best(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let catalogue = self.catalogue();
        let mut worst = None;
        for place in catalogue.places(id) {
            let pack = &catalogue.packs[place.pack as usize].id;
            let error = match self.read_at(id, pack, place, out) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if matches!(error, StoreError::DamagedChunk { .. })
                && let Err(error) = catalogue::doubt(&self.folder, pack, id)
            {
                tracing::warn!(%error, pack, chunk = %id, "cannot note that a chunk is damaged");
            }
            worst = Some(error);
        }
        Err(worst
            .unwrap_or_else(|| StoreError::MissingChunk { chunk: *id, damage: catalogue.damage.join("; ") }))
    }

    fn read_at(&self, id: &ChunkId, pack: &str, place: Place, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let damaged = |why: String| StoreError::DamagedChunk { chunk: *id, pack: pack.to_owned(), why };
        let file = self.pack(pack)?;
        let (stored, raw) = (place.slot.stored as usize, place.slot.raw as usize);
        if stored > raw || raw > CHUNK_BYTES {
            return Err(damaged(format!("the index gives it {stored} bytes for {raw}")));
        }
        let read = |into: &mut Vec<u8>| {
            into.clear();
            into.resize(stored, 0);
            file.read_exact_at(into, u64::from(place.slot.offset)).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged("the pack ends before it".to_owned()),
                _ => StoreError::disk("read the pack", &self.path(pack), error),
            })
        };
        if stored == raw {
            read(out)?;
        } else {
            let mut packed = Vec::new();
            read(&mut packed)?;
            out.clear();
            out.resize(raw, 0);
            match lz4_flex::block::decompress_into(&packed, out) {
                Ok(bytes) if bytes == raw => {}
                Ok(bytes) => return Err(damaged(format!("it unpacks to {bytes} bytes instead of {raw}"))),
                Err(error) => return Err(damaged(format!("it does not unpack: {error}"))),
            }
        }
        if ChunkId::of(out) != *id {
            return Err(damaged("its bytes do not fit its digest".to_owned()));
        }
        Ok(())
    }

    fn pack(&self, id: &str) -> Result<Arc<File>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(known, _)| known == id) {
            return Ok(file.clone());
        }
        let path = self.path(id);
        let file =
            Arc::new(File::open(&path).map_err(|error| StoreError::disk("open the pack", &path, error))?);
        if open.len() == OPEN_PACKS_MAX {
            open.pop_front();
        }
        open.push_back((id.to_owned(), file.clone()));
        Ok(file)
    }

    fn path(&self, pack: &str) -> PathBuf {
        self.folder.join(format!("{pack}.pack"))
    }

    /// Returns the folder of packs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether a chunk is there and nothing is known against it.
    pub(crate) fn holds(&self, chunk: &ChunkId) -> bool {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).holds(chunk)
    }

    /// Takes notice of a pack that was written since.
    pub(crate) fn add_pack(&self, id: &str, index: &Index) {
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut catalogue).add_pack(id, index, &BTreeSet::new());
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pack_of(&self, id: &ChunkId) -> String {
        let catalogue = self.catalogue();
        let place = catalogue.places(id).next();
        place.map(|place| catalogue.packs[place.pack as usize].id.clone()).unwrap_or_default()
    }

    /// Returns whether all chunks of a file are there and nothing is known against them.
    pub(crate) fn holds_all(&self, size: u64, content: Option<ChunkId>) -> bool {
        let catalogue = self.catalogue();
        match content {
            None => true,
            Some(top) if tree::chunks_of(size) <= 1 => catalogue.holds(&top),
            Some(_) => self
                .leaves(size, content)
                .all(|leaf| leaf.is_ok_and(|leaf| leaf.is_none_or(|id| catalogue.holds(&id)))),
        }
    }
}

fn is_gone(error: &StoreError) -> bool {
    match error {
        StoreError::MissingChunk { .. } => true,
        StoreError::Disk { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
        StoreError::Damaged { .. } | StoreError::DamagedChunk { .. } | StoreError::Refused(_) => false,
    }
}

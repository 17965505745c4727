//! Which chunks the store has and where they lie: all indexes, read into memory for the time of an operation.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use trackbed_stdx::files;

use super::index::{self, Index, Slot};
use super::{ById, ChunkId, StoreError};

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which of [`Catalogue::packs`].
    pub(crate) pack: u32,
    pub(crate) slot: Slot,
}

/// A pack that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Pack {
    /// Its id, which is its file's name without the ending.
    pub(crate) id: String,
    pub(crate) bytes: u64,
}

/// All chunks of the store. Costs some 60 bytes of memory for each, that is 4 MB for a gigabyte.
#[derive(Debug, Default, Clone)]
pub(crate) struct Catalogue {
    pub(crate) packs: Vec<Pack>,
    /// Packs that cannot be used, with the reason.
    pub(crate) damage: Vec<String>,
    places: ById<Place>,
    /// Second copies, and chunks that were found damaged: for reading, when nothing better is there.
    spare: ById<Vec<Place>>,
}

impl Catalogue {
    /// Reads the indexes in a folder of packs; a missing folder has none.
    pub(crate) fn load(folder: &Path) -> Result<Self, StoreError> {
        let mut catalogue = Self::default();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(catalogue),
            Err(error) => return Err(StoreError::disk("list the packs in", folder, error)),
        };
        let mut ids = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| StoreError::disk("list the packs in", folder, error))?;
            let name = entry.file_name();
            // What is half written begins with a dot.
            if let Some(id) =
                name.to_str().and_then(|name| name.strip_suffix(".index")).filter(|id| !id.starts_with('.'))
            {
                ids.insert(id.to_owned());
            }
        }
        for id in ids {
            catalogue.load_pack(folder, &id)?;
        }
        Ok(catalogue)
    }

    fn load_pack(&mut self, folder: &Path, id: &str) -> Result<(), StoreError> {
        let (path, pack_path) = (folder.join(format!("{id}.index")), folder.join(format!("{id}.pack")));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Collected since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::disk("read the index", &path, error)),
        };
        let index = match index::decode(&bytes, &path) {
            Ok(index) => index,
            Err(error) => {
                self.damage.push(error.to_string());
                return Ok(());
            }
        };
        match fs::metadata(&pack_path) {
            Ok(metadata) if metadata.len() >= index.pack_bytes => {}
            Ok(_) => {
                self.damage
                    .push(StoreError::damaged(&pack_path, "it is shorter than its index says").to_string());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.damage.push(StoreError::damaged(&pack_path, "it is gone").to_string());
                return Ok(());
            }
            Err(error) => return Err(StoreError::disk("look at the pack", &pack_path, error)),
        }
        let doubted = read_doubts(folder, id)?;
        self.add_pack(id, &index, &doubted);
        Ok(())
    }

    /// Adds the chunks of a pack, those that are doubted for want of better ones.
    pub(crate) fn add_pack(&mut self, id: &str, index: &Index, doubted: &BTreeSet<ChunkId>) {
        let pack = u32::try_from(self.packs.len()).expect("packs of 64 MiB are far fewer than 2^32");
        self.packs.push(Pack { id: id.to_owned(), bytes: index.pack_bytes });
        self.places.reserve(index.chunks.len());
        for (chunk, slot) in &index.chunks {
            self.add(*chunk, Place { pack, slot: *slot }, doubted.contains(chunk));
        }
    }

    fn add(&mut self, chunk: ChunkId, place: Place, is_doubted: bool) {
        if is_doubted || self.places.contains_key(&chunk) {
            self.spare.entry(chunk).or_default().push(place);
        } else {
            self.places.insert(chunk, place);
        }
    }

    /// Returns whether a chunk is there and nothing is known against it.
    pub(crate) fn holds(&self, chunk: &ChunkId) -> bool {
        self.places.contains_key(chunk)
    }

    /// Returns where a chunk lies, when nothing is known against it.
    pub(crate) fn place(&self, chunk: &ChunkId) -> Option<Place> {
        self.places.get(chunk).copied()
    }

    /// Returns all places where a chunk may lie, the best first.
    pub(crate) fn places(&self, chunk: &ChunkId) -> impl Iterator<Item = Place> + '_ {
        let spare = self.spare.get(chunk).into_iter().flatten();
        self.places.get(chunk).into_iter().chain(spare).copied()
    }
}

fn doubts_path(folder: &Path, pack: &str) -> PathBuf {
    folder.join(format!("{pack}.doubt"))
}

fn read_doubts(folder: &Path, pack: &str) -> Result<BTreeSet<ChunkId>, StoreError> {
    let path = doubts_path(folder, pack);
    match fs::read(&path) {
        // Cut short or longer than it should be: still ids, and a wrong one only costs storing something again.
        Ok(bytes) => Ok(bytes.chunks_exact(32).filter_map(ChunkId::read).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(StoreError::disk("read the doubts", &path, error)),
    }
}

/// Writes down that a chunk of a pack is damaged, so that the next capture that needs it stores it again.
pub(crate) fn doubt(folder: &Path, pack: &str, chunk: &ChunkId) -> Result<(), StoreError> {
    let mut doubted = read_doubts(folder, pack)?;
    if !doubted.insert(*chunk) {
        return Ok(());
    }
    let path = doubts_path(folder, pack);
    let bytes: Vec<u8> = doubted.iter().flat_map(|id| id.0).collect();
    files::write_atomic(&path, &bytes, 0o600)
        .map_err(|error| StoreError::disk("write the doubts", &path, error))
}

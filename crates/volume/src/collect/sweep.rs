//! Removing packs, and writing those anew of which little is needed.

use std::collections::HashSet;

use trackbed_core::VolumeId;
use trackbed_core::ports::Unreadable;
use trackbed_stdx::files;

use super::mark::Marker;
use super::{names_in, remove_file};
use crate::chunk_store::{ChunkId, ChunkReader, PackWriter, SnapshotStore, StoreError};
use crate::crash;

/// A pack is written anew when less than one part in so many of it is needed.
const NEEDED_PART: u64 = 2;
/// A pack is small below this: each capture makes one, however little has changed.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
/// With more small packs than this, they are joined.
const SMALL_PACKS_MAX: usize = 64;
/// Bytes that are written anew in one step, while captures wait.
const STEP_BYTES: u64 = 32 * 1024 * 1024;

/// What there is to be done, as long as nothing was captured since.
#[derive(Debug, Default)]
pub(super) struct Plan {
    store: Option<(SnapshotStore, ChunkReader)>,
    epoch: u64,
    /// Why there is nothing to do, when a point that is kept cannot be read.
    pub(super) unreadable: Option<Unreadable>,
    /// Packs with what is needed of them.
    todo: Vec<Old>,
}

#[derive(Debug)]
struct Old {
    pack: String,
    needed: Vec<ChunkId>,
    needed_bytes: u64,
    bytes: u64,
    /// Something in it is needed that is damaged: it can neither be copied nor be given up.
    is_stuck: bool,
}

impl Plan {
    /// Finds out what is needed, and which packs may go. When that cannot be known, none may.
    pub(super) fn make(store: &SnapshotStore, epoch: u64, ahead: &[VolumeId]) -> Result<Self, StoreError> {
        let reader = store.reader()?;
        let needed = match Marker::mark(store, &reader, ahead) {
            Ok(needed) => needed,
            Err((Some(data), error)) if error.is_damage() => {
                let unreadable = Some(Unreadable { data, reason: error.to_string() });
                return Ok(Self {
                    store: Some((store.clone(), reader)),
                    epoch,
                    unreadable,
                    todo: Vec::new(),
                });
            }
            Err((_, error)) => return Err(*error),
        };
        let catalogue = reader.catalogue();
        let old = |pack: &crate::chunk_store::Pack| Old {
            pack: pack.id.clone(),
            needed: Vec::new(),
            needed_bytes: 0,
            bytes: pack.bytes,
            is_stuck: false,
        };
        let mut packs: Vec<Old> = catalogue.packs.iter().map(old).collect();
        let mut all_there = true;
        for id in &needed {
            if let Some(place) = catalogue.place(id) {
                let pack = &mut packs[place.pack as usize];
                pack.needed.push(*id);
                pack.needed_bytes += u64::from(place.slot.stored);
            } else {
                all_there = false;
                catalogue.places(id).for_each(|place| packs[place.pack as usize].is_stuck = true);
            }
        }
        let mut todo = choose(packs);
        if all_there {
            // Nobody misses what a broken index or a lost pack held.
            let known: HashSet<&str> = catalogue.packs.iter().map(|pack| pack.id.as_str()).collect();
            for name in names_in(&store.packs())? {
                let broken =
                    name.strip_suffix(".index").filter(|id| !id.starts_with('.') && !known.contains(id));
                todo.extend(broken.map(|id| Old {
                    pack: id.to_owned(),
                    needed: Vec::new(),
                    needed_bytes: 0,
                    bytes: 0,
                    is_stuck: false,
                }));
            }
        }
        Ok(Self { store: Some((store.clone(), reader)), epoch, unreadable: None, todo })
    }

    /// Returns what it is true for; none before it is made.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.store.as_ref().map(|_| self.epoch)
    }

    /// Returns whether nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// Does a part of it and returns the bytes that this freed.
    pub(super) fn step(&mut self) -> Result<u64, StoreError> {
        let Some((store, reader)) = &self.store else { return Ok(0) };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(old) = self.todo.pop() {
            bytes += old.needed_bytes;
            batch.push(old);
            if bytes >= STEP_BYTES {
                break;
            }
        }
        let mut writer = PackWriter::new(reader);
        let mut copied = Vec::new();
        for old in batch {
            match copy(&old, reader, &mut writer) {
                Ok(()) => copied.push(old),
                // It stays, with what is whole of it.
                Err(error) if error.is_damage() => tracing::warn!(%error, "a pack is not written anew"),
                Err(error) => return Err(error),
            }
        }
        crash::point("a pack half rewritten");
        writer.close()?;
        crash::point("a pack rewritten");
        let mut freed = 0;
        let folder = store.packs();
        for old in &copied {
            freed += remove_file(&folder.join(format!("{}.index", old.pack)))?;
        }
        if !copied.is_empty() {
            files::sync_folder(&folder)
                .map_err(|error| StoreError::disk("write the folder of packs", &folder, error))?;
        }
        crash::point("an index removed");
        for old in &copied {
            freed += remove_file(&folder.join(format!("{}.pack", old.pack)))?;
            freed += remove_file(&folder.join(format!("{}.doubt", old.pack)))?;
        }
        Ok(freed.saturating_sub(writer.stored_bytes))
    }
}

fn copy(old: &Old, reader: &ChunkReader, writer: &mut PackWriter<'_>) -> Result<(), StoreError> {
    let mut chunk = Vec::new();
    for id in &old.needed {
        reader.chunk(id, &mut chunk)?;
        writer.put_again(*id, &chunk)?;
    }
    Ok(())
}

/// Returns the packs that are to go, with what of them is to be written anew.
fn choose(packs: Vec<Old>) -> Vec<Old> {
    let is_small = |old: &Old| old.bytes < SMALL_BYTES && !old.is_stuck;
    let joins_small = packs.iter().filter(|old| is_small(old)).count() > SMALL_PACKS_MAX;
    let goes = |old: &Old| {
        let is_thin = old.needed_bytes * NEEDED_PART < old.bytes;
        !old.is_stuck && (old.needed.is_empty() || is_thin || (joins_small && is_small(old)))
    };
    packs.into_iter().filter(goes).collect()
}

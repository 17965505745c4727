//! Writing packs: chunks are appended; a pack counts once it and its index are durable.
//!
//! A pack is `TBPACK01`, then for each chunk its id, its stored and raw length (u32 each, little endian) and its bytes. So
//! the index can be made again from the pack, by hand at least.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use trackbed_stdx::{files, random};

use super::index::{self, Index, Slot};
use super::{ById, ChunkId, ChunkReader, StoreError};
use crate::crash;

const MAGIC: &[u8; 8] = b"TBPACK01";
/// A pack is closed when it is as large as this: large enough for few files, small enough to be written anew when most
/// of it is not needed any more.
const PACK_BYTES_FULL: u64 = 64 * 1024 * 1024;
const RECORD_HEAD_BYTES: usize = 32 + 4 + 4;
/// Parts of a chunk that are tried first.
const SAMPLE_BYTES: usize = 1024;
const BUFFER_BYTES: usize = 1024 * 1024;

/// Adds chunks to the store. What was added is there for others after [`PackWriter::close`]. A pack that is not closed is
/// removed when this is dropped; after a crash, by the next collection.
#[derive(Debug)]
pub(crate) struct PackWriter<'a> {
    reader: &'a ChunkReader,
    folder: PathBuf,
    /// In packs of this writer that the reader does not know yet.
    fresh: ById<()>,
    pack: Option<OpenPack>,
    packed: Vec<u8>,
    /// Bytes on disk that were added, indexes included.
    pub(crate) stored_bytes: u64,
}

#[derive(Debug)]
struct OpenPack {
    id: String,
    path: PathBuf,
    out: BufWriter<File>,
    index: Index,
}

impl<'a> PackWriter<'a> {
    /// Adds to the store that `reader` reads.
    pub(crate) fn new(reader: &'a ChunkReader) -> Self {
        let folder = reader.folder().to_owned();
        Self { reader, folder, fresh: ById::default(), pack: None, packed: Vec::new(), stored_bytes: 0 }
    }

    /// Keeps a chunk, unless it is there, and returns its id.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<ChunkId, StoreError> {
        let id = ChunkId::of(bytes);
        if !self.fresh.contains_key(&id) && !self.reader.holds(&id) {
            self.append(id, bytes)?;
        }
        Ok(id)
    }

    /// Keeps a chunk that is there once more, because its pack is to go.
    pub(crate) fn put_again(&mut self, id: ChunkId, bytes: &[u8]) -> Result<(), StoreError> {
        self.append(id, bytes)
    }

    fn append(&mut self, id: ChunkId, bytes: &[u8]) -> Result<(), StoreError> {
        if self.pack.as_ref().is_some_and(|pack| pack.index.pack_bytes >= PACK_BYTES_FULL) {
            self.close()?;
        }
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(OpenPack::begin(&self.folder)?),
        };
        let stored = if packs_well(bytes, &mut self.packed) { &self.packed[..] } else { bytes };
        let before = pack.index.pack_bytes;
        pack.append(id, stored, bytes.len())?;
        self.stored_bytes += pack.index.pack_bytes - before + index::ENTRY_BYTES as u64;
        self.fresh.insert(id, ());
        Ok(())
    }

    /// Makes all that was added durable and tells the reader of it.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        let Some(mut pack) = self.pack.take() else { return Ok(()) };
        if let Err(error) = pack.seal(&self.folder) {
            // Its drop removes the pack.
            self.pack = Some(pack);
            return Err(error);
        }
        // Sealed: from now on it belongs to the store.
        let (id, index) = (std::mem::take(&mut pack.id), std::mem::replace(&mut pack.index, Index::empty()));
        self.reader.add_pack(&id, &index);
        self.fresh.clear();
        Ok(())
    }
}

/// Packs a chunk into `packed`, and returns whether that is worth unpacking it.
fn packs_well(bytes: &[u8], packed: &mut Vec<u8>) -> bool {
    let mut packs = |bytes: &[u8]| {
        packed.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
        let length = lz4_flex::block::compress_into(bytes, packed).unwrap_or(usize::MAX);
        let is_worth_it = length < bytes.len() / 16 * 15;
        packed.truncate(length);
        is_worth_it
    };
    // What is packed or random already shows it in its first and last part, and most of the time is saved.
    let is_hopeless = bytes.len() > 4 * SAMPLE_BYTES
        && !packs(&bytes[..SAMPLE_BYTES])
        && !packs(&bytes[bytes.len() - SAMPLE_BYTES..]);
    !is_hopeless && packs(bytes)
}

impl Drop for PackWriter<'_> {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take()
            && let Err(error) = fs::remove_file(&pack.path)
        {
            tracing::warn!(%error, pack = pack.id, "cannot remove a pack that was not finished; a collection will");
        }
    }
}

impl OpenPack {
    fn begin(folder: &Path) -> Result<Self, StoreError> {
        let disk = |attempt, error| StoreError::disk(attempt, folder, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| disk("make the folder of packs", error))?;
        let id: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("{id}.pack"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| StoreError::disk("make the pack", &path, error))?;
        let mut pack =
            Self { id, path, out: BufWriter::with_capacity(BUFFER_BYTES, file), index: Index::empty() };
        pack.write(&[MAGIC])?;
        Ok(pack)
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), StoreError> {
        for part in parts {
            let written = self.out.write_all(part);
            written.map_err(|error| StoreError::disk("write the pack", &self.path, error))?;
            self.index.pack_bytes += part.len() as u64;
        }
        Ok(())
    }

    fn append(&mut self, id: ChunkId, stored: &[u8], raw: usize) -> Result<(), StoreError> {
        let number = |value: u64| u32::try_from(value).expect("packs are closed long before 4 GiB");
        let (stored_bytes, raw) = (number(stored.len() as u64), number(raw as u64));
        let offset = number(self.index.pack_bytes + RECORD_HEAD_BYTES as u64);
        self.write(&[&id.0, &stored_bytes.to_le_bytes(), &raw.to_le_bytes(), stored])?;
        self.index.chunks.push((id, Slot { offset, stored: stored_bytes, raw }));
        Ok(())
    }

    fn seal(&mut self, folder: &Path) -> Result<(), StoreError> {
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        flushed.map_err(|error| StoreError::disk("write the pack", &self.path, error))?;
        files::sync_folder(folder)
            .map_err(|error| StoreError::disk("write the folder of packs", folder, error))?;
        crash::point("pack without index");
        let path = folder.join(format!("{}.index", self.id));
        let written = files::write_atomic(&path, &index::encode(&self.index), 0o600);
        written.map_err(|error| StoreError::disk("write the index", &path, error))?;
        crash::point("pack with index");
        Ok(())
    }
}

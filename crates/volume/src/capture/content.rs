//! From the bytes of a file to chunks in the store, hashing only what may have changed.

use super::stamps::{Known, QUICK_FROM_BYTES, Stamps};
use crate::chunk_store::{ChunkId, ChunkReader, PackWriter, StoreError, TreeBuilder};
use crate::manifest::{DATABASE_MAGIC, FileContent};
use crate::pieces::{Block, Piece, ReadError, Source, Summed, read_pieces};

/// A file that is being taken into the store, piece by piece from its beginning.
pub(crate) struct Intake<'a> {
    reader: &'a ChunkReader,
    /// The chunks that it had, and their sums; as long as both go on.
    before: Option<Before<'a>>,
    tree: TreeBuilder,
    quick: Vec<u128>,
    wants_quick: bool,
    pieces: usize,
    is_database: bool,
}

struct Before<'a> {
    leaves: Box<dyn Iterator<Item = Result<Option<ChunkId>, StoreError>> + 'a>,
    quick: &'a [u128],
}

impl<'a> Intake<'a> {
    /// Begins with a file of about `size` bytes, which may be much as it was before.
    pub(crate) fn begin(reader: &'a ChunkReader, size: u64, before: Option<&'a Known>) -> Self {
        let before = before.filter(|known| !known.quick.is_empty()).map(|known| Before {
            leaves: Box::new(reader.leaves(known.file.size, known.file.content)),
            quick: &known.quick,
        });
        let wants_quick = size >= QUICK_FROM_BYTES;
        let (tree, quick) = (TreeBuilder::default(), Vec::new());
        Self { reader, before, tree, quick, wants_quick, pieces: 0, is_database: false }
    }

    /// Takes the next piece.
    pub(crate) fn piece(&mut self, piece: Piece<'_>, writer: &mut PackWriter<'_>) -> Result<(), StoreError> {
        let was = self.next_before()?;
        let Some(Summed { bytes, sum }) = piece else { return self.push(None, 0, writer) };
        if self.pieces == 0 {
            self.is_database = bytes.starts_with(DATABASE_MAGIC);
        }
        let id = match was {
            Some((id, before)) if before == sum && self.reader.holds(&id) => id,
            _ => writer.put(bytes)?,
        };
        self.push(Some(id), sum, writer)
    }

    /// Takes the next piece, of which is known that it is as it was before.
    ///
    /// # Errors
    /// When what it was cannot be read any more.
    pub(crate) fn same(&mut self, writer: &mut PackWriter<'_>) -> Result<(), StoreError> {
        match self.next_before()? {
            Some((id, sum)) => self.push(Some(id), sum, writer),
            None => Err(StoreError::Refused(
                "a file that was read ahead has lost its chunks meanwhile".to_owned(),
            )),
        }
    }

    /// Says whether the file is a database, when its first piece was not shown.
    pub(crate) fn is_database(&mut self, is_database: bool) {
        self.is_database = is_database;
    }

    /// Ends the file after `size` bytes, and returns what it holds with the quick sums of its chunks.
    pub(crate) fn end(
        self,
        size: u64,
        writer: &mut PackWriter<'_>,
    ) -> Result<(FileContent, Vec<u128>), StoreError> {
        let content = self.tree.finish(&mut |node: &[u8]| writer.put(node))?;
        let quick = if self.wants_quick { self.quick } else { Vec::new() };
        Ok((FileContent { size, content, is_database: self.is_database }, quick))
    }

    fn push(
        &mut self,
        id: Option<ChunkId>,
        sum: u128,
        writer: &mut PackWriter<'_>,
    ) -> Result<(), StoreError> {
        self.pieces += 1;
        if self.wants_quick {
            self.quick.push(sum);
        }
        self.tree.push(id, &mut |node: &[u8]| writer.put(node))
    }

    /// Returns the chunk that was at this place before and its sum; none when it was a hole or is not known.
    fn next_before(&mut self) -> Result<Option<(ChunkId, u128)>, StoreError> {
        let Some(before) = &mut self.before else { return Ok(None) };
        match (before.leaves.next(), before.quick.get(self.pieces)) {
            (Some(Ok(leaf)), Some(sum)) => return Ok(leaf.map(|id| (id, *sum))),
            // Its tree is broken: hash the rest anew.
            (Some(Err(error)), _) if !error.is_damage() => return Err(error),
            // Or it is longer than it was.
            (Some(_) | None, _) => self.before = None,
        }
        Ok(None)
    }
}

/// Takes a file into the store. `stamps` are those whose sums `intake` has.
pub(crate) fn take_in(
    source: Source<'_>,
    stamps: &Stamps,
    mut intake: Intake<'_>,
    writer: &mut PackWriter<'_>,
    buffer: &mut Block,
) -> Result<(FileContent, Vec<u128>), ReadError> {
    let sum = |bytes: &[u8]| stamps.quick_sum(bytes);
    let read = read_pieces(source, buffer, sum, |piece| intake.piece(piece, writer))?;
    Ok(intake.end(read, writer)?)
}

//! Reading what changed, while the writers of a volume stand still: as little as can be, and nothing is hashed, packed or
//! made durable until they go on.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::content::{Intake, take_in};
use super::live::{Pass, changed, files_once, is_shared_memory, is_unchanged};
use super::scratch::Scratch;
use super::spool::{Spool, Spooled};
use super::stamps::{Known, Stamps};
use crate::chunk_store::{ChunkReader, PackWriter, StoreError};
use crate::manifest::DATABASE_MAGIC;
use crate::pieces::{Block, ReadError, Source, Summed, read_pieces};
use crate::walk::{Found, Root, Stamp, stamp_of};

/// Most bytes that are read while an app stands still, about a third of a second.
pub(crate) const READ_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Smaller files are read faster than they are cloned.
const CLONE_FROM_BYTES: u64 = 256 * 1024;

/// A volume at one instant.
#[derive(Debug)]
pub(crate) struct Still {
    found: Vec<Found>,
    /// What was read again, by path.
    taken: HashMap<Vec<u8>, Taken>,
}

/// A file that was read again.
#[derive(Debug)]
enum Taken {
    /// Its pieces.
    Pieces { pieces: Vec<TakenPiece>, is_database: bool },
    /// A clone of it, open.
    Clone { file: File, is_database: bool },
}

#[derive(Debug, Clone, Copy)]
enum TakenPiece {
    Zero,
    /// As it was when it was read ahead.
    Same,
    New(Spooled),
}

/// What reading came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of it, with the bytes that were read for it.
    Still(Still, u64),
    /// There would be so many bytes to read that nothing was.
    TooMuch(u64),
}

/// Reads what is not as `pass` has it. The store has all that is in `pass`: it was looked up or written for it, under the
/// gate that is held since.
pub(crate) fn read(
    root: &Root,
    pass: &Stamps,
    spool: &mut Spool,
    scratch: &Scratch,
    read_bytes_max: u64,
    clone_name: &str,
) -> Result<Outcome, StoreError> {
    let found = root.walk(true)?;
    let to_read: Vec<&Found> = files_once(&found)
        .filter(|file| !pass.files.get(&file.path).is_some_and(|known| is_unchanged(known, file)))
        .collect();
    let clones = |file: &Found| clones(&file.stamp, scratch);
    let bytes =
        to_read.iter().filter(|file| !clones(file)).map(|file| file.stamp.size.min(file.allocated)).sum();
    if bytes > read_bytes_max {
        return Ok(Outcome::TooMuch(bytes));
    }
    let mut taken: HashMap<Vec<u8>, Taken> = HashMap::with_capacity(to_read.len());
    let mut buffer = Block::default();
    for (number, found) in to_read.into_iter().enumerate() {
        let base = found.path.strip_suffix(b"-shm");
        let of_taken = base.and_then(|base| taken.get(base)).map(Taken::is_database);
        if of_taken.unwrap_or_else(|| is_shared_memory(&found.path, pass)) {
            continue;
        }
        let cannot = |error| StoreError::disk("read the file", &root.show(&found.path), error);
        let file = root.open_file(&found.path).map_err(cannot)?;
        let cloned =
            if clones(found) { clone(&file, scratch, &format!("{clone_name}-{number}")) } else { None };
        let one = match cloned {
            Some(cloned) => cloned,
            None => {
                let known = pass.files.get(&found.path);
                pieces(&file, found, known, pass, spool, &mut buffer).map_err(|error| match error {
                    ReadError::File(error) => cannot(error),
                    ReadError::Store(error) => error,
                })?
            }
        };
        if stamp_of(&file).map_err(cannot)? != found.stamp {
            return Err(changed(root, &found.path));
        }
        taken.insert(found.path.clone(), one);
    }
    Ok(Outcome::Still(Still { found, taken }, bytes))
}

/// Returns whether a file is cloned rather than read.
pub(crate) fn clones(file: &Stamp, scratch: &Scratch) -> bool {
    file.size >= CLONE_FROM_BYTES && scratch.can_clone(file.device)
}

fn clone(file: &File, scratch: &Scratch, name: &str) -> Option<Taken> {
    let to = scratch.create(name).ok()?;
    // Whatever the reason: reading works, too.
    rustix::fs::ioctl_ficlone(&to, file).ok()?;
    let mut head = [0; DATABASE_MAGIC.len()];
    let is_database = file.read_exact_at(&mut head, 0).is_ok() && head == *DATABASE_MAGIC;
    Some(Taken::Clone { file: to, is_database })
}

fn pieces(
    file: &File,
    found: &Found,
    known: Option<&Known>,
    pass: &Stamps,
    spool: &mut Spool,
    buffer: &mut Block,
) -> Result<Taken, ReadError> {
    let sums = known.map_or(&[][..], |known| &known.quick);
    let mut pieces = Vec::new();
    let mut is_database = false;
    let source = Source { file, size: found.stamp.size, allocated: found.allocated };
    let quick_sum = |bytes: &[u8]| pass.quick_sum(bytes);
    let read = read_pieces(source, buffer, quick_sum, |piece| {
        let Some(Summed { bytes, sum }) = piece else {
            pieces.push(TakenPiece::Zero);
            return Ok(());
        };
        if pieces.is_empty() {
            is_database = bytes.starts_with(DATABASE_MAGIC);
        }
        // A sum of zero stands for a hole.
        let is_same = sums.get(pieces.len()).is_some_and(|before| *before != 0 && *before == sum);
        pieces.push(if is_same { TakenPiece::Same } else { TakenPiece::New(spool.push(bytes)?) });
        Ok(())
    })?;
    if read != found.stamp.size {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Taken::Pieces { pieces, is_database })
}

impl Taken {
    fn is_database(&self) -> bool {
        match self {
            Taken::Pieces { is_database, .. } | Taken::Clone { is_database, .. } => *is_database,
        }
    }
}

impl Still {
    /// Stores what was read, now that the writers have gone on, and returns the volume as it was while they stood still.
    pub(crate) fn store(
        self,
        root: &Root,
        reader: &ChunkReader,
        writer: &mut PackWriter<'_>,
        mut pass: Stamps,
        spool: &Spool,
    ) -> Result<Pass, StoreError> {
        let Self { found, mut taken } = self;
        let mut after = Stamps::after(&pass);
        let (mut block, mut buffer) = (Block::default(), Vec::new());
        for file in files_once(&found) {
            let known = pass.files.remove(&file.path);
            let Some(one) = taken.remove(&file.path) else {
                // Not read again, because it had not changed; or shared memory, which has no place in what follows.
                after.files.extend(known.map(|known| (file.path.clone(), known)));
                continue;
            };
            let mut intake = Intake::begin(reader, file.stamp.size, known.as_ref());
            let (content, quick) = match one {
                Taken::Clone { file: clone, .. } => {
                    let source = Source { file: &clone, size: file.stamp.size, allocated: file.allocated };
                    let taken = take_in(source, &pass, intake, writer, &mut block);
                    taken.map_err(|error| match error {
                        ReadError::File(error) => {
                            StoreError::disk("read the clone of", &root.show(&file.path), error)
                        }
                        ReadError::Store(error) => error,
                    })?
                }
                Taken::Pieces { pieces, is_database } => {
                    for piece in pieces {
                        match piece {
                            TakenPiece::Zero => intake.piece(None, writer)?,
                            TakenPiece::Same => intake.same(writer)?,
                            TakenPiece::New(place) => {
                                spool.read(place, &mut buffer)?;
                                let sum = pass.quick_sum(&buffer);
                                intake.piece(Some(Summed { bytes: &buffer, sum }), writer)?;
                            }
                        }
                    }
                    intake.is_database(is_database);
                    intake.end(file.stamp.size, writer)?
                }
            };
            // Not settled: it was not synced, so an app may go on to write through a mapping without moving a time.
            let known = Known { stamp: file.stamp, is_settled: false, file: content, quick };
            after.files.insert(file.path.clone(), known);
        }
        Ok(Pass { found, stamps: after })
    }
}

//! Reading a file in pieces of a chunk, without reading its holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::chunk_store::{CHUNK_BYTES, StoreError, is_zero};

/// Read with one call: enough that the calls cost nothing, little enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * CHUNK_BYTES;
const CHUNK: u64 = CHUNK_BYTES as u64;

/// A file's piece: its bytes, none when all of them are zero.
pub(crate) type Piece<'a> = Option<&'a [u8]>;

/// Why a file could not be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file refuses.
    File(io::Error),
    /// What takes the pieces refuses.
    Store(StoreError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads a file piece by piece, up to `size` bytes or its end, and returns how many there were. `buffer` is reused.
/// `allocated` is what the file takes on disk: less than its size means that it may have holes.
pub(crate) fn read_pieces(
    file: &File,
    size: u64,
    allocated: u64,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(Piece<'_>) -> Result<(), StoreError>,
) -> Result<u64, ReadError> {
    buffer.resize(READ_BYTES, 0);
    let (mut at, mut data_end) = (0, if allocated < size { 0 } else { size });
    while at < size {
        if at >= data_end {
            let (begin, end) = next_data(file, at, size)?;
            while at < begin {
                each(None)?;
                at += CHUNK;
            }
            data_end = end;
            if at >= size {
                break;
            }
        }
        let wanted = usize::try_from(data_end.min(size) - at).unwrap_or(usize::MAX).min(READ_BYTES);
        let read = read_full(file, &mut buffer[..wanted], at)?;
        for piece in buffer[..read].chunks(CHUNK_BYTES) {
            each(Some(piece).filter(|piece| !is_zero(piece)))?;
        }
        at += read as u64;
        if read < wanted {
            return Ok(at);
        }
    }
    Ok(size)
}

/// Returns where the next chunk with data begins, and where the data after it ends; both at a chunk's edge.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        // Nothing but a hole, to the end; or a file system that knows no holes.
        Err(Errno::NXIO) => return Ok((size.next_multiple_of(CHUNK), size)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(error.into()),
    };
    let end = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
        Ok(end) => end.next_multiple_of(CHUNK),
        Err(_) => size,
    };
    Ok((data / CHUNK * CHUNK, end))
}

fn read_full(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

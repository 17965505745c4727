//! Bytes that were read while an app stood still, kept until it goes on: in memory, then in a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::chunk_store::StoreError;
use crate::space::leave_room;

/// Kept in memory; what is beyond goes to the file. An app at work changes less between the passes, as a rule.
pub(crate) const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a piece lies in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spooled {
    offset: u64,
    length: u32,
}

/// Keeps pieces.
#[derive(Debug)]
pub(crate) struct Spool {
    memory: Vec<u8>,
    memory_max: usize,
    path: PathBuf,
    file: Option<File>,
    end: u64,
}

impl Spool {
    /// Makes a spool that writes to `path` what goes beyond `memory_max` bytes.
    pub(crate) fn new(path: PathBuf, memory_max: usize) -> Self {
        Self { memory: Vec::new(), memory_max, path, file: None, end: 0 }
    }

    /// Keeps a piece.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Spooled, StoreError> {
        let length = u32::try_from(bytes.len()).expect("a piece is no larger than a chunk");
        let place = Spooled { offset: self.end, length };
        if self.file.is_none() && self.memory.len() + bytes.len() <= self.memory_max {
            self.memory.extend_from_slice(bytes);
        } else {
            leave_room(self.path.parent().unwrap_or(&self.path)).map_err(|error| self.disk(error))?;
            let at = self.end - self.memory.len() as u64;
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(self.make().map_err(|error| self.disk(error))?),
            };
            file.write_all_at(bytes, at).map_err(|error| self.disk(error))?;
        }
        self.end += u64::from(length);
        Ok(place)
    }

    /// Reads a piece into `out`.
    pub(crate) fn read(&self, place: Spooled, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let length = place.length as usize;
        out.clear();
        let kept =
            usize::try_from(place.offset).ok().and_then(|at| self.memory.get(at..at.checked_add(length)?));
        if let Some(bytes) = kept {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        out.resize(length, 0);
        let file = self.file.as_ref().ok_or_else(|| self.disk(io::ErrorKind::NotFound.into()))?;
        let at = place.offset - self.memory.len() as u64;
        file.read_exact_at(out, at).map_err(|error| self.disk(error))
    }

    fn make(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)
    }

    fn disk(&self, error: io::Error) -> StoreError {
        StoreError::disk("keep what was read in", &self.path, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_from_memory_and_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path().join("spool"), 10);
        let pieces: [&[u8]; 4] = [b"12345678", b"abc", b"", b"defgh"];
        let places: Vec<_> = pieces.iter().map(|piece| spool.push(piece).unwrap()).collect();
        let mut out = Vec::new();
        for (piece, place) in pieces.iter().zip(places).rev() {
            spool.read(place, &mut out).unwrap();
            assert_eq!(out, *piece);
        }
        assert_eq!(spool.memory, b"12345678");
    }
}

//! The name of a piece of data: the SHA-256 of its bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Names a chunk, or a node of a file's tree, by the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// Returns the id of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads an id from the front of a slice; none when it is too short.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<32>().map(|id| Self(*id))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hasher for maps whose keys are ids: they are uniform already, so their first bytes do.
#[derive(Default, Clone, Copy)]
pub(crate) struct FirstBytes(u64);

impl std::hash::Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    // The length that goes before an array's bytes says nothing.
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type ById<V> = std::collections::HashMap<ChunkId, V, std::hash::BuildHasherDefault<FirstBytes>>;
pub(crate) type IdSet = std::collections::HashSet<ChunkId, std::hash::BuildHasherDefault<FirstBytes>>;

//! The index of a pack: which chunks it holds and where. Written after the pack is durable, never changed.
//!
//! Layout, little endian: `TBINDEX1`, length of the pack (u64), count (u32), then for each chunk its id (32 bytes), the
//! offset of its bytes in the pack (u32), stored length (u32) and raw length (u32); last the SHA-256 of all before.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{ChunkId, StoreError};

const MAGIC: &[u8; 8] = b"TBINDEX1";
const HEAD_BYTES: usize = 8 + 8 + 4;
/// Bytes of an index for each chunk.
pub(crate) const ENTRY_BYTES: usize = 32 + 4 + 4 + 4;
const TAIL_BYTES: usize = 32;

/// Where a chunk lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where its bytes begin.
    pub(crate) offset: u32,
    /// Bytes in the pack.
    pub(crate) stored: u32,
    /// Bytes of the chunk itself. Stored as it is when both are equal, else compressed.
    pub(crate) raw: u32,
}

/// What an index says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) pack_bytes: u64,
    pub(crate) chunks: Vec<(ChunkId, Slot)>,
}

impl Index {
    /// Returns the index of a pack in which nothing is yet.
    pub(crate) fn empty() -> Self {
        Self { pack_bytes: 0, chunks: Vec::new() }
    }
}

/// Returns the bytes of an index file.
pub(crate) fn encode(index: &Index) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + index.chunks.len() * ENTRY_BYTES + TAIL_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&index.pack_bytes.to_le_bytes());
    let count = u32::try_from(index.chunks.len()).expect("a pack is small and so is the count of its chunks");
    bytes.extend_from_slice(&count.to_le_bytes());
    for (id, slot) in &index.chunks {
        bytes.extend_from_slice(&id.0);
        for number in [slot.offset, slot.stored, slot.raw] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    let seal: [u8; 32] = Sha256::digest(&bytes).into();
    bytes.extend_from_slice(&seal);
    bytes
}

/// Reads an index.
///
/// # Errors
/// When it is not what [`encode`] wrote, naming `path`.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Index, StoreError> {
    let damaged = |why: &str| StoreError::damaged(path, why);
    let Some(body_bytes) = bytes.len().checked_sub(TAIL_BYTES).filter(|body| *body >= HEAD_BYTES) else {
        return Err(damaged("it is too short"));
    };
    let (body, seal) = bytes.split_at(body_bytes);
    if !body.starts_with(MAGIC) {
        return Err(damaged("it does not begin as an index of version 1"));
    }
    if Sha256::digest(body)[..] != *seal {
        return Err(damaged("its bytes do not fit the digest at its end"));
    }
    let number =
        |at: usize| body.get(at..).and_then(|rest| rest.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b));
    let pack_bytes = body[8..].first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let count = number(16).unwrap_or(0) as usize;
    if body.len() != HEAD_BYTES + count * ENTRY_BYTES {
        return Err(damaged("its length does not fit the count of its chunks"));
    }
    let mut chunks = Vec::with_capacity(count);
    for entry in body[HEAD_BYTES..].chunks_exact(ENTRY_BYTES) {
        let word = |at: usize| entry[at..].first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        let slot = Slot { offset: word(32), stored: word(36), raw: word(40) };
        let fits = u64::from(slot.offset) + u64::from(slot.stored) <= pack_bytes;
        let Some(id) = ChunkId::read(entry).filter(|_| fits) else {
            return Err(damaged("a chunk would lie outside the pack"));
        };
        chunks.push((id, slot));
    }
    Ok(Index { pack_bytes, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_any_flipped_bit_is_noticed() {
        let slot = Slot { offset: 8, stored: 5, raw: 9 };
        let index = Index { pack_bytes: 13, chunks: vec![(ChunkId::of(b"a"), slot)] };
        let bytes = encode(&index);
        let path = Path::new("packs/x.index");
        assert_eq!(decode(&bytes, path).unwrap(), index);
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            let error = decode(&bent, path).unwrap_err();
            assert!(error.to_string().contains("packs/x.index"), "{error}");
        }
        assert!(decode(&bytes[..bytes.len() - 1], path).is_err());
        assert!(decode(&[], path).is_err());
    }
}

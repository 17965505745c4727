//! How a file is made of chunks: a tree of ids with a fixed fan-out, whose depth follows from the file's size.
//!
//! A file of one chunk is named by that chunk. A larger one is named by a node: up to [`FAN_OUT`] ids of chunks or of
//! nodes below, one after the other. What is zero throughout is a hole, told by an id of zeros in a node and by no id at
//! the top, however the file system keeps it: so equal bytes have equal names.

use super::ChunkId;

/// Bytes of a chunk; the last one of a file may be shorter. Databases change in pages of 4 KiB: of a file with 1 % of its
/// pages changed at random, 4 % of the chunks change. Larger ones cost more bytes for each snapshot, smaller ones more
/// memory and larger indexes (now 0.8 % of the data). Part of the format, as is the fan-out.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Ids in a node: a node is as large as a chunk.
pub(crate) const FAN_OUT: usize = CHUNK_BYTES / 32;
/// In a node: nothing but zeros.
pub(crate) const HOLE: ChunkId = ChunkId([0; 32]);

/// Returns how many chunks a file of `size` bytes has.
pub(crate) fn chunks_of(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES as u64)
}

/// Returns how many nodes lie above each chunk of a file of so many chunks.
pub(crate) fn depth_of(chunks: u64) -> u32 {
    let (mut depth, mut reach) = (0, 1u64);
    while reach < chunks {
        depth += 1;
        reach = reach.saturating_mul(FAN_OUT as u64);
    }
    depth
}

/// Returns how many chunks a node of this depth reaches at most.
pub(crate) fn reach_of(depth: u32) -> u64 {
    (FAN_OUT as u64).saturating_pow(depth)
}

/// Makes the tree of a file, from its first chunk to its last.
#[derive(Debug, Default)]
pub(crate) struct TreeBuilder {
    levels: Vec<Vec<u8>>,
    chunks: u64,
}

impl TreeBuilder {
    /// Adds the next chunk, none for a hole. `store` keeps a node that became full and returns its id.
    pub(crate) fn push<E>(
        &mut self,
        id: Option<ChunkId>,
        store: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.chunks += 1;
        self.push_at(0, id.unwrap_or(HOLE), store)
    }

    /// Ends the file and returns its name, none for one of zeros throughout.
    pub(crate) fn finish<E>(
        mut self,
        store: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<Option<ChunkId>, E> {
        if self.chunks == 0 {
            return Ok(None);
        }
        let depth = depth_of(self.chunks) as usize;
        for level in 0..depth {
            let id = store_node(&std::mem::take(&mut self.levels[level]), store)?;
            self.push_at(level + 1, id, store)?;
        }
        Ok(ChunkId::read(&self.levels[depth]).filter(|id| *id != HOLE))
    }

    fn push_at<E>(
        &mut self,
        level: usize,
        id: ChunkId,
        store: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        // A full node is stored only when more follows: so the last one of a level becomes the top without one above it.
        if self.levels[level].len() == FAN_OUT * 32 {
            let node = store_node(&self.levels[level], store)?;
            self.levels[level].clear();
            self.push_at(level + 1, node, store)?;
        }
        self.levels[level].extend_from_slice(&id.0);
        Ok(())
    }
}

fn store_node<E>(node: &[u8], store: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>) -> Result<ChunkId, E> {
    if is_zero(node) { Ok(HOLE) } else { store(node) }
}

/// Returns whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Most data shows it in its first bytes; the rest is compared with itself, one step on, as fast as memory goes.
    bytes.first().is_none_or(|first| *first == 0)
        && (bytes.len() < 2 || bytes[..bytes.len() - 1] == bytes[1..])
}

/// The chunks of a file in order, read from its tree node by node.
pub(crate) struct Leaves<F> {
    load: F,
    /// From the top down: a node's ids, how many chunks each of them reaches, and the next one to take.
    path: Vec<(Vec<u8>, u32, usize)>,
    /// Chunks still to come out of a hole.
    hole: u64,
    left: u64,
}

impl<E, F: FnMut(&ChunkId, usize) -> Result<Vec<u8>, E>> Leaves<F> {
    /// Begins at the first chunk of a file. `load` returns the node of an id, which has the given length in bytes.
    pub(crate) fn new(size: u64, top: Option<ChunkId>, load: F) -> Self {
        let chunks = chunks_of(size);
        let mut path = Vec::new();
        let hole = if let Some(top) = top {
            path.push((top.0.to_vec(), depth_of(chunks), 0));
            0
        } else {
            chunks
        };
        Self { load, path, hole, left: chunks }
    }
}

impl<E, F: FnMut(&ChunkId, usize) -> Result<Vec<u8>, E>> Iterator for Leaves<F> {
    type Item = Result<Option<ChunkId>, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        loop {
            if self.hole > 0 {
                self.hole -= 1;
                self.left -= 1;
                return Some(Ok(None));
            }
            let (ids, depth, at) = self.path.last_mut()?;
            let depth = *depth;
            let Some(id) = ChunkId::read(&ids[(*at * 32).min(ids.len())..]) else {
                self.path.pop();
                continue;
            };
            *at += 1;
            if id == HOLE {
                self.hole = reach_of(depth).min(self.left);
            } else if depth == 0 {
                self.left -= 1;
                return Some(Ok(Some(id)));
            } else {
                let below = reach_of(depth - 1);
                let children = self.left.min(reach_of(depth)).div_ceil(below);
                let bytes = usize::try_from(children * 32).unwrap_or(usize::MAX);
                match (self.load)(&id, bytes) {
                    Ok(node) => self.path.push((node, depth - 1, 0)),
                    Err(error) => {
                        self.left = 0;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn round_trip(ids: &[Option<ChunkId>]) -> usize {
        let mut nodes = HashMap::new();
        let mut store = |node: &[u8]| -> Result<ChunkId, Infallible> {
            assert!(node.len() <= CHUNK_BYTES);
            nodes.insert(ChunkId::of(node), node.to_vec());
            Ok(ChunkId::of(node))
        };
        let mut builder = TreeBuilder::default();
        for id in ids {
            builder.push(*id, &mut store).unwrap();
        }
        let top = builder.finish(&mut store).unwrap();
        let size = (ids.len() * CHUNK_BYTES) as u64;
        let leaves = Leaves::new(size, top, |id, bytes| {
            let node = nodes[id].clone();
            assert_eq!(node.len(), bytes);
            Ok::<_, Infallible>(node)
        });
        assert!(leaves.map(Result::unwrap).eq(ids.iter().copied()), "{} chunks", ids.len());
        nodes.len()
    }

    #[test]
    fn a_tree_gives_back_its_chunks_whatever_the_size() {
        for count in [0, 1, 2, FAN_OUT - 1, FAN_OUT, FAN_OUT + 1, 3 * FAN_OUT, FAN_OUT * FAN_OUT + 1] {
            let ids: Vec<_> = (0..count).map(|n| Some(ChunkId::of(&n.to_le_bytes()))).collect();
            round_trip(&ids);
        }
    }

    #[test]
    fn holes_cost_no_nodes_and_come_back() {
        let mut ids = vec![None; 5 * FAN_OUT];
        assert_eq!(round_trip(&ids), 0);
        ids[3 * FAN_OUT + 7] = Some(ChunkId::of(b"x"));
        assert_eq!(round_trip(&ids), 2);
        ids.push(None);
        assert_eq!(round_trip(&ids), 2);
    }

    #[test]
    fn zero_is_told_from_nearly_zero() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 4096]));
        for at in [0, 1, 2047, 4095] {
            let mut bytes = [0; 4096];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
        assert!(!is_zero(&[7; 64]));
    }
}

//! What can be wrong with the store, in words that name the file.

use std::io;
use std::path::{Path, PathBuf};

use trackbed_core::ports::PortError;

use super::ChunkId;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("cannot {attempt} `{}`: {cause}", path.display())]
    Disk {
        /// What was tried.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file of the store is not what was written.
    #[error("`{}` is damaged: {why}", path.display())]
    Damaged {
        /// The manifest, index or pack.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A chunk is not what its name says.
    #[error("chunk {chunk} in pack `{pack}` is damaged: {why}")]
    DamagedChunk {
        /// The chunk.
        chunk: ChunkId,
        /// Id of the pack.
        pack: String,
        /// What does not fit.
        why: String,
    },
    /// No pack holds a chunk.
    #[error("chunk {chunk} is in no pack{}", if damage.is_empty() { String::new() } else { format!(" ({damage})") })]
    MissingChunk {
        /// The chunk.
        chunk: ChunkId,
        /// Packs and indexes that could not be used, one of which may have held it; empty when all could.
        damage: String,
    },
    /// Something about a volume is beyond what can be captured.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    pub(crate) fn disk(attempt: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::Disk { attempt, path: path.to_owned(), cause: cause.into() }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }

    /// Returns whether the data is broken, and not only out of reach for the moment.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged { .. }
            | StoreError::DamagedChunk { .. }
            | StoreError::MissingChunk { .. } => true,
            StoreError::Disk { .. } | StoreError::Refused(_) => false,
        }
    }

    /// Returns whether the disk has no room left.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Disk { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Damaged { .. }
            | StoreError::DamagedChunk { .. }
            | StoreError::MissingChunk { .. }
            | StoreError::Refused(_) => false,
        }
    }
}

impl From<StoreError> for PortError {
    fn from(error: StoreError) -> Self {
        let port = PortError::new(error.to_string());
        if error.is_full() {
            return port.hint("free some disk space, or remove restore points that are not needed");
        }
        if error.is_damage() {
            return port.hint("the data of this point is broken on disk: choose an older one");
        }
        port
    }
}

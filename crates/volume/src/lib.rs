//! Volumes on disk: `<data dir>/volumes/<id>/data`, with the lock file beside it, never inside; and their snapshots.
//! Nothing here removes a volume.

mod browse;
mod chunk_store;
mod manifest;
mod place;
mod volumes;

pub use browse::{Entry, EntryKind, Usage, list_files, usage};
pub use chunk_store::{CHUNK_BYTES, ChunkId, ChunkReader, Extent, SnapshotStore, StoreError};
pub use manifest::{ENTRIES_MAX, Entry as ManifestEntry, FileContent, Header, Kind, Manifest};
pub use place::LocalVolumes;

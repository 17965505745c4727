//! Volumes on disk: `<data dir>/volumes/<id>/data`, with the lock file beside it, never inside; and their snapshots.
//! Only `erase` deletes a volume, and only one that its owner removed.

mod adopt;
mod beneath;
mod browse;
mod capture;
mod chunk_store;
mod collect;
mod crash;
mod erase;
pub mod inspect;
mod manifest;
mod pieces;
mod place;
mod restore;
#[cfg(test)]
mod rig;
mod space;
mod survey;
mod transfer;
mod volumes;
mod walk;

pub use browse::{Entry, EntryKind, Usage, list_files, usage};
pub use chunk_store::{CHUNK_BYTES, ChunkId, ChunkReader, Extent, SnapshotStore, StoreError};
pub use manifest::{ENTRIES_MAX, Entry as ManifestEntry, FileContent, Header, Kind, Manifest};
pub use place::LocalVolumes;
pub use survey::{EntryUse, FolderUse, FoundDatabase, find_databases, folder_use, is_database};
pub use transfer::{FolderReading, Reading, Replace, read_file, write_file};

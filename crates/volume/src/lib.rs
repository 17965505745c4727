//! Volumes on disk: `<data dir>/volumes/<id>/data`, with the lock file beside it, never inside. Nothing here removes a
//! volume.

mod beneath;
mod browse;
pub mod inspect;
mod place;
mod transfer;

pub use browse::{Entry, EntryKind, Usage, list_files, usage};
pub use place::LocalVolumes;
pub use transfer::{FolderReading, Reading, Replace, read_file, write_file};

//! Volumes on disk: `<data dir>/volumes/<id>/data`, with the lock file beside it, never inside. Nothing here removes a
//! volume.

mod browse;
mod place;

pub use browse::{Entry, EntryKind, Usage, list_files, usage};
pub use place::LocalVolumes;

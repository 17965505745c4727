//! An earlier source that a new one is told against: what is the same in both comes from there, by links.
//!
//! That is safe because nobody writes into a source. What the box knows of an earlier one it has written down itself: a
//! listing that counts only when its digest is the source's name. A file that was written to afterwards is not taken.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use trackbed_core::Digest;
use trackbed_core::ports::PortError;
use trackbed_stdx::files;
use trackbed_stdx::listing::{self, Listing, Node};

use crate::collect;
use crate::source::{ENTRIES_MAX, NAMES_MAX_BYTES};

/// Folder of what is known of each source.
const LISTINGS: &str = "listings";
/// Longest of these: all names, and for each a kind, two lengths and a hash.
const LISTING_MAX_BYTES: u64 = NAMES_MAX_BYTES + ENTRIES_MAX as u64 * 64;
/// Threads that make links.
const THREADS_MAX: usize = 4;
/// Keyword of the names that are gone, in a global header of the tar (pax(1), vendor keywords).
const GONE: &str = "TRACKBED.gone";

/// An earlier source, of which a new one is told only how it differs.
#[derive(Debug)]
pub struct Earlier {
    path: PathBuf,
    /// What is in it, and what was not yet replaced.
    rest: Listing,
    bytes: u64,
    /// When it was received.
    received: SystemTime,
}

impl Earlier {
    /// Finds a source and what is known of it, and keeps it from being collected. None when either is missing.
    /// Blocking.
    pub fn find(data_dir: &Path, digest: &Digest) -> Option<Self> {
        let path = data_dir.join("sources").join(digest.as_str());
        collect::renew(&path).ok()?;
        let about =
            fs::metadata(place(data_dir, digest)).ok().filter(|about| about.len() <= LISTING_MAX_BYTES)?;
        let known = fs::read(place(data_dir, digest)).ok()?;
        let mut known = &known[..];
        let bytes = listing::decode_number(&mut known)?;
        let rest: Listing = listing::decode(&mut known)?.into_iter().collect();
        let is_true = known.is_empty() && Digest::from_bytes(listing::digest(&rest)) == *digest;
        is_true.then_some(Self { path, rest, bytes, received: about.modified().ok()? })
    }

    /// Takes names out that are not in the new source any more: those of a global header.
    pub(crate) fn remove_gone(&mut self, header: &[u8]) -> Result<(), PortError> {
        let broken =
            || PortError::new("the upload does not say which files are gone").hint("run the command again");
        for extension in tar::PaxExtensions::new(header) {
            let extension = extension.map_err(|_| broken())?;
            if extension.key().is_ok_and(|key| key == GONE) {
                let name = extension.value().map_err(|_| broken())?;
                self.replace(name);
            }
        }
        Ok(())
    }

    /// Takes a name out because the upload holds it, or because it is gone.
    pub(crate) fn replace(&mut self, name: &str) {
        if let Some(Node::File { .. }) = self.rest.remove(name) {
            let size = fs::symlink_metadata(self.path.join(name)).map_or(0, |metadata| metadata.len());
            self.bytes = self.bytes.saturating_sub(size);
        }
    }

    /// Returns how many bytes the files have that are still taken from here.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the names that are still taken from here.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.rest.iter()
    }

    /// Puts everything that was not replaced into `folder`, where all folders that are needed stand already.
    pub(crate) fn link_into(self, folder: &Path) -> Result<(), PortError> {
        let names: Vec<(&String, &Node)> = self.rest.iter().collect();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let failed = AtomicBool::new(false);
        let link = |(name, node): &(&String, &Node)| -> io::Result<()> {
            match node {
                Node::Folder => Ok(()),
                Node::Link { target } => symlink(target, folder.join(name)),
                Node::File { .. } => link_file(&self.path.join(name), &folder.join(name), self.received),
            }
        };
        let work = |names: &[(&String, &Node)]| {
            for name in names {
                if failed.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(error) = link(name) {
                    failed.store(true, Ordering::Relaxed);
                    let is_gone = error.kind() == ErrorKind::NotFound;
                    let said = crate::source::disk_error(name.0, &error);
                    // Somebody made room on a disk that is nearly full.
                    return Err(if is_gone { said.hint("run the command again") } else { said });
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let share = names.len().div_ceil(threads).max(1);
            let mut all = Ok(());
            let mut working = Vec::new();
            for names in names.chunks(share) {
                match thread::Builder::new().spawn_scoped(scope, || work(names)) {
                    Ok(thread) => working.push(thread),
                    // The box has no thread to spare.
                    Err(_) => all = all.and(work(names)),
                }
            }
            for thread in working {
                let linked = thread.join();
                all = all.and(linked.unwrap_or_else(|_| Err(PortError::new("linking the source failed"))));
            }
            all
        })
    }
}

/// Links a file, or copies it where that cannot be: a disk without links, or a file that has as many names as its disk
/// allows (65,000 on ext4; link(2), EMLINK).
fn link_file(from: &Path, to: &Path, received: SystemTime) -> io::Result<()> {
    if fs::symlink_metadata(from)?.modified()? > received {
        return Err(io::Error::other("somebody has written into the earlier source"));
    }
    match fs::hard_link(from, to) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
            fs::copy(from, to).map(drop)
        }
        linked => linked,
    }
}

/// Writes down what is in a source. It is a cache: without it the next upload is a whole one.
pub(crate) fn note(data_dir: &Path, digest: &Digest, bytes: u64, entries: &Listing) -> io::Result<()> {
    let path = place(data_dir, digest);
    if path.exists() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir.join(LISTINGS))?;
    let mut text = bytes.to_le_bytes().to_vec();
    listing::encode(entries, &mut text);
    files::write_atomic(&path, &text, 0o600)
}

/// Forgets what was known of sources that are gone.
pub(crate) fn forget_gone(data_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(data_dir.join(LISTINGS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !data_dir.join("sources").join(entry.file_name()).is_dir() {
            files::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn place(data_dir: &Path, digest: &Digest) -> PathBuf {
    data_dir.join(LISTINGS).join(digest.as_str())
}

#[cfg(test)]
#[path = "earlier_tests.rs"]
mod tests;

//! Receives a source: a tar stream from an untrusted client becomes an immutable tree, named by what it holds. The tar
//! holds all of it, or what is different from an earlier source.
//!
//! Nothing of the stream is believed: no name leaves the tree, no link points out of it, no special file is made.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use trackbed_core::Digest;
use trackbed_core::ports::{PortError, Source};
use trackbed_stdx::listing::{self, Listing, Node};
use trackbed_stdx::{files, random};

use crate::collect;
use crate::earlier;
pub use crate::earlier::Earlier;
use crate::layers::{DISK_FULL, name_disk};
use crate::source_tree::{Names, check_link};

/// Most bytes of all files together.
pub const TOTAL_MAX_BYTES: u64 = 2 << 30;
/// Most bytes of one file.
pub const FILE_MAX_BYTES: u64 = 2 << 30;
/// Most files, folders and links together.
pub const ENTRIES_MAX: usize = 200_000;
/// Most bytes of all names and of where links lead; so too of the names that are gone since an earlier source.
pub const NAMES_MAX_BYTES: u64 = 32 << 20;
/// Bytes of a file that are written at a time.
const PIECE_BYTES: usize = 64 << 10;
/// A block of a tar archive (tar(5)).
const BLOCK_BYTES: usize = 512;
/// Folders that no source needs: they are made again on the box, or hold history.
const SKIPPED: [&str; 4] = [".git", "node_modules", ".venv", "__pycache__"];

/// What a source may be at most.
#[derive(Debug, Clone, Copy)]
pub struct SourceLimits {
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Files, folders and links together.
    pub entries: usize,
    /// Bytes of all names and of where links lead.
    pub names_bytes: u64,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            total_bytes: TOTAL_MAX_BYTES,
            file_bytes: FILE_MAX_BYTES,
            entries: ENTRIES_MAX,
            names_bytes: NAMES_MAX_BYTES,
        }
    }
}

/// Returns whether a source is here, and keeps it from being collected for an hour. Blocking.
pub fn is_here(data_dir: &Path, digest: &Digest) -> bool {
    collect::renew(&data_dir.join("sources").join(digest.as_str())).is_ok()
}

/// Unpacks an uncompressed tar stream below `data_dir` and names it by its digest. Receiving the same tree twice is
/// fine; on an error nothing is left. With an earlier source the tar holds only what differs from it. Blocking.
///
/// # Errors
/// When the stream breaks off, holds a name, link or file that a source may not have, is too large or empty, or the
/// disk refuses.
pub fn receive(
    tar: impl Read,
    data_dir: &Path,
    limits: SourceLimits,
    earlier: Option<Earlier>,
) -> Result<Source, PortError> {
    let sources = data_dir.join("sources");
    let temporary = data_dir.join("tmp");
    for folder in [&sources, &temporary] {
        fs::create_dir_all(folder)
            .map_err(|error| PortError::new(format!("cannot make {}: {error}", folder.display())))?;
    }
    let tail: String = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = temporary.join(format!("source-{tail}"));
    fs::create_dir(&folder)
        .map_err(|error| PortError::new(format!("cannot make {}: {error}", folder.display())))?;
    let received = unpack(tar, &folder, limits, earlier).and_then(|(entries, bytes)| {
        let digest = Digest::from_bytes(listing::digest(&entries));
        let path = sources.join(digest.as_str());
        publish(&folder, &path)
            .map_err(|error| PortError::new(format!("cannot keep the source: {error}")))?;
        if let Err(error) = earlier::note(data_dir, &digest, bytes, &entries) {
            tracing::warn!(%error, "the next upload will be a whole one: the names of a source were not kept");
        }
        Ok(Source { digest, path })
    });
    // Gone already when it was renamed.
    let _ = files::remove_tree(&folder);
    received.map_err(|error| name_disk(error, data_dir))
}

/// Returns what is in the tree now, and how many bytes its files have.
fn unpack(
    tar: impl Read,
    folder: &Path,
    limits: SourceLimits,
    mut earlier: Option<Earlier>,
) -> Result<(Listing, u64), PortError> {
    let mut archive = tar::Archive::new(Trailing { inner: tar, zeros: 0 });
    let mut entries = Names::new(limits);
    let mut total: u64 = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    let broken = |error: io::Error| {
        PortError::new(format!("the upload broke off or is not a tar archive: {error}"))
            .hint("run the command again")
    };
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            if let Some(earlier) = &mut earlier {
                if entry.size() > limits.names_bytes {
                    return Err(PortError::new("the upload names too many files that are gone"));
                }
                let mut header = Vec::new();
                entry.read_to_end(&mut header).map_err(broken)?;
                earlier.remove_gone(&header)?;
            }
            continue;
        }
        let Some(name) = clean_name(&entry.path_bytes())? else { continue };
        make_parents(folder, &name, &mut entries)?;
        if let Some(earlier) = &mut earlier {
            earlier.replace(&name);
        }
        let path = folder.join(&name);
        let disk = |error: io::Error| disk_error(&name, &error);
        if kind.is_dir() {
            match entries.get(&name) {
                Some(Node::Folder) => {}
                Some(_) => return Err(twice(&name)),
                None => {
                    make_folder(&path).map_err(disk)?;
                    entries.add(&name, Node::Folder)?;
                }
            }
            continue;
        }
        if entries.get(&name).is_some() {
            return Err(twice(&name));
        }
        let link = entry.link_name_bytes().map(|bytes| bytes.into_owned());
        if kind.is_symlink() {
            let target = String::from_utf8(link.unwrap_or_default())
                .map_err(|_| PortError::new(format!("the link {name} points to a name that is not UTF-8")))?;
            symlink(&target, &path).map_err(disk)?;
            entries.add(&name, Node::Link { target })?;
        } else if kind.is_hard_link() {
            let target = clean_name(&link.unwrap_or_default())?.unwrap_or_default();
            let Some(Node::File { executable, hash }) = entries.get(&target) else {
                return Err(PortError::new(format!(
                    "{name} is a hard link to {target}, which is not in the source"
                )));
            };
            let (executable, hash) = (*executable, *hash);
            total += fs::copy(folder.join(&target), &path).map_err(disk)?;
            check_total(total, limits)?;
            entries.add(&name, Node::File { executable, hash })?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let size = entry.size();
            if size > limits.file_bytes {
                return Err(too_large(
                    &format!("{name} is {}", mebibytes(size)),
                    limits.file_bytes,
                    "per file",
                ));
            }
            total = total.saturating_add(size);
            check_total(total, limits)?;
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
            let hash = write_file(&mut entry, &path, &name, executable, &mut buffer)?;
            entries.add(&name, Node::File { executable, hash })?;
        } else {
            return Err(PortError::new(format!(
                "{name} is a special file (a device, a pipe or a socket); a source holds files, folders and links"
            ))
            .hint("exclude it in .gitignore or .railwayignore"));
        }
    }
    if archive.into_inner().zeros < BLOCK_BYTES {
        return Err(broken(io::Error::other("the end of the archive is missing")));
    }
    if let Some(earlier) = earlier {
        total = total.saturating_add(earlier.bytes());
        check_total(total, limits)?;
        take_over(earlier, folder, &mut entries)?;
    }
    let entries = entries.all();
    if !entries.values().any(|entry| !matches!(entry, Node::Folder)) {
        return Err(PortError::new("nothing to deploy: the folder is empty or everything in it is ignored")
            .hint("check the path, .gitignore and .railwayignore"));
    }
    for (name, entry) in &entries {
        if let Node::Link { target } = entry {
            check_link(name, target, &entries)?;
        }
    }
    Ok((entries, total))
}

/// Adds what is the same as in the earlier source.
fn take_over(earlier: Earlier, folder: &Path, entries: &mut Names) -> Result<(), PortError> {
    for (name, node) in earlier.names() {
        make_parents(folder, name, entries)?;
        if entries.get(name).is_none() {
            if *node == Node::Folder {
                make_folder(&folder.join(name)).map_err(|error| disk_error(name, &error))?;
            }
            entries.add(name, node.clone())?;
        }
    }
    earlier.link_into(folder)
}

/// Counts the zeros that a stream ended with so far: a tar archive ends with blocks of them, one that broke off does not.
struct Trailing<R> {
    inner: R,
    zeros: usize,
}

impl<R: Read> Read for Trailing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match buffer[..count].iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros = count - last - 1,
            None => self.zeros = self.zeros.saturating_add(count),
        }
        Ok(count)
    }
}

/// Returns the normalised name, none for the root and for what is skipped.
fn clean_name(bytes: &[u8]) -> Result<Option<String>, PortError> {
    let Ok(name) = std::str::from_utf8(bytes) else {
        let name = String::from_utf8_lossy(bytes);
        return Err(PortError::new(format!("the file name `{name}` is not UTF-8")).hint("rename the file"));
    };
    let refused = |why: &str| PortError::new(format!("the source holds the name `{name}`, which {why}"));
    if name.starts_with('/') {
        return Err(refused("is absolute"));
    }
    if name.contains('\0') {
        return Err(refused("holds a zero byte"));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(refused("leads out of the folder"));
    }
    if parts.is_empty() || parts.iter().any(|part| SKIPPED.contains(part)) {
        return Ok(None);
    }
    Ok(Some(parts.join("/")))
}

fn make_parents(folder: &Path, name: &str, entries: &mut Names) -> Result<(), PortError> {
    for (at, _) in name.match_indices('/') {
        let parent = &name[..at];
        match entries.get(parent) {
            Some(Node::Folder) => {}
            Some(_) => {
                return Err(PortError::new(format!("`{name}` lies below `{parent}`, which is not a folder")));
            }
            None => {
                make_folder(&folder.join(parent)).map_err(|error| disk_error(parent, &error))?;
                entries.add(parent, Node::Folder)?;
            }
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn write_file(
    entry: &mut impl Read,
    path: &Path,
    name: &str,
    executable: bool,
    buffer: &mut [u8],
) -> Result<[u8; 32], PortError> {
    let disk = |error: io::Error| disk_error(name, &error);
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(disk)?;
    let mut hasher = Sha256::new();
    loop {
        let count = entry.read(buffer).map_err(|error| {
            PortError::new(format!("the upload broke off in {name}: {error}")).hint("run the command again")
        })?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(disk)?;
    }
    // Our umask may have taken some of it.
    if file.metadata().map_err(disk)?.permissions().mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode)).map_err(disk)?;
    }
    Ok(hasher.finalize().into())
}

/// Makes the tree durable and gives it its name; one that is there already stays.
fn publish(folder: &Path, path: &PathBuf) -> io::Result<()> {
    if path.is_dir() {
        // Whoever collects must see that it is wanted again.
        return collect::renew(path);
    }
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    collect::renew(folder)?;
    nix::unistd::syncfs(File::open(folder)?)?;
    match fs::rename(folder, path) {
        // Somebody else received the same tree meanwhile.
        Err(_) if path.is_dir() => return Ok(()),
        other => other?,
    }
    path.parent().map_or(Ok(()), files::sync_folder)
}

fn check_total(total: u64, limits: SourceLimits) -> Result<(), PortError> {
    if total > limits.total_bytes {
        return Err(too_large(
            &format!("the source is more than {}", mebibytes(total)),
            limits.total_bytes,
            "in all",
        ));
    }
    Ok(())
}

fn too_large(what: &str, limit: u64, scope: &str) -> PortError {
    PortError::new(format!("{what}; at most {} {scope} can be deployed", mebibytes(limit)))
        .hint("exclude data and generated files in .gitignore or .railwayignore; data belongs into a volume")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}

fn twice(name: &str) -> PortError {
    PortError::new(format!("the upload holds `{name}` twice"))
}

pub(crate) fn disk_error(name: &str, error: &io::Error) -> PortError {
    let full = error.kind() == io::ErrorKind::StorageFull;
    let error = PortError::new(format!("cannot write {name} of the source: {error}"));
    if full { error.hint(DISK_FULL) } else { error }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

//! Packs a source into a tar that depends on nothing but its names, contents and executable bits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use trackbed_client::SourceChunks;
use trackbed_stdx::clock;
use trackbed_stdx::listing::Node;

use crate::index::{Index, Known, Stamp};
use crate::parcel::Parcel;
use crate::walk::{Entry, EntryKind, Tree};

/// How much is sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Keyword of a name that is gone (pax(1), vendor keywords in a global header).
const GONE: &str = "TRACKBED.gone";

/// Writes the tar, and returns what is in the tree. Blocks; an error that comes from `to` is passed on.
pub(crate) fn pack(tree: &Tree, parcel: Parcel, to: impl Write) -> Result<Index> {
    let mut tar = tar::Builder::new(to);
    let mut index = parcel.index;
    append_gone(&mut tar, &parcel.gone).context("cannot pack the source")?;
    for entry in parcel.entries.iter().map(|position| &tree.entries[*position]) {
        match entry.kind {
            EntryKind::File { .. } => append_file(&mut tar, tree, entry, &mut index),
            _ => append(&mut tar, entry, &mut index),
        }
        .with_context(|| format!("cannot pack {}; nothing was deployed", entry.path.display()))?;
    }
    tar.into_inner().and_then(|mut to| to.flush()).context("cannot pack the source")?;
    Ok(index)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn append_gone(tar: &mut tar::Builder<impl Write>, names: &[String]) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let records: String = names.iter().map(|name| record(GONE, name)).collect();
    let mut header = header(EntryType::XGlobalHeader, 0o644, records.len() as u64);
    tar.append_data(&mut header, "gone", records.as_bytes())
}

/// Writes `LENGTH KEYWORD=VALUE`, in which the length counts itself (pax(1)).
fn record(keyword: &str, value: &str) -> String {
    let rest = format!(" {keyword}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

fn append(tar: &mut tar::Builder<impl Write>, entry: &Entry, index: &mut Index) -> io::Result<()> {
    if let (Some(name), Some(node)) = (entry.path.to_str(), entry.kind.node()) {
        index.put(Known::new(name.to_owned(), node));
    }
    match &entry.kind {
        EntryKind::Link(target) => {
            tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), &entry.path, target)
        }
        _ => tar.append_data(&mut header(EntryType::Directory, 0o755, 0), &entry.path, io::empty()),
    }
}

fn append_file(
    tar: &mut tar::Builder<impl Write>,
    tree: &Tree,
    entry: &Entry,
    index: &mut Index,
) -> io::Result<()> {
    let file = tree.open(entry)?;
    let read_at = clock::now_ms();
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it changed while it was packed"));
    }
    // As stamped, not as it was when the folder was walked.
    let executable = metadata.mode() & 0o100 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    let mut header = header(EntryType::Regular, mode, metadata.len());
    let mut file = Exactly { file, left: metadata.len(), hasher: Sha256::new() };
    tar.append_data(&mut header, &entry.path, &mut file)?;
    if let Some(name) = entry.path.to_str() {
        let node = Node::File { executable, hash: file.hasher.finalize().into() };
        index.put(Known::read(name.to_owned(), node, Stamp::of(&metadata), read_at));
    }
    Ok(())
}

/// Reads as many bytes as the header promised; a file that shrinks meanwhile is an error, one that grows is cut.
struct Exactly {
    file: File,
    left: u64,
    hasher: Sha256,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::other("it became shorter while it was packed"));
        }
        self.left -= read as u64;
        self.hasher.update(&into[..read]);
        Ok(read)
    }
}

/// The way from a thread that packs to the upload; waits when the box is slower.
pub(crate) struct ChunkWriter {
    chunks: SourceChunks,
    filling: Vec<u8>,
}

impl ChunkWriter {
    /// Writes into a channel.
    pub(crate) fn new(chunks: SourceChunks) -> Self {
        Self { chunks, filling: Vec::with_capacity(CHUNK_BYTES) }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        if self.filling.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filling.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.filling, Vec::with_capacity(CHUNK_BYTES));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the box hung up");
        self.chunks.blocking_send(Ok(chunk.into())).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::tests::Scratch;
    use crate::walk::Walk;

    fn packed(folder: &Path) -> Vec<u8> {
        let tree =
            Walk { root: folder, data_dir: Path::new("/nonexistent"), heed_gitignore: true }.run().unwrap();
        let mut bytes = Vec::new();
        pack(&tree, Parcel::whole(&tree), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_files_give_the_same_tar() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        let files = [("b", "2"), ("a/x", "1"), ("a-b", "3"), (long.as_str(), "4")];
        let (one, two) = (Scratch::with(&files), Scratch::with(&files));
        for folder in [&one, &two] {
            symlink("a/x", folder.path().join("link")).unwrap();
            std::fs::set_permissions(folder.path().join("b"), std::fs::Permissions::from_mode(0o750))
                .unwrap();
        }
        let bytes = packed(one.path());
        assert_eq!(bytes, packed(two.path()));

        let mut archive = tar::Archive::new(bytes.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [("a", 0o755), ("a-b", 0o644), ("a/x", 0o644), ("b", 0o755)];
        let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
        assert_eq!(&seen[..4], &expected);
        assert!(seen.contains(&(long, 0o644)) && seen.contains(&("link".to_owned(), 0o777)));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = Scratch::with(&[("a", "12345")]);
        let file = File::open(folder.path().join("a")).unwrap();
        let error =
            io::copy(&mut Exactly { file, left: 9, hasher: Sha256::new() }, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
    }
}

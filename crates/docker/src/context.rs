//! What a build is sent: the source as a tar, without what `.dockerignore` names.
//!
//! Patterns: docs.docker.com/reference/dockerfile, ".dockerignore file". They begin at the root; the last that matches a
//! file, or a folder that it is in, decides.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tokio::sync::mpsc;

/// Bytes that are sent at once.
const PIECE_BYTES: usize = 64 << 10;

/// The patterns of a source.
pub(crate) struct Ignored(Vec<(bool, Gitignore)>);

impl Ignored {
    /// Reads the patterns beside a Dockerfile (`NAME.dockerignore`), else those at the root.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(context: &Path, dockerfile: &str) -> io::Result<Ignored> {
        for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
            match std::fs::read(context.join(name)) {
                Ok(bytes) => return Ok(Ignored::parse(&String::from_utf8_lossy(&bytes))),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Ignored(Vec::new()))
    }

    fn parse(text: &str) -> Ignored {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let patterns = lines.filter_map(|line| {
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if pattern.is_empty() || pattern == "." {
                return None;
            }
            let mut builder = GitignoreBuilder::new("");
            // A pattern that none understands matches nothing.
            builder.add_line(None, &format!("/{pattern}")).ok()?;
            Some((keeps, builder.build().ok()?))
        });
        Ignored(patterns.collect())
    }

    /// Returns whether a path, relative to the source, stays behind.
    pub(crate) fn has(&self, path: &Path, is_folder: bool) -> bool {
        let mut ignored = false;
        for (keeps, pattern) in &self.0 {
            if pattern.matched_path_or_any_parents(path, is_folder).is_ignore() {
                ignored = !keeps;
            }
        }
        ignored
    }

    /// Returns whether something in an ignored folder may be kept all the same.
    fn has_exceptions(&self) -> bool {
        self.0.iter().any(|(keeps, _)| *keeps)
    }
}

/// Writes the source as a tar into a channel. Blocks; ends when nobody reads any more.
///
/// # Errors
/// When the source cannot be read.
pub(crate) fn send(
    context: &Path,
    dockerfile: &str,
    ignored: &Ignored,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let out = Pieces { pieces, piece: Vec::with_capacity(PIECE_BYTES) };
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let always = [dockerfile, ".dockerignore"];
    add(
        &mut tar,
        context,
        Path::new(""),
        &|path, is_folder| ignored.has(path, is_folder) && !always.iter().any(|kept| Path::new(kept) == path),
        ignored.has_exceptions() || Path::new(dockerfile).components().count() > 1,
    )?;
    tar.into_inner()?.flush()
}

fn add(
    tar: &mut tar::Builder<Pieces>,
    context: &Path,
    folder: &Path,
    is_left: &dyn Fn(&Path, bool) -> bool,
    looks_below: bool,
) -> io::Result<()> {
    let mut entries = std::fs::read_dir(context.join(folder))?.collect::<io::Result<Vec<_>>>()?;
    // The same source makes the same tar.
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        let is_left_here = is_left(&path, kind.is_dir());
        if is_left_here && !(kind.is_dir() && looks_below) {
            continue;
        }
        if !is_left_here {
            tar.append_path_with_name(entry.path(), &path)?;
        }
        if kind.is_dir() {
            add(tar, context, &path, is_left, looks_below)?;
        }
    }
    Ok(())
}

/// Collects bytes and hands them on in pieces.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_at_the_root_and_the_last_that_matches_decides() {
        let ignored =
            Ignored::parse("# secret\n*.md\n!README.md\n**/*.pyc\nnode_modules/\n/dist\nlogs\n!logs/keep\n");
        let left = |path: &str| ignored.has(Path::new(path), false);
        assert!(
            left("NOTES.md")
                && left("a/b.pyc")
                && left("node_modules/x/y.js")
                && left("dist/a")
                && left("logs/a")
        );
        assert!(
            !left("README.md") && !left("docs/NOTES.md") && !left("src/node_modules") && !left("logs/keep")
        );
    }

    #[test]
    fn what_is_ignored_is_not_sent_and_the_dockerfile_always_is() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [(".dockerignore", "*\n!app\n"), ("Dockerfile", "FROM x"), ("app/a", "a"), ("other", "o")]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            trackbed_stdx::files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        let ignored = Ignored::read(folder.path(), "Dockerfile").unwrap();
        let (sender, mut receiver) = mpsc::channel(1000);
        send(folder.path(), "Dockerfile", &ignored, sender).unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        let names: Vec<String> = entries.map(|path| path.to_string_lossy().into_owned()).collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "app", "app/a"]);
    }
}

//! Answers requests with the files of a folder that never changes: the target of a static site, which has no process.
//!
//! A request's way: [`path`] makes a path of its target that cannot leave the folder, [`find`] opens what stands there,
//! [`conditions`] decides how much of it the client wants, and [`answer`] sends it, piece by piece.

mod answer;
mod conditions;
mod find;
mod kinds;
mod path;
mod probe;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, openat};

pub(crate) use probe::probe;

/// How the address of a folder begins.
const SCHEME: &str = "files:";

/// A folder that is served.
#[derive(Debug)]
pub(crate) struct Site {
    root: PathBuf,
    fallback: Fallback,
    /// The beginning of the tags of files that do not carry one.
    name: String,
    opened: OnceLock<OwnedFd>,
}

/// What is answered where no file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fallback {
    /// `404.html` of the folder, or a page of the edge's own; with status 404.
    Missing,
    /// `index.html` of the folder for a page, because the app in it knows paths of its own.
    Index,
}

impl Site {
    /// Reads an address: `files:404:<folder>` or `files:index:<folder>`, the folder with its whole path. None when it is an
    /// address of another kind.
    pub(crate) fn of(address: &str) -> Option<io::Result<Self>> {
        let rest = address.strip_prefix(SCHEME)?;
        let (fallback, root) = match rest.split_once(':') {
            Some(("404", root)) => (Fallback::Missing, root),
            Some(("index", root)) => (Fallback::Index, root),
            _ => return Some(Err(unusable(address))),
        };
        let root = Path::new(root);
        if !root.is_absolute() {
            return Some(Err(unusable(address)));
        }
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        let name = name.chars().filter(char::is_ascii_alphanumeric).take(NAME_CHARS).collect();
        Some(Ok(Self { root: root.to_owned(), fallback, name, opened: OnceLock::new() }))
    }

    /// Returns the folder, opened once and kept: a layer never changes, and what is open outlives even its removal.
    ///
    /// # Errors
    /// When it is not there.
    fn root(&self) -> io::Result<&OwnedFd> {
        if let Some(root) = self.opened.get() {
            return Ok(root);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags, Mode::empty())?;
        Ok(self.opened.get_or_init(|| root))
    }
}

/// Characters of a folder's name in a tag: enough to tell layers apart, which are named by a digest.
const NAME_CHARS: usize = 16;

fn unusable(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("`{address}` is no address of files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_address_of_files_is_one() {
        assert!(Site::of("tcp:127.0.0.1:80").is_none());
        for text in ["files:", "files:/x", "files:404:x", "files:200:/x", "files:index:"] {
            assert!(Site::of(text).unwrap().is_err(), "{text}");
        }
        let site = Site::of("files:index:/data/a:b/layers/0123456789abcdef0123").unwrap().unwrap();
        assert_eq!(site.root, Path::new("/data/a:b/layers/0123456789abcdef0123"));
        assert_eq!((site.fallback, site.name.as_str()), (Fallback::Index, "0123456789abcdef"));
    }
}

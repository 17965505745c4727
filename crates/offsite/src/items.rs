//! What lies in a data directory and never changes once it is there, in the order in which it must be sent: nothing
//! comes before what it refers to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::formats::Kind;

/// A file or folder to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Relative to the data directory.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Of a file; zero for a folder, which is measured when it is sent.
    pub(crate) bytes: u64,
    /// When a file was last written, in milliseconds; zero for a folder.
    pub(crate) changed_ms: i64,
    pub(crate) rank: Rank,
}

/// Lower ranks are sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Sources, layers, interpreters.
    Tree,
    /// Says that a layer is whole.
    Mark,
    /// Data of restore points.
    Pack,
    /// What lies where in the data.
    Index,
    /// What was found in the databases of a point.
    Content,
    /// Names all that a point consists of.
    Manifest,
}

impl Rank {
    /// Returns whether it is so small and so important that every one is read back as soon as it is sent.
    pub(crate) fn is_read_back(self) -> bool {
        match self {
            Rank::Content | Rank::Manifest | Rank::Mark => true,
            Rank::Tree | Rank::Pack | Rank::Index => false,
        }
    }
}

/// Folders whose entries are folders that are sent as one object each.
const TREES: [&str; 3] = ["sources", "layers", "tools/python"];
/// Where the data of restore points lies. What else is kept beside it is about files of this disk and of no use elsewhere.
const PACKS: &str = "snapshots/packs/";
const POINTS: &str = "snapshots/points/";

/// Lists a data directory. Blocking.
///
/// The restore points are listed before their data: a point that is listed had all its data by then, and what replaces
/// some of it later is listed too.
///
/// # Errors
/// When a folder cannot be read. What vanishes meanwhile is not listed.
pub(crate) fn list(data_dir: &Path) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for folder in [POINTS, PACKS] {
        files(data_dir, folder.trim_end_matches('/'), &mut items)?;
    }
    for folder in TREES {
        for (name, metadata) in entries(&data_dir.join(folder))? {
            let path = format!("{folder}/{name}");
            let is_mark = folder == "layers" && name.ends_with(".ok");
            if metadata.is_file() && is_mark {
                items.push(file(path, &metadata));
            } else if metadata.is_dir()
                && (folder != "layers" || data_dir.join(format!("{path}.ok")).exists())
            {
                items.push(Item { path, kind: Kind::Tree, bytes: 0, changed_ms: 0, rank: Rank::Tree });
            }
        }
    }
    items.sort_by(|a, b| (a.rank, &a.path).cmp(&(b.rank, &b.path)));
    Ok(items)
}

fn files(data_dir: &Path, folder: &str, items: &mut Vec<Item>) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for (name, metadata) in entries(&data_dir.join(&folder))? {
            let path = format!("{folder}/{name}");
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                items.push(file(path, &metadata));
            }
        }
    }
    Ok(())
}

fn file(path: String, metadata: &fs::Metadata) -> Item {
    let rank = rank(&path);
    let changed_ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
    Item { path, kind: Kind::File, bytes: metadata.len(), changed_ms, rank }
}

fn rank(path: &str) -> Rank {
    if path.starts_with(POINTS) {
        return if path.ends_with(".content.json") { Rank::Content } else { Rank::Manifest };
    }
    if path.starts_with(PACKS) {
        return if path.ends_with(".pack") { Rank::Pack } else { Rank::Index };
    }
    Rank::Mark
}

/// Returns the entries of a folder, without what is being written (`.…`, `….tmp`), what is said of the bytes on this disk
/// only (`….doubt`), and what can have no name elsewhere.
fn entries(folder: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let reading = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in reading {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".doubt") {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => found.push((name, metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_before_what_it_refers_to_and_nothing_half_made_comes_at_all() {
        let data_dir = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = data_dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in [
            "snapshots/points/vol_a/rp_a",
            "snapshots/points/vol_a/rp_a.content.json",
            "snapshots/points/vol_a/.rp_b.tmp",
            "snapshots/packs/a.pack",
            "snapshots/packs/a.index",
            "snapshots/packs/a.doubt",
            "snapshots/stamps/vol_a",
            "layers/aa/file",
            "layers/aa.ok",
            "layers/unfinished/file",
            "sources/bb/main.py",
            "volumes/vol_a/data/app.db",
            "state.db",
        ] {
            write(path);
        }
        let paths: Vec<String> = list(data_dir.path()).unwrap().into_iter().map(|item| item.path).collect();
        assert_eq!(
            paths,
            [
                "layers/aa",
                "sources/bb",
                "layers/aa.ok",
                "snapshots/packs/a.pack",
                "snapshots/packs/a.index",
                "snapshots/points/vol_a/rp_a.content.json",
                "snapshots/points/vol_a/rp_a",
            ]
        );
    }
}

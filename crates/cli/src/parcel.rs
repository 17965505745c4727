//! What of a folder is sent to the box: all of it, or what differs from what the box has.

use std::io;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use trackbed_stdx::clock;
use trackbed_stdx::listing::Node;

use crate::index::{self, Index, Known, Stamp};
use crate::walk::{Entry, EntryKind, Tree, unreadable};

/// What is sent of a tree.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The source that the box has; none when everything is sent.
    pub(crate) earlier: Option<String>,
    /// Which entries of the tree, in their order.
    pub(crate) entries: Vec<usize>,
    /// Which names of the earlier source are gone.
    pub(crate) gone: Vec<String>,
    /// How many bytes the files have.
    pub(crate) bytes: u64,
    /// What is known of the tree. Packing completes it.
    pub(crate) index: Index,
}

impl Parcel {
    /// Sends everything.
    pub(crate) fn whole(tree: &Tree) -> Self {
        Self {
            earlier: None,
            entries: (0..tree.entries.len()).collect(),
            gone: Vec::new(),
            bytes: tree.bytes,
            index: Index::default(),
        }
    }

    /// Reads the files that may have changed since an index was made, and sends those that have. None when a name cannot be
    /// told in that way. Blocks.
    pub(crate) fn since(old: &Index, tree: &Tree) -> Result<Option<Self>> {
        let mut this = Self {
            earlier: Some(old.digest()),
            entries: Vec::new(),
            gone: Vec::new(),
            bytes: 0,
            index: Index::default(),
        };
        // Both are in the order of the names.
        let mut earlier = old.known().iter().peekable();
        for (position, entry) in tree.entries.iter().enumerate() {
            let Some(name) = entry.path.to_str() else { return Ok(None) };
            while let Some(gone) = earlier.next_if(|known| known.name.as_str() < name) {
                this.gone.push(gone.name.clone());
            }
            let before = earlier.next_if(|known| known.name == name);
            let now = match &entry.kind {
                EntryKind::File { stamp, .. } => match before.filter(|before| before.is_still(*stamp)) {
                    Some(before) => before.clone(),
                    None => read(tree, entry, name).map_err(|error| unreadable(entry, &error))?,
                },
                kind => match kind.node() {
                    Some(node) => Known::new(name.to_owned(), node),
                    None => return Ok(None),
                },
            };
            if before.map(|before| &before.node) != Some(&now.node) {
                this.entries.push(position);
                this.bytes += entry.kind.size();
            }
            this.index.put(now);
        }
        this.gone.extend(earlier.map(|known| known.name.clone()));
        // The header of a tar that names them has one a line.
        Ok(this.gone.iter().all(|name| !name.contains('\n')).then_some(this))
    }
}

/// Reads a file.
fn read(tree: &Tree, entry: &Entry, name: &str) -> io::Result<Known> {
    let mut file = tree.open(entry)?;
    let read_at = clock::now_ms();
    let metadata = file.metadata()?;
    let hash = index::hash(&mut file)?;
    let node = Node::File { executable: metadata.mode() & 0o100 != 0, hash };
    Ok(Known::read(name.to_owned(), node, Stamp::of(&metadata), read_at))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::tests::Scratch;
    use crate::walk::Walk;

    fn walk(folder: &Path) -> Tree {
        Walk { root: folder, data_dir: Path::new("/nonexistent"), heed_gitignore: true }.run().unwrap()
    }

    fn since(old: &Index, folder: &Path) -> (Vec<String>, Vec<String>, Index) {
        let tree = walk(folder);
        let parcel = Parcel::since(old, &tree).unwrap().unwrap();
        let names = parcel.entries.iter().map(|at| tree.entries[*at].path.display().to_string());
        (names.collect(), parcel.gone, parcel.index)
    }

    #[test]
    fn what_is_new_other_or_gone_is_found_and_nothing_else() {
        let folder = Scratch::with(&[("a", "1"), ("b/c", "2"), ("b/d", "3"), ("gone/x", "4"), ("kind", "5")]);
        let path = folder.path();
        symlink("a", path.join("link")).unwrap();
        let (all, gone, first) = since(&Index::default(), path);
        assert_eq!((all.len(), gone.len()), (8, 0));
        assert_eq!(since(&first, path).0, [""; 0]);
        fs::write(path.join("b/c"), "two").unwrap();
        fs::write(path.join("b/new"), "").unwrap();
        fs::remove_dir_all(path.join("gone")).unwrap();
        fs::remove_file(path.join("kind")).unwrap();
        fs::create_dir(path.join("kind")).unwrap();
        fs::remove_file(path.join("link")).unwrap();
        symlink("b/c", path.join("link")).unwrap();
        let (names, gone, second) = since(&first, path);
        assert_eq!(names, ["b/c", "b/new", "kind", "link"]);
        assert_eq!(gone, ["gone", "gone/x"]);
        // The same as one that never knew anything.
        assert_eq!(second.digest(), since(&Index::default(), path).2.digest());
    }

    #[test]
    fn a_mode_alone_is_a_change_and_a_date_alone_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Scratch::with(&[("a", "1"), ("b", "2")]);
        let first = since(&Index::default(), folder.path()).2;
        fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::open(folder.path().join("b"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(since(&first, folder.path()).0, ["a"]);
    }

    #[test]
    fn a_name_that_cannot_be_told_makes_it_a_whole_upload() {
        let folder = Scratch::with(&[("a\nb", "1"), ("c", "2")]);
        let first = since(&Index::default(), folder.path()).2;
        fs::remove_file(folder.path().join("a\nb")).unwrap();
        assert!(Parcel::since(&first, &walk(folder.path())).unwrap().is_none());
    }
}

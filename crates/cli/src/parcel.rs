//! What of a folder is sent to the box: all of it, or what differs from what the box has.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use trackbed_stdx::clock;
use trackbed_stdx::listing::Node;

use crate::index::{self, Index, Stamp};
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
        for (position, entry) in tree.entries.iter().enumerate() {
            let Some(name) = entry.path.to_str() else { return Ok(None) };
            let EntryKind::File { stamp } = &entry.kind else {
                let Some(node) = entry.kind.node() else { return Ok(None) };
                if old.listing.get(name) != Some(&node) {
                    this.entries.push(position);
                }
                this.index.add(name.to_owned(), node, None);
                continue;
            };
            if let Some(node) = old.known(name, *stamp) {
                this.index.keep(name.to_owned(), node.clone(), *stamp);
                continue;
            }
            let (node, stamp, read_at) = read(tree, entry).map_err(|error| unreadable(entry, &error))?;
            if old.listing.get(name) != Some(&node) {
                this.entries.push(position);
                this.bytes += stamp.size();
            }
            this.index.add(name.to_owned(), node, Some((stamp, read_at)));
        }
        let now: BTreeSet<&String> = this.index.listing.keys().collect();
        this.gone = old.listing.keys().filter(|name| !now.contains(name)).cloned().collect();
        // The header of a tar that names them has one a line.
        Ok(this.gone.iter().all(|name| !name.contains('\n')).then_some(this))
    }
}

/// Reads a file. Returns what it was, its stamp before, and when that was.
fn read(tree: &Tree, entry: &Entry) -> io::Result<(Node, Stamp, i64)> {
    let mut file = tree.open(entry)?;
    let read_at = clock::now_ms();
    let metadata = file.metadata()?;
    let hash = index::hash(&mut file)?;
    Ok((Node::File { executable: metadata.mode() & 0o100 != 0, hash }, Stamp::of(&metadata), read_at))
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

//! What was read of a folder when it was last brought to a box, so that only what changed since is read and sent again.
//!
//! A file is taken for unchanged when its stamp is: place, size and both times, of which nobody can set the one of the last
//! change. A file that changed just before it was read is read again, because clocks of disks are coarse. Git decides
//! in the same way (git-update-index(1)).

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use trackbed_stdx::files;
use trackbed_stdx::listing::{self, Hash, Node};

/// What an index begins with.
const MAGIC: &[u8] = b"trackbed index 1\n";
/// How coarse the clock of a disk may be: 2 s on FAT.
const COARSE_MS: i64 = 2000;
/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Most folders that are remembered.
const INDEXES_MAX: usize = 64;
/// Numbers of a stamp.
const NUMBERS: usize = 7;

/// What tells that a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp([i64; NUMBERS]);

impl Stamp {
    /// Takes the stamp of a file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self([
            metadata.dev().cast_signed(),
            metadata.ino().cast_signed(),
            metadata.size().cast_signed(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ])
    }

    /// Returns how many bytes the file has.
    pub(crate) fn size(self) -> u64 {
        self.0[2].cast_unsigned()
    }

    /// Returns whether a change after `read_at_ms` must show in the stamp.
    fn is_settled(&self, read_at_ms: i64) -> bool {
        self.0[5] < (read_at_ms - COARSE_MS) / 1000
    }
}

/// What is in a folder, in the order of the names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index(Vec<Known>);

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) node: Node,
    /// Of a file that was old enough when it was read.
    stamp: Option<Stamp>,
}

impl Known {
    /// A folder or link.
    pub(crate) fn new(name: String, node: Node) -> Self {
        Self { name, node, stamp: None }
    }

    /// A file, its stamp before it was read, and when that was, in Unix milliseconds.
    pub(crate) fn read(name: String, node: Node, stamp: Stamp, read_at_ms: i64) -> Self {
        Self { name, node, stamp: stamp.is_settled(read_at_ms).then_some(stamp) }
    }

    /// Returns whether a file with this stamp is still the one that was read.
    pub(crate) fn is_still(&self, stamp: Stamp) -> bool {
        self.stamp == Some(stamp)
    }
}

impl Index {
    /// Returns the name of the source that this is.
    pub(crate) fn digest(&self) -> String {
        listing::hex(&listing::digest(self.nodes()))
    }

    /// Returns what is known, in the order of the names.
    pub(crate) fn known(&self) -> &[Known] {
        &self.0
    }

    fn nodes(&self) -> impl ExactSizeIterator<Item = (&String, &Node)> {
        self.0.iter().map(|known| (&known.name, &known.node))
    }

    /// Puts in what is known of a name, instead of what was. Quick when they come in order.
    pub(crate) fn put(&mut self, known: Known) {
        if self.0.last().is_none_or(|last| last.name < known.name) {
            return self.0.push(known);
        }
        match self.0.binary_search_by(|other| other.name.cmp(&known.name)) {
            Ok(at) => self.0[at] = known,
            Err(at) => self.0.insert(at, known),
        }
    }

    /// Reads an index. None when there is none that can be read: then everything is read and sent.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let nodes = listing::decode(&mut rest)?;
        let mut all = Vec::with_capacity(nodes.len());
        for (name, node) in nodes {
            let mut known = Known::new(name, node);
            if matches!(known.node, Node::File { .. }) {
                let mut numbers = [0; NUMBERS];
                for number in &mut numbers {
                    *number = listing::decode_number(&mut rest)?.cast_signed();
                }
                // All zeros: it was too young.
                known.stamp = (numbers != [0; NUMBERS]).then_some(Stamp(numbers));
            }
            all.push(known);
        }
        rest.is_empty().then_some(Self(all))
    }

    /// Writes the index, and forgets those of the folders that were brought longest ago when there are too many.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().ok_or_else(|| io::Error::other("an index needs a folder"))?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut bytes = MAGIC.to_vec();
        listing::encode(self.nodes(), &mut bytes);
        for known in &self.0 {
            if matches!(known.node, Node::File { .. }) {
                let numbers = known.stamp.map_or([0; NUMBERS], |stamp| stamp.0);
                bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
        files::write_atomic(path, &bytes, 0o600)?;
        forget(folder)
    }
}

/// Returns where the index of a folder is kept, of what a box got of it.
pub(crate) fn place(cache: &Path, data_dir: &Path, root: &Path) -> PathBuf {
    let mut hasher = Sha256::new();
    for path in [data_dir, root] {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update([0]);
    }
    cache.join("indexes").join(listing::hex(&hasher.finalize().into()))
}

fn forget(folder: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort();
    let surplus = found.len().saturating_sub(INDEXES_MAX);
    found.iter().take(surplus).try_for_each(|(_, path)| files::remove_tree(path))
}

/// Reads a file to its end, for its hash alone.
pub(crate) fn hash(file: &mut File) -> io::Result<Hash> {
    let mut hasher = Sha256::new();
    // Not on the heap: folders have many small files.
    let mut piece = [0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trackbed_stdx::clock;

    use super::*;
    use crate::tests::Scratch;

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&fs::metadata(path).unwrap())
    }

    fn file(hash: u8) -> Node {
        Node::File { executable: false, hash: [hash; 32] }
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_no_torn_one_is() {
        let folder = Scratch::with(&[("a", "1"), ("b", "2")]);
        let now = clock::now_ms();
        let [a, b] = ["a", "b"].map(|name| stamp(&folder.path().join(name)));
        let mut index = Index::default();
        index.put(Known::new("d".into(), Node::Folder));
        index.put(Known::read("a".into(), file(7), a, now));
        index.put(Known::read("a".into(), file(1), a, now + 10_000));
        index.put(Known::read("young".into(), file(2), b, now));
        index.put(Known::new("l".into(), Node::Link { target: "a".into() }));
        let path = folder.path().join("deep/index");
        index.save(&path).unwrap();
        assert_eq!(Index::load(&path).as_ref(), Some(&index));
        let names: Vec<&str> = index.known().iter().map(|known| known.name.as_str()).collect();
        assert_eq!(names, ["a", "d", "l", "young"]);
        let [known, young] = [0, 3].map(|at| &index.known()[at]);
        assert_eq!(known.node, file(1), "what came later counts");
        assert!(known.is_still(a) && !known.is_still(b));
        assert!(!young.is_still(b), "too young to be believed");
        let bytes = fs::read(&path).unwrap();
        for end in [0, 5, MAGIC.len() + 3, bytes.len() - 1] {
            files::write_atomic(&path, &bytes[..end], 0o600).unwrap();
            assert_eq!(Index::load(&path), None);
        }
    }

    #[test]
    fn a_file_of_the_same_size_and_date_with_other_content_has_another_stamp() {
        let folder = Scratch::with(&[("a", "1")]);
        let path = folder.path().join("a");
        let before = fs::metadata(&path).unwrap();
        // The inode's time moves in steps of the kernel's clock.
        std::thread::sleep(Duration::from_millis(20));
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        io::Write::write_all(&mut writer, b"2").unwrap();
        writer.set_modified(before.modified().unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before.modified().unwrap());
        assert_ne!(stamp(&path), Stamp::of(&before));
    }

    #[test]
    fn the_oldest_indexes_are_forgotten() {
        let folder = Scratch::with(&[]);
        for number in 0..INDEXES_MAX + 3 {
            Index::default().save(&folder.path().join(format!("{number:03}"))).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!((names.len(), names[0].to_str()), (INDEXES_MAX, Some("003")));
    }
}

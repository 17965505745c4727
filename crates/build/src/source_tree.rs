//! A source as a table of names: whether its links stay inside, and the digest that names it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use trackbed_core::Digest;
use trackbed_core::ports::PortError;

/// Most links followed while one link is checked, as Linux does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What a name of the source is.
pub(crate) enum Entry {
    /// A folder.
    Folder,
    /// A file: whether its owner may execute it, and the SHA-256 of what it holds.
    File { executable: bool, hash: [u8; 32] },
    /// A symbolic link.
    Link { target: String },
}

/// All names, each with `/` between its parts and none at either end.
pub(crate) type Entries = BTreeMap<String, Entry>;

/// Follows a link through the tree, name by name, as the kernel would. Where it ends need not exist.
pub(crate) fn check_link(name: &str, target: &str, entries: &Entries) -> Result<(), PortError> {
    let refused = |why: &str| {
        PortError::new(format!("the link `{name}` → `{target}` {why}"))
            .hint("replace it by the file itself, or exclude it in .gitignore or .railwayignore")
    };
    let mut here: Vec<&str> = name.split('/').collect();
    here.pop();
    let mut todo: Vec<&str> = target.split('/').rev().collect();
    let mut links = 0;
    if target.starts_with('/') {
        return Err(refused("points to an absolute path, out of the source"));
    }
    while let Some(part) = todo.pop() {
        match part {
            "" | "." => {}
            ".." => {
                here.pop().ok_or_else(|| refused("points out of the source"))?;
            }
            part => {
                here.push(part);
                if let Some(Entry::Link { target }) = entries.get(&here.join("/")) {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(refused("goes in a circle"));
                    }
                    if target.starts_with('/') {
                        return Err(refused("leads to an absolute path, out of the source"));
                    }
                    here.pop();
                    todo.extend(target.split('/').rev());
                }
            }
        }
    }
    Ok(())
}

/// Goes from a folder of a source by a relative path: `a/b` and `../c` are `a/c`. None when it leads out.
pub(crate) fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Names a tree by names, modes, kinds and contents.
pub(crate) fn digest_of(entries: &Entries) -> Digest {
    let mut hasher = Sha256::new();
    for (name, entry) in entries {
        let (kind, mode, content) = match entry {
            Entry::Folder => ('d', 0o755, [0; 32]),
            Entry::File { executable, hash } => ('f', if *executable { 0o755 } else { 0o644 }, *hash),
            Entry::Link { target } => ('l', 0o777, Sha256::digest(target.as_bytes()).into()),
        };
        hasher.update(format!("{kind} {mode:o} {} {name}\n", name.len()));
        hasher.update(content);
    }
    Digest::from_bytes(hasher.finalize().into())
}

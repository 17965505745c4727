//! A source as a table of names: how many it may have, and whether its links stay inside.

use trackbed_core::ports::PortError;
use trackbed_stdx::listing::{Listing, Node};

use crate::source::SourceLimits;

/// Most links followed while one link is checked, as Linux does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The names of a source that is being received.
pub(crate) struct Names {
    listing: Listing,
    bytes: u64,
    limits: SourceLimits,
}

impl Names {
    /// Begins with none.
    pub(crate) fn new(limits: SourceLimits) -> Self {
        Self { listing: Listing::new(), bytes: 0, limits }
    }

    /// Returns what a name is.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.listing.get(name)
    }

    /// Adds a new name.
    pub(crate) fn add(&mut self, name: &str, node: Node) -> Result<(), PortError> {
        const MEND: &str = "exclude generated folders in .gitignore or .railwayignore";
        let limits = self.limits;
        if self.listing.len() >= limits.entries {
            return Err(
                PortError::new(format!("the source has more than {} files", limits.entries)).hint(MEND)
            );
        }
        let target = if let Node::Link { target } = &node { target.len() } else { 0 };
        self.bytes = self.bytes.saturating_add((name.len() + target) as u64);
        if self.bytes > limits.names_bytes {
            let most = limits.names_bytes;
            let message = format!("the names in the source are longer than {most} bytes together");
            return Err(PortError::new(message).hint(MEND));
        }
        self.listing.insert(name.to_owned(), node);
        Ok(())
    }

    /// Returns all of them.
    pub(crate) fn all(self) -> Listing {
        self.listing
    }
}

/// Follows a link through the tree, name by name, as the kernel would. Where it ends need not exist.
pub(crate) fn check_link(name: &str, target: &str, entries: &Listing) -> Result<(), PortError> {
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
                if let Some(Node::Link { target }) = entries.get(&here.join("/")) {
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

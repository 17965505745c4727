//! A source as a table of names: whether its links stay inside.

use trackbed_core::ports::PortError;
use trackbed_stdx::listing::{Listing, Node};

/// Most links followed while one link is checked, as Linux does (path_resolution(7)).
const LINKS_MAX: usize = 40;

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

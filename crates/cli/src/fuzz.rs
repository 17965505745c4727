//! Ways into the readers of this crate for inputs that a machine makes up. Nothing that runs calls them.

use std::path::Path;

use crate::push::refs;
use crate::{dotenv, walk};

/// Reads a `.env` file. What it read is written anew in single quotes, and must read as the same.
///
/// # Panics
/// When it does not.
pub fn dotenv(text: &str) {
    let Ok(pairs) = dotenv::parse(text) else { return };
    if pairs.iter().any(|(_, value)| value.contains('\'')) {
        return;
    }
    let again: String = pairs.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    assert_eq!(dotenv::parse(&again).as_ref(), Ok(&pairs), "{again:?}");
}

/// Reads what git tells the hook of a push, and decides it.
pub fn push(told: &str, branch: Option<&str>) {
    if let Ok(changes) = refs::parse(told) {
        let _ = refs::decide(&changes, branch, "shop");
    }
}

/// Lists the source in a folder. Returns its paths; none when it cannot be deployed.
pub fn walk(root: &Path) -> Option<Vec<std::path::PathBuf>> {
    let walk = walk::Walk { root, data_dir: Path::new("/nonexistent"), heed_gitignore: true };
    Some(walk.run().ok()?.entries.into_iter().map(|entry| entry.path).collect())
}

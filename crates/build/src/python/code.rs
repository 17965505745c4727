//! The Python files of a source as text to look through: comments and long texts blanked, lines kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders looked into, how deep, and how much of them is read.
const DEPTH_MAX: usize = 4;
const FILES_MAX: usize = 400;
const FILE_MAX_BYTES: u64 = 512 << 10;
/// Folders that hold no application to serve.
const SKIPPED: [&str; 14] = [
    "tests",
    "test",
    "docs",
    "doc",
    "examples",
    "example",
    "scripts",
    "migrations",
    "alembic",
    "venv",
    "env",
    "site-packages",
    "node_modules",
    "frontend",
];

/// A Python file of the source.
pub(crate) struct PythonFile {
    /// Relative to the source.
    pub(crate) path: String,
    /// Its text, with the inside of long texts and comments blanked.
    pub(crate) code: String,
}

/// Lists the Python files that may hold an application, in order of path.
pub(crate) fn files(folder: &Path) -> Vec<PythonFile> {
    let mut found = Vec::new();
    let mut todo = vec![(String::new(), 0)];
    while let Some((at, depth)) = todo.pop() {
        // A linked folder would be walked twice, or for ever.
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        for (name, entry) in list(&folder.join(&at), |name, entry| name.ends_with(".py") || is_folder(entry))
        {
            let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if is_folder(&entry) {
                let skipped = name.starts_with(['.', '_']) || SKIPPED.contains(&name.as_str());
                if !skipped && depth + 1 < DEPTH_MAX {
                    todo.push((path, depth + 1));
                }
            } else if !name.starts_with("test_")
                && name != "conftest.py"
                && found.len() < FILES_MAX
                && fs::metadata(entry.path()).is_ok_and(|file| file.is_file() && file.len() <= FILE_MAX_BYTES)
                && let Ok(bytes) = fs::read(entry.path())
            {
                found.push(PythonFile { path, code: blank(&String::from_utf8_lossy(&bytes)) });
            }
        }
    }
    found
}

/// Lists what somebody looks for in a folder, in the order of the names. Most folders hold far more than that.
pub(crate) fn list(
    folder: &Path,
    is_wanted: impl Fn(&str, &fs::DirEntry) -> bool,
) -> BTreeMap<String, fs::DirEntry> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry)));
    named.filter(|(name, entry)| is_wanted(name, entry)).collect()
}

/// Blanks comments and texts in triple quotes, keeping the lines.
pub(crate) fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut inside: Option<&str> = None;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let mut rest = line;
        loop {
            if let Some(quote) = inside {
                let Some(at) = rest.find(quote) else { break };
                rest = &rest[at + 3..];
                inside = None;
            }
            let next = ["\"\"\"", "'''"].iter().filter_map(|q| rest.find(q).map(|at| (at, *q))).min();
            let comment = rest.find('#').filter(|at| rest[..*at].matches(['"', '\'']).count() % 2 == 0);
            match (next, comment) {
                (Some((at, _)), Some(hash)) if hash < at => {
                    code.push_str(&rest[..hash]);
                    break;
                }
                (Some((at, quote)), _) => {
                    code.push_str(&rest[..at]);
                    rest = &rest[at + 3..];
                    inside = Some(quote);
                }
                (None, Some(hash)) => {
                    code.push_str(&rest[..hash]);
                    break;
                }
                (None, None) => {
                    code.push_str(rest);
                    break;
                }
            }
        }
        code.push('\n');
    }
    code
}

//! How two sources differ, and whether what differs is watched: patterns in gitignore's syntax from the root, as Railway
//! reads `watchPatterns` (docs.railway.com/config-as-code/reference).

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use trackbed_core::ports::{PortError, SourceChanges};

/// Bytes of two files that are compared at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Compares two unpacked sources. Blocking; reads only files that are of the same size in both.
pub(crate) fn between(from: &Path, to: &Path, patterns: &[String]) -> Result<SourceChanges, PortError> {
    let watched = watched(patterns)?;
    let unreadable = |error: io::Error| PortError::new(format!("the sources cannot be compared: {error}"));
    let (before, after) = (names(from).map_err(unreadable)?, names(to).map_err(unreadable)?);
    let mut changes = SourceChanges::default();
    let mut count = |name: &Path| {
        changes.files += 1;
        changes.watched += u64::from(watched.matched_path_or_any_parents(name, false).is_ignore());
    };
    for (name, new) in &after {
        match before.get(name) {
            Some(old) if is_same(&from.join(name), old, &to.join(name), new).map_err(unreadable)? => {}
            _ => count(name),
        }
    }
    before.keys().filter(|name| !after.contains_key(*name)).for_each(|name| count(name));
    Ok(changes)
}

/// Reads patterns. What `.gitignore` would ignore is watched here, and what `!` takes back is not.
fn watched(patterns: &[String]) -> Result<Gitignore, PortError> {
    let bad = |error: ignore::Error| {
        PortError::new(format!("`build.watchPatterns` holds what is no pattern: {error}"))
            .hint("write it as in .gitignore, such as src/** or !docs/**")
    };
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(bad)?;
    }
    builder.build().map_err(bad)
}

/// Returns files and links by name; a folder is what is in it.
fn names(root: &Path) -> io::Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let (name, metadata) = (folder.join(entry.file_name()), entry.metadata()?);
            if metadata.is_dir() {
                folders.push(name);
            } else {
                found.insert(name, metadata);
            }
        }
    }
    Ok(found)
}

fn is_same(old: &Path, before: &Metadata, new: &Path, after: &Metadata) -> io::Result<bool> {
    if before.file_type() != after.file_type() {
        return Ok(false);
    }
    if before.is_symlink() {
        return Ok(fs::read_link(old)? == fs::read_link(new)?);
    }
    if (before.dev(), before.ino()) == (after.dev(), after.ino()) {
        // One file: the newer source took it over from the older one.
        return Ok(true);
    }
    let executable = |metadata: &Metadata| metadata.permissions().mode() & 0o100;
    if before.len() != after.len() || executable(before) != executable(after) {
        return Ok(false);
    }
    let (mut old, mut new) = (File::open(old)?, File::open(new)?);
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut rest = before.len();
    while rest > 0 {
        let piece = usize::try_from(rest).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        old.read_exact(&mut left[..piece])?;
        new.read_exact(&mut right[..piece])?;
        if left[..piece] != right[..piece] {
            return Ok(false);
        }
        rest -= piece as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            trackbed_stdx::files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        folder
    }

    fn changes(from: &tempfile::TempDir, to: &tempfile::TempDir, patterns: &[&str]) -> (u64, u64) {
        let patterns: Vec<_> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let changes = between(from.path(), to.path(), &patterns).unwrap();
        (changes.files, changes.watched)
    }

    #[test]
    fn files_that_are_new_gone_or_other_are_changes_and_a_date_is_none() {
        let from = tree(&[("a", "same"), ("b", "old"), ("gone/c", ""), ("x", "run")]);
        let to = tree(&[("a", "same"), ("b", "new"), ("d", ""), ("x", "run")]);
        assert_eq!(changes(&from, &from, &["**"]), (0, 0));
        assert_eq!(changes(&from, &to, &["**"]), (3, 3));
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(to.path().join("x"), executable).unwrap();
        assert_eq!(changes(&from, &to, &["x"]), (4, 1));
        symlink("a", from.path().join("link")).unwrap();
        symlink("b", to.path().join("link")).unwrap();
        assert_eq!(changes(&from, &to, &["/link"]), (5, 1));
    }

    #[test]
    fn patterns_are_those_of_gitignore_from_the_root() {
        let empty = tree(&[]);
        let watched = |file: &str, patterns: &[&str]| changes(&empty, &tree(&[(file, "")]), patterns).1 == 1;
        for (file, patterns) in [
            ("src/a.py", &["src/**"] as &[&str]),
            ("src/deep/a.py", &["/src"]),
            ("packages/web/a.ts", &["packages/web/**", "packages/ui/**"]),
            ("deep/a.py", &["*.py"]),
            ("a.md", &["**", "!docs/**"]),
            ("docs/keep.md", &["**", "!docs/**", "docs/keep.md"]),
        ] {
            assert!(watched(file, patterns), "{file} {patterns:?}");
        }
        for (file, patterns) in [
            ("docs/a.md", &["src/**"] as &[&str]),
            ("deep/src/a.py", &["/src"]),
            ("docs/a.md", &["**", "!docs/**"]),
            // Nothing was taken in that it could take out.
            ("src/a.py", &["!docs/**"]),
            ("a.py", &["# *.py"]),
        ] {
            assert!(!watched(file, patterns), "{file} {patterns:?}");
        }
    }

    #[test]
    fn a_source_that_is_gone_and_a_pattern_that_is_none_are_said() {
        let here = tree(&[]);
        let error = between(Path::new("/nonexistent"), here.path(), &[]).unwrap_err();
        assert!(error.message.contains("cannot be compared"), "{error}");
        let error = between(here.path(), here.path(), &["[z-a]".to_owned()]).unwrap_err();
        assert!(error.message.contains("`build.watchPatterns`") && error.hint.is_some(), "{error}");
    }
}

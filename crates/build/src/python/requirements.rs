//! Reads `requirements.txt` and every file that it includes, without installing any of it.

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::python::version::Version;
use crate::source_tree::join;
use crate::text;

/// Most files that one may include.
const FILES_MAX: usize = 64;

/// One requirement and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// The normalised name (PEP 503); empty for a URL or path without one.
    pub(crate) name: String,
    /// The line without comment.
    pub(crate) line: String,
    /// `requirements.txt:3`.
    pub(crate) place: String,
}

impl Requirement {
    /// Returns the version when the line pins one: `gunicorn==20.1.0`.
    pub(crate) fn pinned(&self) -> Option<Version> {
        let (_, version) = self.line.split_once("==")?;
        Version::parse(version.split([';', ' ', ',']).next()?)
    }

    /// Returns the extras: `standard` of `fastapi[standard]`.
    pub(crate) fn has_extra(&self, extra: &str) -> bool {
        let extras = self.line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        extras.is_some_and(|(extras, _)| extras.split(',').any(|e| e.trim() == extra))
    }
}

/// All files of a list of requirements.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requirements {
    /// Path relative to the source and contents as UTF-8; the first one is what is installed.
    pub(crate) files: Vec<(String, String)>,
    /// What they ask for.
    pub(crate) list: Vec<Requirement>,
    /// Whether something in the source itself is installed (`-e .`), so that everything depends on all of the source.
    pub(crate) local: bool,
    /// Whether every line must carry a hash.
    pub(crate) hashed: bool,
    /// What was left out, and why.
    pub(crate) notes: Vec<(String, u32, String)>,
}

/// Reads a file and what it includes; none when there is no such file.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<Requirements>, PortError> {
    let mut all = Requirements::default();
    if text::find(folder, name)?.is_none() {
        return Ok(None);
    }
    include(folder, name, &mut all)?;
    Ok(Some(all))
}

fn include(folder: &Path, name: &str, all: &mut Requirements) -> Result<(), PortError> {
    if all.files.iter().any(|(path, _)| path == name) {
        return Ok(());
    }
    if all.files.len() == FILES_MAX {
        return Err(PortError::new(format!("{name}: more than {FILES_MAX} files of requirements")));
    }
    let text = text::find(folder, name)?.unwrap_or_default();
    let slot = all.files.len();
    all.files.push((name.to_owned(), String::new()));
    let mut kept = String::new();
    let mut joined = String::new();
    for (number, raw) in (1u32..).zip(text.lines()) {
        kept.push_str(raw);
        kept.push('\n');
        joined.push_str(raw.trim_end());
        if joined.ends_with('\\') {
            joined.pop();
            continue;
        }
        let whole = std::mem::take(&mut joined);
        let line = strip_comment(&whole);
        if line.is_empty() {
            continue;
        }
        // Debian's pip wrote this line into frozen lists; no index has it.
        if line.replace(' ', "") == "pkg-resources==0.0.0" || line.replace(' ', "") == "pkg_resources==0.0.0"
        {
            let at = kept.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
            kept.truncate(at);
            kept.push_str("#\n");
            all.notes.push((name.to_owned(), number, format!("`{line}` exists in no index, left out")));
            continue;
        }
        read_line(folder, name, number, line, all)?;
    }
    all.files[slot].1 = kept;
    Ok(())
}

fn read_line(
    folder: &Path,
    name: &str,
    number: u32,
    line: &str,
    all: &mut Requirements,
) -> Result<(), PortError> {
    let place = format!("{name}:{number}");
    all.hashed |= line.contains("--hash=");
    if let Some(included) = option(line, &["-r", "--requirement", "-c", "--constraint"]) {
        if included.contains("://") {
            return Ok(());
        }
        let base = Path::new(name).parent().unwrap_or(Path::new(""));
        let Some(path) = inside(base, included) else {
            return Err(PortError::new(format!("{place}: `{included}` lies outside of the source")));
        };
        if text::find(folder, &path)?.is_none() {
            return Err(PortError::new(format!(
                "{place}: includes `{included}`, which is not in the source"
            ))
            .hint("add the file (is it ignored by .gitignore?) or take the line out"));
        }
        return include(folder, &path, all);
    }
    if let Some(target) = option(line, &["-e", "--editable"]) {
        all.local |= is_local(target);
        all.list.push(Requirement { name: name_of(target), line: line.to_owned(), place });
        return Ok(());
    }
    if line.starts_with('-') {
        return Ok(());
    }
    all.local |= is_local(line);
    let name = if is_local(line) { String::new() } else { name_of(line) };
    all.list.push(Requirement { name, line: line.to_owned(), place });
    Ok(())
}

fn option<'a>(line: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        let rest = line.strip_prefix(name)?;
        let fits = rest.starts_with([' ', '=', '\t']) || (name.len() == 2 && !rest.is_empty());
        fits.then(|| rest.trim_start_matches(['=', ' ', '\t']).trim())
    })
}

/// Joins a path to a folder of the source; none when it leads out.
fn inside(base: &Path, path: &str) -> Option<String> {
    if path.starts_with('/') { None } else { join(base.to_str()?, path) }
}

fn is_local(line: &str) -> bool {
    let target = line.split_once(" @ ").map_or(line, |(_, url)| url.trim());
    let bare = target.split([';', '[']).next().unwrap_or(target).trim();
    bare.starts_with('.')
        || bare.starts_with("file:")
        || bare.starts_with('/')
        || ((bare.ends_with(".whl") || bare.ends_with(".tar.gz")) && !bare.contains("://"))
        || (bare.contains('/') && !bare.contains("://") && !bare.contains('@'))
}

fn strip_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    line.find(" #").or_else(|| line.find("\t#")).map_or(line, |at| line[..at].trim_end())
}

/// Returns the normalised name that a requirement begins with (PEP 503 and 508).
pub(crate) fn name_of(line: &str) -> String {
    let line = line.split_once("#egg=").map_or(line, |(_, egg)| egg);
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))
        .unwrap_or(line.len());
    if line[end..].starts_with("://") || line[end..].starts_with('+') {
        return String::new();
    }
    normalise(&line[..end])
}

/// Normalises a name as PEP 503 says.
pub(crate) fn normalise(name: &str) -> String {
    let mut normal = String::new();
    for c in name.trim().chars() {
        if matches!(c, '.' | '_' | '-') {
            if !normal.ends_with('-') {
                normal.push('-');
            }
        } else {
            normal.push(c.to_ascii_lowercase());
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Result<Requirements, PortError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            trackbed_stdx::files::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        }
        read(folder.path(), "requirements.txt").map(Option::unwrap)
    }

    #[test]
    fn included_files_and_names_are_found() {
        let all = read_files(&[
            (
                "requirements.txt",
                "-r req/base.txt\nUvicorn[standard]>=0.3 # server\n\nfoo_Bar==1.2.3 ; python_version>'3'\n",
            ),
            ("req/base.txt", "-c ../limits.txt\nFastAPI\n--index-url https://x/simple\n"),
            ("limits.txt", "x<2\npkg-resources==0.0.0"),
        ])
        .unwrap();
        let names: Vec<_> = all.list.iter().map(|r| (r.name.as_str(), r.place.as_str())).collect();
        assert_eq!(
            names,
            [
                ("x", "limits.txt:1"),
                ("fastapi", "req/base.txt:2"),
                ("uvicorn", "requirements.txt:2"),
                ("foo-bar", "requirements.txt:4")
            ]
        );
        assert_eq!(
            all.files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(),
            ["requirements.txt", "req/base.txt", "limits.txt"]
        );
        assert_eq!(all.list[3].pinned(), Version::parse("1.2.3"));
        assert!(all.list[2].has_extra("standard") && !all.local);
        assert_eq!(all.files[2].1, "x<2\n#\n");
    }

    #[test]
    fn local_requirements_are_noticed() {
        for line in
            [".", "-e .", "-e ./lib", "./lib[extra]", "lib/x.whl", "x @ file:///app/x", "--editable=."]
        {
            assert!(read_files(&[("requirements.txt", line)]).unwrap().local, "{line}");
        }
        for line in [
            "x",
            "x @ https://a/b.whl",
            "git+https://a/b@main",
            "-e git+ssh://git@a/b#egg=c",
            "https://a/b.tar.gz",
        ] {
            assert!(!read_files(&[("requirements.txt", line)]).unwrap().local, "{line}");
        }
    }

    #[test]
    fn an_included_file_that_is_missing_is_named() {
        let error = read_files(&[("requirements.txt", "x\n-r base.txt\n")]).unwrap_err();
        assert_eq!(error.message, "requirements.txt:2: includes `base.txt`, which is not in the source");
        assert!(read_files(&[("requirements.txt", "-r ../../x\n")]).unwrap_err().message.contains("outside"));
    }
}

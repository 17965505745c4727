//! Which Python a source asks for, and where it says so.

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::toml;
use crate::config::tree::Node;
use crate::python::version::{Specifiers, Version};
use crate::text;

/// What the source asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// As written.
    pub(crate) text: String,
    /// `.python-version:1`.
    pub(crate) place: String,
    /// What will do. For a pin of a patch (`3.12.4`) every patch of its minor will do: whoever pinned it would rather
    /// run on 3.12.1 than not at all, and a warning says so.
    pub(crate) specifiers: Specifiers,
    /// The pinned patch.
    pub(crate) exact: Option<Version>,
}

/// Finds what is asked, the most explicit file first. A version that cannot be understood is a warning.
pub(crate) fn find(
    folder: &Path,
    pyproject: Option<&Node>,
    warnings: &mut Vec<(String, u32, String)>,
) -> Result<Option<Wanted>, PortError> {
    let mut pins: Vec<(String, u32, String)> = Vec::new();
    if let Some(text) = text::find(folder, ".python-version")? {
        let line = (1u32..).zip(text.lines()).find(|(_, line)| !is_comment(line));
        pins.extend(
            line.map(|(number, line)| (".python-version".to_owned(), number, line.trim().to_owned())),
        );
    }
    if let Some(text) = text::find(folder, "runtime.txt")? {
        let line = (1u32..).zip(text.lines()).find(|(_, line)| !is_comment(line));
        pins.extend(line.map(|(number, line)| ("runtime.txt".to_owned(), number, line.trim().to_owned())));
    }
    if let Some(text) = text::find(folder, ".tool-versions")? {
        let line = (1u32..).zip(text.lines()).find_map(|(number, line)| {
            let mut words = line.split_whitespace();
            (words.next() == Some("python")).then(|| words.next().map(|word| (number, word.to_owned())))?
        });
        pins.extend(line.map(|(number, version)| (".tool-versions".to_owned(), number, version)));
    }
    for (file, line, asked) in pins {
        match pin(&asked, format!("{file}:{line}")) {
            Some(wanted) => return Ok(Some(wanted)),
            None => warnings.push((file, line, format!("`{asked}` is not a version of Python, ignored"))),
        }
    }
    let ranges = [
        pyproject.and_then(|tree| tree.at(&["project", "requires-python"])),
        pyproject.and_then(|tree| tree.at(&["tool", "poetry", "dependencies", "python"])),
    ];
    for node in ranges.into_iter().flatten() {
        let Some(asked) = node.text() else { continue };
        match Specifiers::parse(asked) {
            Some(specifiers) if specifiers.is_empty() => {}
            Some(specifiers) => {
                let place = format!("pyproject.toml:{}", node.place.line);
                return Ok(Some(Wanted { text: asked.to_owned(), place, specifiers, exact: None }));
            }
            None => warnings.push((
                "pyproject.toml".to_owned(),
                node.place.line,
                format!("cannot understand the Python version `{asked}`, ignored"),
            )),
        }
    }
    Ok(None)
}

/// Reads `pyproject.toml` when there is one.
pub(crate) fn pyproject(folder: &Path) -> Result<Option<Node>, PortError> {
    text::find(folder, "pyproject.toml")?.map(|text| toml::parse("pyproject.toml", &text)).transpose()
}

fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.trim().starts_with('#')
}

/// Understands `3.12`, `3.12.1`, `python-3.12.1`, `cpython-3.12`, `cpython@3.12`, `>=3.11`.
fn pin(asked: &str, place: String) -> Option<Wanted> {
    let plain = asked.trim().trim_start_matches("cpython").trim_start_matches("python");
    let plain = plain.trim_start_matches(['-', '@', ' ']);
    // `cpython-3.12.1-linux-x86_64-gnu` names a platform too.
    let plain = plain.split('-').next().unwrap_or(plain).trim_end_matches(".x");
    let parsed = Specifiers::parse(plain).filter(|specifiers| !specifiers.is_empty())?;
    let digits = plain.starts_with(|c: char| c.is_ascii_digit());
    let exact =
        Version::parse(plain).filter(|_| digits && plain.split('.').count() > 2 && !plain.ends_with('*'));
    let specifiers = match exact {
        Some(version) => Specifiers::parse(&format!("{}.{}", version.major, version.minor))?,
        None => parsed,
    };
    Some(Wanted { text: asked.to_owned(), place, specifiers, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_come_in_many_spellings() {
        for (text, exact) in [
            ("3.12", None),
            ("3.12.1", Some("3.12.1")),
            ("python-3.12.1", Some("3.12.1")),
            ("cpython-3.12", None),
            ("cpython-3.12.1-linux-x86_64-gnu", Some("3.12.1")),
            ("3.12.x", None),
        ] {
            let wanted = pin(text, String::new()).unwrap_or_else(|| panic!("{text}"));
            assert!(wanted.specifiers.admit(Version::parse("3.12.9").unwrap()), "{text}");
            assert!(!wanted.specifiers.admit(Version::parse("3.11.9").unwrap()), "{text}");
            assert_eq!(wanted.exact, exact.and_then(Version::parse), "{text}");
        }
        assert!(pin("pypy3.10", String::new()).is_none() && pin("system", String::new()).is_none());
    }
}

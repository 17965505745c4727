//! From a request's target to a path within the folder: decoded first, then taken apart, so that nothing is hidden.

use crate::limits::FILE_PATH_BYTES_MAX;

/// The one folder with a dot that is public (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// A path beneath the folder, without dots, empty parts or a slash at either end; empty for the folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) bytes: Vec<u8>,
    /// Whether a folder is asked for: the path of the request ends with a slash.
    pub(super) is_folder: bool,
}

impl Path {
    /// Reads the path of a target, without its query. None when nothing can be there: it leaves the folder, is longer
    /// than any path, is hidden (a name that begins with a dot), or has a byte that no name has.
    pub(super) fn read(target: &[u8]) -> Option<Self> {
        if target.len() > FILE_PATH_BYTES_MAX {
            return None;
        }
        let decoded = decode(target)?;
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in decoded.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()?),
                _ if part.contains(&0) => return None,
                _ => parts.push(part),
            }
        }
        let hidden =
            |(place, part): (usize, &&[u8])| part.starts_with(b".") && !(place == 0 && *part == WELL_KNOWN);
        if parts.iter().enumerate().any(hidden) {
            return None;
        }
        let is_folder = decoded.ends_with(b"/") || decoded.ends_with(b"/.") || decoded.ends_with(b"/..");
        Some(Self { bytes: parts.join(&b'/'), is_folder: is_folder || parts.is_empty() })
    }

    /// Returns the path with something behind its last name.
    pub(super) fn with(&self, end: &str) -> Vec<u8> {
        [self.bytes.as_slice(), end.as_bytes()].concat()
    }

    /// Returns the path of its `index.html`.
    pub(super) fn index(&self) -> Vec<u8> {
        self.with(if self.bytes.is_empty() { "index.html" } else { "/index.html" })
    }

    /// Returns the last name.
    pub(super) fn name(&self) -> &[u8] {
        self.bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Returns the path of the same folder as a link. It begins with one slash and then a name, so that it never leads to
    /// another host.
    pub(super) fn link(&self) -> String {
        let mut link = String::with_capacity(self.bytes.len() + 2);
        link.push('/');
        for byte in &self.bytes {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    link.push(char::from(*byte));
                }
                _ => link.push_str(&format!("%{byte:02X}")),
            }
        }
        link.push('/');
        link
    }
}

/// Undoes the percent encoding. None when a percent sign is followed by something else than two digits.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => bytes.push(digit(rest.next()?)? << 4 | digit(rest.next()?)?),
            _ => bytes.push(*byte),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Option<(String, bool)> {
        let path = Path::read(target.as_bytes())?;
        Some((String::from_utf8_lossy(&path.bytes).into_owned(), path.is_folder))
    }

    #[test]
    fn a_path_never_leaves_the_folder() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/%2e%2e/x",
            "/a/../../x",
            "/a/%2E%2e%2f%2e%2e/x",
            "/a/..//../x",
            "/..%2fx",
        ] {
            assert_eq!(read(target), None, "{target}");
        }
        assert_eq!(read("/a/../b"), Some(("b".into(), false)));
        assert_eq!(read("/a/b/.."), Some(("a".into(), true)));
        assert_eq!(read("//etc//passwd"), Some(("etc/passwd".into(), false)));
        assert_eq!(read("/\\..\\x"), Some(("\\..\\x".into(), false)), "a backslash is part of a name");
    }

    #[test]
    fn what_no_file_has_is_no_path() {
        let long = format!("/{}", "x".repeat(FILE_PATH_BYTES_MAX));
        for target in ["/a%00b", "/a%", "/a%2", "/a%zz", long.as_str()] {
            assert_eq!(read(target), None, "{target}");
        }
        assert!(Path::read(b"/a\xff").is_some(), "names are bytes, not text");
    }

    #[test]
    fn hidden_names_are_not_there_but_the_well_known() {
        for target in
            ["/.env", "/.git/config", "/a/.htaccess", "/%2egit/config", "/a/.well-known/x", "/.well-known/.x"]
        {
            assert_eq!(read(target), None, "{target}");
        }
        assert_eq!(read("/.well-known/acme"), Some((".well-known/acme".into(), false)));
    }

    #[test]
    fn a_link_names_no_other_host() {
        let path = Path::read(b"//evil.test/%2e/a b%0d%0a?").unwrap();
        assert_eq!(path.link(), "/evil.test/a%20b%0D%0A%3F/");
    }
}

//! Text as people really commit it: UTF-8 with or without a byte order mark, and UTF-16 from Windows editors.

use std::fs;
use std::io;
use std::path::Path;

use trackbed_core::ports::PortError;

/// Configuration files and lists of requirements larger than this are a mistake, not a file to read.
pub(crate) const TEXT_MAX_BYTES: u64 = 32 << 20;

/// A file of settings larger than this is a mistake.
pub(crate) const SETTINGS_MAX_BYTES: u64 = 1 << 20;

/// Reads a text file of the source; none when there is no such file.
pub(crate) fn find(folder: &Path, name: &str) -> Result<Option<String>, PortError> {
    find_within(folder, name, TEXT_MAX_BYTES)
}

/// Reads a file of settings; none when there is no such file.
pub(crate) fn find_settings(folder: &Path, name: &str) -> Result<Option<String>, PortError> {
    find_within(folder, name, SETTINGS_MAX_BYTES)
}

fn find_within(folder: &Path, name: &str, max_bytes: u64) -> Result<Option<String>, PortError> {
    let path = folder.join(name);
    let size = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(PortError::new(format!("cannot read {name}: {error}"))),
    };
    if size > max_bytes {
        let (is, most) = (size >> 20, max_bytes >> 20);
        return Err(PortError::new(format!("{name} is {is} MB; at most {most} MB are read")));
    }
    let bytes = fs::read(&path).map_err(|error| PortError::new(format!("cannot read {name}: {error}")))?;
    decode(&bytes).map(Some).map_err(|what| {
        PortError::new(format!("{name}: {what}")).hint("save the file as UTF-8 and deploy again".to_owned())
    })
}

/// Decodes bytes: UTF-8, or UTF-16 when a byte order mark or the pattern of zeros says so. Drops the mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, String> {
    let wide = |bytes: &[u8], order: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| order([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| "is neither UTF-8 nor UTF-16 text".to_owned())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [a, 0, ..] if *a != 0 && bytes.len().is_multiple_of(2) => wide(bytes, u16::from_le_bytes),
        [0, a, ..] if *a != 0 && bytes.len().is_multiple_of(2) => wide(bytes, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => {
                    let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
                    Err(format!("line {line} is not UTF-8 text"))
                }
            }
        }
    }
}

/// A place in a text, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line.
    pub(crate) line: u32,
    /// Column.
    pub(crate) column: u32,
}

impl Place {
    /// Finds the place of a byte.
    pub(crate) fn of(text: &str, byte: usize) -> Place {
        let before = &text.as_bytes()[..byte.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

/// The starts of all lines, because lock files are long and every value asks for its place.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

/// Columns beyond this count bytes: nobody reads a line that long, and counting its letters for each value would take
/// the square of its length.
const COLUMN_COUNTED_MAX: usize = 4096;

impl<'a> Lines<'a> {
    /// Finds them.
    pub(crate) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Finds the place of a byte.
    pub(crate) fn place(&self, byte: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts[line - 1];
        let column = match byte - start {
            long if long > COLUMN_COUNTED_MAX => long,
            _ => self.text.get(start..byte).map_or(0, |before| before.chars().count()),
        };
        Place {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_utf_16_are_read() {
        let wide: Vec<u8> = "web: ä".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(b"\xef\xbb\xbfa").unwrap(), "a");
        assert_eq!(decode(&wide).unwrap(), "web: ä");
        assert_eq!(decode(&[&[0xff, 0xfe][..], &wide].concat()).unwrap(), "web: ä");
        assert_eq!(decode(b"a\n\xff").unwrap_err(), "line 2 is not UTF-8 text");
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn places_count_characters() {
        assert_eq!(Place::of("a\näb", 4), Place { line: 2, column: 3 - 1 });
    }
}

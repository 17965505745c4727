//! What this box knows to be at the target: one line an object, appended as it is sent, so that an interrupted pass goes
//! on where it stopped. When it is lost, the catalogue at the target says it again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trackbed_core::Digest;
use trackbed_stdx::files;

use crate::formats::{CatalogueEntry, Kind, Named};
use crate::items::Item;

/// An object at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) object: String,
    pub(crate) kind: Kind,
    /// Plain bytes.
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    /// Bytes at the target; none when only the catalogue is known.
    pub(crate) stored_bytes: Option<u64>,
    /// When the file was last written; a file that was written again is sent again.
    pub(crate) changed_ms: i64,
    /// When it was last read back, by the target's clock, in milliseconds.
    #[serde(default)]
    pub(crate) read_at: i64,
}

impl Held {
    pub(crate) fn entry(&self, path: &str) -> CatalogueEntry {
        let named = Named { object: self.object.clone(), bytes: self.bytes, digest: self.digest.clone() };
        CatalogueEntry { path: path.to_owned(), kind: self.kind, named }
    }

    /// Returns whether it is what the box has now.
    pub(crate) fn is(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Tree => self.kind == Kind::Tree,
            Kind::File => {
                self.bytes == item.bytes && (self.changed_ms == item.changed_ms || self.changed_ms == 0)
            }
        }
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Begin {
        url: String,
        #[serde(rename = "box")]
        box_id: String,
    },
    Held {
        path: String,
        held: Box<Held>,
    },
    Lost {
        lost: String,
    },
    Gone {
        gone: String,
        since: i64,
    },
    Removed {
        removed: String,
    },
    Published {
        published: Published,
    },
}

/// The last head that this box wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) sequence: u64,
    /// Digest of the head itself: tells it from one that somebody else wrote.
    pub(crate) head: Digest,
    /// Digest of the state as it was copied.
    pub(crate) state: Digest,
    /// Digest of the catalogue.
    pub(crate) catalogue: Digest,
    /// By the target's clock, in milliseconds; zero until it was seen there.
    pub(crate) at: i64,
}

/// What is at the target.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    url: String,
    box_id: String,
    file: Option<File>,
    /// By path.
    pub(crate) held: BTreeMap<String, Held>,
    /// Objects that the box has no use for any more, and since when, by the target's clock.
    pub(crate) gone: BTreeMap<String, i64>,
    pub(crate) published: Option<Published>,
}

impl Ledger {
    /// Opens it for a pass; one of another target or box counts as none. Blocking.
    pub(crate) fn open(path: &Path, url: &str, box_id: &str) -> io::Result<Ledger> {
        let mut ledger = Ledger::read(path, url, box_id)?;
        ledger.rewrite()?;
        Ok(ledger)
    }

    /// Reads it beside a pass that may be under way. Blocking.
    pub(crate) fn read(path: &Path, url: &str, box_id: &str) -> io::Result<Ledger> {
        let mut ledger = Ledger {
            path: path.to_owned(),
            url: url.to_owned(),
            box_id: box_id.to_owned(),
            file: None,
            held: BTreeMap::new(),
            gone: BTreeMap::new(),
            published: None,
        };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        // A last line that was cut off by a crash says nothing; its object is sent again.
        let mut lines = text.lines().map_while(|line| serde_json::from_str::<Line>(line).ok());
        let is_ours =
            matches!(lines.next(), Some(Line::Begin { url: of, box_id: by }) if of == url && by == box_id);
        if is_ours {
            lines.for_each(|line| ledger.take(line));
        }
        Ok(ledger)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Begin { .. } => {}
            Line::Held { path, held } => {
                self.gone.remove(&held.object);
                self.held.insert(path, *held);
            }
            Line::Lost { lost } => drop(self.held.remove(&lost)),
            Line::Gone { gone, since } => drop(self.gone.insert(gone, since)),
            Line::Removed { removed } => drop(self.gone.remove(&removed)),
            Line::Published { published } => self.published = Some(published),
        }
    }

    fn note(&mut self, line: Line) -> io::Result<()> {
        let mut text = serde_json::to_string(&line).map_err(io::Error::other)?;
        text.push('\n');
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes())?;
        }
        self.take(line);
        Ok(())
    }

    /// An object was sent, or was read back.
    pub(crate) fn note_held(&mut self, path: &str, held: Held) -> io::Result<()> {
        self.note(Line::Held { path: path.to_owned(), held: Box::new(held) })
    }

    /// An object is not there any more, or not what it was: it is sent again when the box has it.
    pub(crate) fn note_lost(&mut self, path: &str) -> io::Result<()> {
        self.note(Line::Lost { lost: path.to_owned() })
    }

    /// The box has no use for an object any more.
    pub(crate) fn note_gone(&mut self, object: &str, since: i64) -> io::Result<()> {
        self.note(Line::Gone { gone: object.to_owned(), since })
    }

    /// An object was removed from the target.
    pub(crate) fn note_removed(&mut self, object: &str) -> io::Result<()> {
        self.note(Line::Removed { removed: object.to_owned() })
    }

    /// A head was written.
    pub(crate) fn note_published(&mut self, published: Published) -> io::Result<()> {
        self.note(Line::Published { published })
    }

    /// Writes the file anew, without what does not count any more.
    pub(crate) fn rewrite(&mut self) -> io::Result<()> {
        let begin = Line::Begin { url: self.url.clone(), box_id: self.box_id.clone() };
        let held = self
            .held
            .iter()
            .map(|(path, held)| Line::Held { path: path.clone(), held: Box::new(held.clone()) });
        let gone = self.gone.iter().map(|(gone, since)| Line::Gone { gone: gone.clone(), since: *since });
        let published = self.published.clone().map(|published| Line::Published { published });
        let mut text = Vec::new();
        for line in std::iter::once(begin).chain(held).chain(gone).chain(published) {
            serde_json::to_writer(&mut text, &line).map_err(io::Error::other)?;
            text.push(b'\n');
        }
        files::write_atomic(&self.path, &text, 0o600)?;
        self.file = Some(OpenOptions::new().append(true).mode(0o600).open(&self.path)?);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;

    fn held(object: &str) -> Held {
        Held {
            object: object.into(),
            kind: Kind::File,
            bytes: 1,
            digest: Digest::from_bytes([1; 32]),
            stored_bytes: Some(200),
            changed_ms: 5,
            read_at: 0,
        }
    }

    #[test]
    fn what_was_noted_is_known_after_a_crash_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path, "s3://a", "box_1").unwrap();
        ledger.note_held("packs/a", held("objects/a")).unwrap();
        ledger.note_held("packs/b", held("objects/b")).unwrap();
        ledger.note_gone("objects/old", 7).unwrap();
        ledger.note_lost("packs/b").unwrap();
        drop(ledger);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"path\":\"packs/c\",\"held\":{\"obj").unwrap();
        let ledger = Ledger::open(&path, "s3://a", "box_1").unwrap();
        assert_eq!(ledger.held.keys().collect::<Vec<_>>(), ["packs/a"]);
        assert_eq!(ledger.gone.get("objects/old"), Some(&7));
        let other = Ledger::open(&path, "s3://b", "box_1").unwrap();
        assert!(other.held.is_empty(), "another target has none of it");
    }
}

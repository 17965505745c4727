//! The directory of one instance: its order (`spec.json`), who carries it out (`state.json`), its end (`exit.json`). What must
//! be written when an app has filled the disk has its room beforehand.

use std::fs;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trackbed_core::Timestamp;
use trackbed_core::instance::Exit;
use trackbed_stdx::{clock, files};

/// Longest time that writing an order may take.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);
const ORDER: &str = "spec.json";
const STATE: &str = "state.json";
const END: &str = "exit.json";
/// Holds the room for the end.
const RESERVE: &str = "exit.reserve";
/// A block of any common filesystem; an end is far shorter.
const RESERVE_BYTES: usize = 4096;

/// An order, which holds secrets until the app runs.
pub trait WithVariables: Serialize + DeserializeOwned {
    /// Returns the same order without variables.
    #[must_use]
    fn without_variables(&self) -> Self;
}

/// How an instance ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct End {
    /// The way.
    #[serde(flatten)]
    pub exit: Exit,
    /// When it was written down.
    pub at: Timestamp,
}

/// The directory of one instance, with orders of type `O` and states of type `S`.
#[derive(Debug)]
pub struct Folder<O, S> {
    path: PathBuf,
    records: PhantomData<fn() -> (O, S)>,
}

impl<O: WithVariables, S: Serialize + DeserializeOwned> Folder<O, S> {
    /// Uses a directory, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, records: PhantomData }
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// Returns the path of something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the order, when there is one that can be read.
    pub fn find_order(&self) -> Option<O> {
        read(&self.path(ORDER))
    }

    /// Returns the state, when there is one that can be read.
    pub fn find_state(&self) -> Option<S> {
        read(&self.path(STATE))
    }

    /// Returns how it ended, when it has.
    pub fn find_end(&self) -> Option<End> {
        read(&self.path(END))
    }

    /// Writes the order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_order(&self, order: &O) -> io::Result<()> {
        write(&self.path(ORDER), order)
    }

    /// Takes the variables out of the order on disk: the app has them, or nobody will. Needs no room.
    ///
    /// # Errors
    /// When they are still there.
    pub fn clear_variables(&self, order: &O) -> io::Result<()> {
        let order = order.without_variables();
        self.write_order(&order).or_else(|_| self.overwrite_order(&order))
    }

    /// The same for an instance that has ended: rather no order than a secret.
    pub fn clear_variables_at_end(&self, order: &O) {
        if self.clear_variables(order).is_err() {
            let _ = fs::remove_file(self.path(ORDER));
        }
    }

    fn overwrite_order(&self, order: &O) -> io::Result<()> {
        let bytes = serde_json::to_vec(order)?;
        let length = fs::metadata(self.path(ORDER))?.len();
        overwrite(&self.path(ORDER), bytes, usize::try_from(length).unwrap_or(0))
    }

    /// Removes what interrupted writes of the order have left, which may hold variables.
    pub fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_order =
                name.to_str().is_some_and(|name| name.starts_with(".spec.json.") && name.ends_with(".tmp"));
            let age =
                entry.metadata().and_then(|data| data.modified()).map(|at| at.elapsed().unwrap_or_default());
            // A younger one may be about to be renamed.
            if is_order && age.is_ok_and(|age| age > LEFTOVER_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_state(&self, state: &S) -> io::Result<()> {
        write(&self.path(STATE), state)
    }

    /// Takes the room that the end will need. How an instance ended must be known above all when it filled the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn reserve_end(&self) -> io::Result<()> {
        files::write_atomic(&self.path(RESERVE), &[b' '; RESERVE_BYTES], 0o600)
    }

    /// Writes how it ended, on a full disk into the room that was taken for it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_end(&self, exit: Exit) -> io::Result<()> {
        let end = End { exit, at: Timestamp(clock::now_ms()) };
        // Full disks and full quotas say so in more than one way.
        let Err(error) = write(&self.path(END), &end) else {
            let _ = fs::remove_file(self.path(RESERVE));
            return Ok(());
        };
        self.write_end_in_reserve(&end).map_err(|_| error)
    }

    fn write_end_in_reserve(&self, end: &End) -> io::Result<()> {
        overwrite(&self.path(RESERVE), serde_json::to_vec(end)?, RESERVE_BYTES)?;
        fs::rename(self.path(RESERVE), self.path(END))
    }
}

/// Writes JSON over what a file holds, which needs no room on a full disk.
fn overwrite(path: &Path, mut bytes: Vec<u8>, length: usize) -> io::Result<()> {
    if bytes.len() > length {
        return Err(io::ErrorKind::StorageFull.into());
    }
    // White space may follow a JSON value.
    bytes.resize(length, b' ');
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    files::write_atomic(path, &serde_json::to_vec(value)?, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        env: Vec<String>,
    }

    impl WithVariables for Order {
        fn without_variables(&self) -> Self {
            Order { env: Vec::new() }
        }
    }

    fn folder() -> (tempfile::TempDir, Folder<Order, u8>) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        (place, folder)
    }

    #[test]
    fn what_a_full_disk_must_take_lies_where_there_was_room_before() {
        let (place, folder) = folder();
        folder.write_order(&Order { env: vec!["KEY=secret".into()] }).unwrap();
        folder.reserve_end().unwrap();
        let size = |name: &str| fs::metadata(folder.path(name)).unwrap().len();
        let before = size(ORDER);
        folder.overwrite_order(&Order { env: Vec::new() }).unwrap();
        assert_eq!((folder.find_order(), size(ORDER)), (Some(Order { env: Vec::new() }), before));
        assert!(!fs::read_to_string(folder.path(ORDER)).unwrap().contains("secret"));
        folder.write_end_in_reserve(&End { exit: Exit::Code { code: 7 }, at: Timestamp(1) }).unwrap();
        assert_eq!(folder.find_end().unwrap().exit, Exit::Code { code: 7 });
        let names = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(names, 2, "the order and the end, and nothing beside them");
        let message = "x".repeat(RESERVE_BYTES);
        folder.reserve_end().unwrap();
        let too_long = End { exit: Exit::Setup { message }, at: Timestamp(1) };
        let error = folder.write_end_in_reserve(&too_long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn an_order_that_was_being_written_is_removed_when_it_is_old() {
        let (_place, folder) = folder();
        let old = folder.path(".spec.json.aa.tmp");
        for path in [&old, &folder.path(".spec.json.bb.tmp"), &folder.path(".state.json.cc.tmp")] {
            files::write_atomic(path, b"{}", 0o600).unwrap();
        }
        let then = std::time::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options().write(true).open(&old).unwrap().set_modified(then).unwrap();
        folder.remove_leftovers();
        assert!(!old.exists() && folder.path(".spec.json.bb.tmp").exists());
        assert!(folder.path(".state.json.cc.tmp").exists());
    }
}

//! From a target back to a data directory. What is there already and is what the catalogue says is kept, so that an
//! interrupted recovery goes on where it stopped. Nothing is written before the key was found to fit.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use futures_util::{FutureExt, StreamExt, stream};
use trackbed_core::offsite::OffsiteTarget;
use trackbed_core::ports::{Conditional, Ownership};
use trackbed_core::{Digest, Timestamp};
use trackbed_stdx::files;

use crate::error::OffsiteError;
use crate::formats::{Catalogue, CatalogueEntry, Head, Kind, Named, OWNER};
use crate::history::nothing;
use crate::limits::Limits;
use crate::mirror::{blocking, fetch_named};
use crate::remote::Remote;
use crate::seal::{Keys, Measure};
use crate::target::Folder;
use crate::{owner, target, tree};

/// The copies of a box, opened.
#[derive(Debug)]
pub struct Copies {
    pub(crate) remote: Remote,
    pub(crate) keys: Keys,
    pub(crate) head: Head,
    pub(crate) catalogue: Catalogue,
}

/// An object that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What it should have become, relative to the data directory.
    pub path: String,
    /// Its name at the target.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Objects that are in their place and verified.
    pub objects: u64,
    /// Of so many.
    pub of_objects: u64,
    /// Bytes of them, before encryption.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
    /// Objects that were there already from an earlier attempt.
    pub kept: u64,
}

impl Copies {
    /// Reads whose copies they are and the newest head, that one and no other. Writes nothing.
    ///
    /// # Errors
    /// When there are none, the newest cannot be used, the key does not fit, or the target cannot be read.
    pub async fn open(
        target: &OffsiteTarget,
        data_dir: &Path,
        limits: Limits,
    ) -> Result<Copies, OffsiteError> {
        let keys = Keys::parse(&target.identity)?;
        let store = target::open(target, data_dir, Folder::MustExist)?;
        Self::of_store(Remote::new(store, limits, target.bandwidth_bytes), keys, &target.url).await
    }

    pub(crate) async fn of_store(remote: Remote, keys: Keys, url: &str) -> Result<Copies, OffsiteError> {
        let Some((owner, _)) = owner::read(&remote).await? else {
            return Err(nothing(url, &format!("it has no {OWNER}")));
        };
        owner::check_key(&owner, &keys)?;
        let Some((head, _)) = owner::find_head(&remote, &keys).await? else {
            return Err(nothing(url, "the first copy was not finished"));
        };
        let head = head?;
        let catalogue = fetch_named(&remote, &keys, &head.catalogue).await?;
        Ok(Copies { remote, keys, head, catalogue })
    }

    /// Returns the id of the box that made them.
    pub fn box_id(&self) -> &str {
        &self.head.box_id
    }

    /// Returns who can open them: `age1…`. It is the same in all copies of a prefix, whichever boxes made them.
    pub fn recipient(&self) -> String {
        self.keys.recipient()
    }

    /// Returns the number of their head.
    pub fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// Returns when the copied state was the box's, by the clock of the box.
    pub fn taken_at(&self) -> Timestamp {
        self.head.at
    }

    /// Returns the name of the object that holds the state.
    pub fn state_object(&self) -> &str {
        &self.head.state.object
    }

    /// Returns where the data directory of the box was.
    pub fn data_dir(&self) -> &str {
        &self.head.data_dir
    }

    /// Returns the paths of what [`Copies::fetch`] brings, relative to the data directory.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.catalogue.entries.iter().map(|entry| entry.path.as_str())
    }

    /// Brings those objects that `wanted` says into their places below a data directory, each verified. Those that are
    /// damaged or missing are left out and returned.
    ///
    /// # Errors
    /// When the target cannot be read, or the disk refuses. What is in its place stays.
    pub async fn fetch(
        &self,
        data_dir: &Path,
        wanted: impl Fn(&str) -> bool,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<(Progress, Vec<Lost>), OffsiteError> {
        let entries: Vec<&CatalogueEntry> =
            self.catalogue.entries.iter().filter(|entry| wanted(&entry.path)).collect();
        let mut progress = Progress {
            of_objects: entries.len() as u64,
            of_bytes: entries.iter().map(|entry| entry.named.bytes).sum(),
            ..Progress::default()
        };
        on_progress(progress);
        // In the order in which they were sent: what refers to others comes after them.
        let fetch = |entry| async move { (entry, self.fetch_entry(data_dir, entry).await) };
        let fetches: Vec<_> = entries.into_iter().map(|entry| fetch(entry).boxed()).collect();
        let mut fetches = stream::iter(fetches).buffered(self.remote.limits().objects_at_once);
        let mut lost = Vec::new();
        while let Some((entry, fetched)) = fetches.next().await {
            let (bytes, was_there) = match fetched {
                Err(error) if error.is_about_the_object() => {
                    let object = entry.named.object.clone();
                    let reason = error.fault_of_object(&object);
                    lost.push(Lost { path: entry.path.clone(), object, reason });
                    continue;
                }
                other => other?,
            };
            progress.objects += 1;
            progress.bytes += bytes;
            progress.kept += u64::from(was_there);
            on_progress(progress);
        }
        Ok((progress, lost))
    }

    /// Brings one object into its place. Returns its bytes, and whether it was there already.
    async fn fetch_entry(
        &self,
        data_dir: &Path,
        entry: &CatalogueEntry,
    ) -> Result<(u64, bool), OffsiteError> {
        let place = place(data_dir, &entry.path)?;
        let disk = || OffsiteError::disk(format!("write {}", place.display()));
        let (looked, kind) = (place.clone(), entry.kind);
        let there = blocking(move || measure_place(&looked, kind)).await.map_err(disk())?;
        if there.as_ref() == Some(&entry.named.digest) {
            return Ok((entry.named.bytes, true));
        }
        let folder = place.parent().unwrap_or(data_dir).to_owned();
        let made = folder.clone();
        blocking(move || fs::DirBuilder::new().recursive(true).mode(0o755).create(made))
            .await
            .map_err(disk())?;
        let beside = files::temporary_beside(&place).map_err(disk())?;
        let kind = entry.kind;
        let written = self
            .remote
            .fetch(&entry.named.object, &self.keys, || {
                let beside = beside.clone();
                move |from: &mut dyn Read| write_beside(from, &beside, kind)
            })
            .await;
        let settled = match written {
            Ok(digest) if digest == entry.named.digest => {
                let (from, to) = (beside.clone(), place.clone());
                blocking(move || {
                    // What is there is not what it should be: nothing else writes here before the box serves.
                    files::remove_tree(&to)?;
                    fs::rename(&from, &to)?;
                    files::sync_folder(&folder)
                })
                .await
                .map_err(disk())
            }
            Ok(_) => Err(OffsiteError::damaged(&entry.named.object, "it is not what the catalogue names")),
            Err(error) => Err(error),
        };
        if settled.is_err() {
            let _ = blocking(move || files::remove_tree(&beside)).await;
        }
        settled.map(|()| (entry.named.bytes, false))
    }

    /// Brings the state into a folder of its own: `state.db` and `key`. What was in the folder is replaced.
    ///
    /// # Errors
    /// When the target cannot be read, or the disk refuses. A state that is damaged or missing is returned.
    pub async fn fetch_state(&self, folder: &Path) -> Result<Option<Lost>, OffsiteError> {
        let entry = CatalogueEntry {
            path: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            kind: Kind::Tree,
            named: self.head.state.clone(),
        };
        match self.fetch_entry(folder.parent().unwrap_or(folder), &entry).await {
            Err(error) if error.is_about_the_object() => {
                let (path, object) = (entry.path, entry.named.object);
                let reason = error.fault_of_object(&object);
                Ok(Some(Lost { path, object, reason }))
            }
            other => other.map(|_| None),
        }
    }

    /// Makes the prefix the recovered box's: the one that made the copies refuses to go on, should it still live.
    ///
    /// # Errors
    /// When the target cannot be written to.
    pub async fn take_over(&self, data_dir: &Path, now: Timestamp) -> Result<(), OffsiteError> {
        let (ownership, conditional) = (Ownership::TakeOver, Conditional::Waived);
        owner::claim(&self.remote, &self.keys, data_dir, ownership, conditional, now).await.map(drop)
    }

    /// Returns how many bytes all of it is, before encryption.
    pub fn size_bytes(&self) -> u64 {
        let Named { bytes, .. } = &self.head.state;
        self.catalogue.entries.iter().map(|entry| entry.named.bytes).sum::<u64>() + bytes
    }
}

/// Returns where a path of the catalogue belongs. Names that leave the data directory are refused: whoever can write to
/// the target must not be able to write anywhere else here.
fn place(data_dir: &Path, path: &str) -> Result<PathBuf, OffsiteError> {
    let is_plain =
        !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain {
        return Ok(data_dir.join(path));
    }
    Err(OffsiteError::damaged(path, "it does not lie in a data directory"))
}

fn measure_place(place: &Path, kind: Kind) -> io::Result<Option<Digest>> {
    let metadata = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut measure = Measure::new(io::sink());
    match kind {
        Kind::File if metadata.is_file() => drop(io::copy(&mut File::open(place)?, &mut measure)?),
        Kind::Tree if metadata.is_dir() => tree::pack(place, &mut measure)?,
        Kind::File | Kind::Tree => return Ok(None),
    }
    Ok(Some(measure.finish().1.digest))
}

fn write_beside(from: &mut dyn Read, beside: &Path, kind: Kind) -> io::Result<Digest> {
    // Left by an attempt of this very fetch that broke off.
    files::remove_tree(beside)?;
    match kind {
        Kind::File => {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
            let mut measure = Measure::new(file);
            io::copy(from, &mut measure)?;
            let (file, measured) = measure.finish();
            file.sync_all()?;
            Ok(measured.digest)
        }
        Kind::Tree => {
            let mut measure = Measuring { from, measure: Measure::new(io::sink()) };
            tree::unpack(&mut measure, beside)?;
            // The archive ends before the stream does.
            io::copy(&mut measure, &mut io::sink())?;
            Ok(measure.measure.finish().1.digest)
        }
    }
}

/// Measures what is read through it.
struct Measuring<'a> {
    from: &'a mut dyn Read,
    measure: Measure<io::Sink>,
}

impl Read for Measuring<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        io::Write::write_all(&mut self.measure, &buffer[..count])?;
        Ok(count)
    }
}

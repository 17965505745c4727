//! Proofs: a point is restored, as far as it takes to look into its databases, and read to its last byte.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use trackbed_core::Timestamp;
use trackbed_core::ports::{PointData, PortError};
use trackbed_core::restore_point::{Proof, ProofVerdict};
use trackbed_stdx::clock;

use super::check::{self, Fault, Record, Sound};
use super::fill::{self, FillError, Filling};
use super::scratch::Scratch;
use super::space;
use super::stage::{GiveUp, blocking, owner_like};
use crate::chunk_store::{ChunkReader, StoreError};
use crate::inspect::{Inspected, Priority};
use crate::manifest::{Entry, Kind, Manifest};
use crate::place::LocalVolumes;

/// How much less than others the reading gets of the processor.
const NICENESS: i32 = 19;

/// What ends a proof early.
enum End {
    Broken(String),
    Box(PortError),
}

impl From<PortError> for End {
    fn from(error: PortError) -> Self {
        Self::Box(error)
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        if error.is_damage() { Self::Broken(error.to_string()) } else { Self::Box(error.into()) }
    }
}

impl From<FillError> for End {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Broken { .. } => Self::Broken(error.to_string()),
            FillError::Store { .. } | FillError::Disk { .. } | FillError::GivenUp => {
                Self::Box(PortError::new(format!("cannot look at a point: {error}")))
            }
        }
    }
}

impl LocalVolumes {
    pub(crate) async fn prove_point(&self, data: &PointData) -> Result<Proof, PortError> {
        let began = Instant::now();
        let verdict = match self.look_at(data).await {
            Ok(Sound { databases, rows }) => ProofVerdict::Proven { databases, rows },
            Err(End::Broken(reason)) => ProofVerdict::Broken { reason },
            Err(End::Box(error)) => return Err(error),
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Proof { at: Timestamp(clock::now_ms()), verdict, took_ms })
    }

    async fn look_at(&self, data: &PointData) -> Result<Sound, End> {
        let given_up = Arc::new(AtomicBool::new(false));
        let _guard = GiveUp(given_up.clone());
        let (own, wanted) = (self.clone(), data.clone());
        let read = blocking(move || Ok(own.read_all(&wanted, &given_up))).await??;
        let path = self.store.content_path(data);
        let cannot = |error: std::io::Error| {
            End::Box(PortError::new(format!("cannot record what point {} holds: {error}", data.point)))
        };
        let (scratch, record) = match read {
            Read::Known(record) => {
                record.save(&path).map_err(cannot)?;
                return Ok(record.sound());
            }
            Read::Restored { scratch, record } => (scratch, record),
        };
        let found = match &scratch {
            Some((_, folder)) => {
                self.inspector.content(folder, &[], Priority::Low).await.map_err(PortError::from)?
            }
            None => Vec::new(),
        };
        drop(scratch);
        self.judge(data, &found, record).map_err(|fault| match fault {
            Judged::Fault(Fault::Broken(reason)) => End::Broken(reason),
            Judged::Fault(Fault::Box(reason)) => {
                End::Box(PortError::new(format!("cannot look at point {}: {reason}", data.point)))
            }
            Judged::Disk(error) => cannot(error),
        })
    }

    fn judge(&self, data: &PointData, found: &[Inspected], record: Recorded) -> Result<Sound, Judged> {
        match record {
            Recorded::Already(record) => check::check(found, Some(&record)).map_err(Judged::Fault),
            Recorded::NotYet(recipes) => {
                let sound = check::check(found, None).map_err(Judged::Fault)?;
                Record::new(found, recipes).save(&self.store.content_path(data)).map_err(Judged::Disk)?;
                Ok(sound)
            }
        }
    }

    /// Reads every byte, and restores the databases when they have to be looked into.
    fn read_all(&self, data: &PointData, given_up: &AtomicBool) -> Result<Read, End> {
        let manifest = self.store.manifest(data)?;
        let manifest = manifest.ok_or_else(|| {
            End::Broken(format!("its manifest is gone: {}", self.store.manifest_path(data).display()))
        })?;
        let reader = self.store.reader()?;
        let recipes = check::recipes(&manifest);
        let path = self.store.content_path(data);
        let cannot = |error: std::io::Error| {
            PortError::new(format!("cannot read what point {} holds: {error}", data.point))
        };
        let own = Record::load(&path).map_err(cannot)?;
        if own.is_none()
            && let Some(borrowed) = Record::borrow(&path, &recipes).map_err(cannot)?
        {
            read(&reader, &manifest, &[], given_up)?;
            return Ok(Read::Known(borrowed));
        }
        let entries = check::only_databases(&manifest.entries, |_| true);
        let scratch = if recipes.is_empty() {
            None
        } else {
            Some(self.restore_to_scratch(data, &reader, &entries, given_up)?)
        };
        read(&reader, &manifest, &entries, given_up)?;
        let record = own.map_or(Recorded::NotYet(recipes), Recorded::Already);
        Ok(Read::Restored { scratch, record })
    }

    /// Restores entries to a place that goes with the returned guard.
    pub(super) fn restore_to_scratch(
        &self,
        data: &PointData,
        reader: &ChunkReader,
        entries: &[Entry],
        given_up: &AtomicBool,
    ) -> Result<(Scratch, std::path::PathBuf), Restore> {
        let scratch = |error: std::io::Error| {
            Restore::Box(PortError::new(format!(
                "cannot make a place to look at point {}: {error}",
                data.point
            )))
        };
        let place = Scratch::make(&self.scratch).map_err(scratch)?;
        let folder = place.folder("data").map_err(scratch)?;
        space::check(
            &folder,
            reader,
            entries,
            self.reserve_bytes,
            &format!("point {} to look at it", data.point),
        )
        .map_err(Restore::Box)?;
        let filling = Filling {
            reader,
            entries,
            owner: owner_like(&self.place(&data.volume).directory),
            priority: Priority::Low,
            is_durable: false,
            is_given_up: given_up,
        };
        fill::fill(&folder, &filling).map_err(Restore::Fill)?;
        Ok((place, folder))
    }
}

/// Why entries were not restored.
pub(super) enum Restore {
    Box(PortError),
    Fill(FillError),
}

impl From<Restore> for End {
    fn from(error: Restore) -> Self {
        match error {
            Restore::Box(error) => Self::Box(error),
            Restore::Fill(error) => error.into(),
        }
    }
}

enum Read {
    /// All bytes are there, and what they hold is known from another point.
    Known(Record),
    /// All bytes are there; the databases, if there are any, have been restored.
    Restored { scratch: Option<(Scratch, std::path::PathBuf)>, record: Recorded },
}

enum Recorded {
    Already(Record),
    NotYet(Vec<check::Recipe>),
}

enum Judged {
    Fault(Fault),
    Disk(std::io::Error),
}

/// Reads all files but those that were restored already, and drops what it has read.
fn read(
    reader: &ChunkReader,
    manifest: &Manifest,
    restored: &[Entry],
    given_up: &AtomicBool,
) -> Result<(), End> {
    let restored: HashSet<&[u8]> = restored.iter().map(|entry| entry.path.as_slice()).collect();
    // The thread is one of a pool: its niceness is its own, and others come after us.
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let _ = rustix::process::nice(NICENESS);
            let mut bytes = Vec::new();
            for entry in manifest.entries.iter().filter(|entry| !restored.contains(entry.path.as_slice())) {
                let Kind::File(file) = &entry.kind else { continue };
                let in_file = |why: StoreError| match why.is_damage() {
                    true => End::Broken(format!(
                        "`{}` cannot be restored: {why}",
                        String::from_utf8_lossy(&entry.path)
                    )),
                    false => End::Box(why.into()),
                };
                for extent in reader.extents(file.size, file.content.as_ref()) {
                    if given_up.load(Ordering::Relaxed) {
                        return Err(FillError::GivenUp.into());
                    }
                    let extent = extent.map_err(in_file)?;
                    let Some(id) = extent.chunk else { continue };
                    reader.chunk(&id, &mut bytes).map_err(in_file)?;
                    if bytes.len() as u64 != extent.length {
                        let why =
                            format!("chunk {id} has {} bytes and stands for {}", bytes.len(), extent.length);
                        return Err(End::Broken(format!(
                            "`{}`: {why}",
                            String::from_utf8_lossy(&entry.path)
                        )));
                    }
                }
            }
            Ok(())
        });
        reading.join().unwrap_or_else(|_| Err(PortError::new("the reading of a point ended badly").into()))
    })
}

//! What is left when a volume changes too much to hold its app for: each database by SQLite's own backup, made by a process
//! that ends with it, everything else as it is when it is read.
//!
//! The process is another one because closing a database file drops every lock that a process holds on it (fcntl(2)).

use std::time::Duration;

use super::content::{Intake, take_in};
use super::live::{self, Pass, Writers};
use super::stamps::Known;
use super::{Ahead, Gate, Work, in_background, with_gate};
use crate::chunk_store::{PackWriter, StoreError};
use crate::inspect::Inspector;
use crate::pieces::{Block, ReadError, Source};
use crate::walk::{FoundKind, stamp_of};

/// How long a backup waits for an app that holds its database.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the backup of a database may take.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// A copy of a database, made by SQLite.
struct Copy {
    volume: usize,
    path: Vec<u8>,
    name: String,
}

/// Reads volumes once more while their app works, and their databases by their backups.
pub(super) async fn read(
    inspector: &Inspector,
    gate: &Gate,
    ahead: Ahead,
    mut work: Vec<Work>,
) -> Result<(Vec<Work>, Vec<Pass>), StoreError> {
    let reading = with_gate(gate, move || {
        let mut ahead = ahead;
        let mut passes = Vec::new();
        let mut writer = PackWriter::new(&ahead.reader);
        for (root, stamps) in &mut ahead.volumes {
            let before = stamps.clone();
            passes.push(live::read(root, &ahead.reader, &mut writer, before, Writers::Working)?);
        }
        writer.close()?;
        drop(writer);
        Ok((ahead, passes))
    });
    let (ahead, passes) = in_background(reading).await?;
    let mut copies = Vec::new();
    for (volume, pass) in passes.iter().enumerate() {
        let root = &ahead.volumes[volume].0;
        for path in databases(pass) {
            let name = format!("backup-{}", copies.len());
            let to = ahead.scratch.path(&name);
            ahead.scratch.create(&name).map_err(|error| StoreError::disk("make the copy", &to, error))?;
            match inspector.backup(&root.show(&path), &to, PATIENCE, LIMIT).await {
                Ok(()) => copies.push(Copy { volume, path, name }),
                Err(error) => {
                    let shown = String::from_utf8_lossy(&path).into_owned();
                    work[volume]
                        .notes
                        .push(format!("{shown}: kept as it was read, SQLite cannot copy it ({error})"));
                }
            }
        }
    }
    in_background(with_gate(gate, move || store_copies(&ahead, copies, work, passes))).await
}

/// Returns the databases that are not known to be as they were read: they, or a log beside them.
fn databases(pass: &Pass) -> Vec<Vec<u8>> {
    let files = &pass.stamps.files;
    let is_settled = |path: &[u8]| files.get(path).is_some_and(|known| known.is_settled);
    let is_quiet = |path: &[u8]| files.get(path).is_none_or(|known| known.is_settled && known.file.size == 0);
    let mut paths: Vec<_> =
        files.iter().filter(|(_, known)| known.file.is_database).map(|(path, _)| path.clone()).collect();
    paths.retain(|path| !is_settled(path) || LOGS.iter().any(|log| !is_quiet(&[path, *log].concat())));
    paths.sort_unstable();
    paths
}

/// What SQLite keeps beside a database, and what a backup holds already.
const LOGS: [&[u8]; 2] = [b"-wal", b"-journal"];

fn store_copies(
    ahead: &Ahead,
    copies: Vec<Copy>,
    mut work: Vec<Work>,
    mut passes: Vec<Pass>,
) -> Result<(Vec<Work>, Vec<Pass>), StoreError> {
    let mut writer = PackWriter::new(&ahead.reader);
    let mut buffer = Block::default();
    for copy in copies {
        let pass = &mut passes[copy.volume];
        let path = ahead.scratch.path(&copy.name);
        let cannot = |error| StoreError::disk("read the copy", &path, error);
        let file = std::fs::File::open(&path).map_err(cannot)?;
        let size = stamp_of(&file).map_err(cannot)?.size;
        let known = pass.stamps.files.remove(&copy.path);
        let so_far = writer.stored_bytes;
        let intake = Intake::begin(&ahead.reader, size, known.as_ref());
        let source = Source { file: &file, size, allocated: size };
        let taken = take_in(source, &pass.stamps, intake, &mut writer, &mut buffer);
        let (content, quick) = taken.map_err(|error| match error {
            ReadError::File(error) => cannot(error),
            ReadError::Store(error) => error,
        })?;
        work[copy.volume].stored_bytes += writer.stored_bytes - so_far;
        if let Some(known) = known {
            // What is remembered is the copy, not what the file itself holds.
            let known = Known { is_settled: false, file: content, quick, ..known };
            pass.stamps.files.insert(copy.path.clone(), known);
        }
        for log in LOGS {
            let log = [&copy.path, log].concat();
            pass.stamps.files.remove(&log);
            pass.found.retain(|found| found.path != log || found.kind != FoundKind::File);
        }
    }
    writer.close()?;
    drop(writer);
    Ok((work, passes))
}

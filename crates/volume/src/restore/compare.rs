//! How a volume differs from a point: it is captured as if for a point of its own, which is forgotten again, and two
//! points are compared by the names of their contents. Only databases whose bytes differ are looked into.

use std::collections::{BTreeMap, HashSet};

use trackbed_core::RestorePointId;
use trackbed_core::ports::{CaptureOrder, Freezer, PointData, PortError, Volumes};
use trackbed_core::restore_point::{DatabaseContent, Difference, TableDifference};
use trackbed_core::volume::Volume;
use trackbed_stdx::{files, random};

use super::check::{self, COMPANIONS};
use super::stage::blocking;
use crate::manifest::{Entry, FileContent, Kind, Manifest};
use crate::place::LocalVolumes;

/// Paths that are named; the others are counted.
const PATHS_MAX: usize = 50;
/// Tables that are named; a migration may change many.
const TABLES_MAX: usize = 1000;

impl LocalVolumes {
    pub(crate) async fn compare_volume(
        &self,
        volume: &Volume,
        point: &PointData,
        freezer: Option<&dyn Freezer>,
    ) -> Result<Difference, PortError> {
        let (own, wanted) = (self.clone(), point.clone());
        let then = blocking(move || own.load_manifest(&wanted)).await?;
        let now =
            PointData { volume: volume.id.clone(), point: RestorePointId::from_random(random::bytes()) };
        let order = CaptureOrder { volume: volume.clone(), point: now.point.clone() };
        self.capture(&[order], freezer).await?;
        // What a crash leaves of it is a point that nobody keeps, and goes with the next collection.
        let _forgotten = Forgotten(self.store.manifest_path(&now));
        let (own, wanted) = (self.clone(), now.clone());
        let now_manifest = blocking(move || own.load_manifest(&wanted)).await?;
        let mut sides = compare(&now_manifest, &then);
        if !sides.databases.is_empty() {
            let both: Vec<Vec<u8>> = sides.databases.iter().map(|(path, _)| path.clone()).collect();
            let now_content = self.contents(&now, &now_manifest, both.clone()).await?;
            let then_content = self.contents(point, &then, both).await?;
            sides.add_databases(&now_content, &then_content);
        }
        Ok(sides.into_difference())
    }

    async fn contents(
        &self,
        point: &PointData,
        manifest: &Manifest,
        wanted: Vec<Vec<u8>>,
    ) -> Result<Vec<DatabaseContent>, PortError> {
        let is_there = check::databases(&manifest.entries).any(|entry| wanted.contains(&entry.path));
        if !is_there {
            return Ok(Vec::new());
        }
        let (path, own) = (self.store.content_path(point), point.clone());
        let recorded = blocking(move || {
            check::Record::load(&path).map_err(|error| {
                PortError::new(format!("cannot read what point {} holds: {error}", own.point))
            })
        })
        .await?;
        if let Some(record) = recorded {
            return Ok(record.databases);
        }
        let found = self.look_into(point, move |path| wanted.iter().any(|wanted| wanted == path)).await?;
        Ok(found.into_iter().map(|found| found.content).collect())
    }
}

/// Removes a manifest when it is dropped.
struct Forgotten(std::path::PathBuf);

impl Drop for Forgotten {
    fn drop(&mut self) {
        if let Err(error) = files::remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a point that was only compared with");
        }
    }
}

/// What differs.
#[derive(Default)]
struct Sides {
    added: u64,
    changed: u64,
    missing: u64,
    paths: Vec<(Vec<u8>, char)>,
    tables: Vec<TableDifference>,
    /// Databases whose bytes differ, by path, and whether they are counted already.
    databases: Vec<(Vec<u8>, bool)>,
}

/// What an entry is, as far as it matters here.
#[derive(PartialEq, Eq)]
enum Thing {
    Folder,
    /// A file with its log and its journal, if it is a database.
    File(FileContent, Vec<Option<FileContent>>),
    Symlink(Vec<u8>),
    Fifo,
    Nothing,
}

/// Returns the entries of a manifest by path, without what belongs to a database and its own folder.
fn things(manifest: &Manifest) -> BTreeMap<&[u8], (Thing, u16)> {
    let mut contents: BTreeMap<&[u8], FileContent> = BTreeMap::new();
    for entry in &manifest.entries {
        match &entry.kind {
            Kind::File(file) => drop(contents.insert(&entry.path, *file)),
            Kind::HardLink(to) => {
                if let Some(file) = contents.get(to.as_slice()).copied() {
                    contents.insert(&entry.path, file);
                }
            }
            Kind::Folder | Kind::Symlink(_) | Kind::Fifo => {}
        }
    }
    let of_databases: HashSet<Vec<u8>> = check::databases(&manifest.entries)
        .flat_map(|entry| COMPANIONS.iter().map(|companion| [&entry.path, *companion].concat()))
        .collect();
    let is_own = |entry: &&Entry| !entry.path.is_empty() && !of_databases.contains(&entry.path);
    let thing = |entry: &Entry| match &entry.kind {
        Kind::Folder => Thing::Folder,
        Kind::Symlink(target) => Thing::Symlink(target.clone()),
        Kind::Fifo => Thing::Fifo,
        Kind::File(_) | Kind::HardLink(_) => match contents.get(entry.path.as_slice()) {
            None => Thing::Nothing,
            Some(file) if file.is_database => {
                let logs = check::LOGS
                    .iter()
                    .map(|log| contents.get([&entry.path, *log].concat().as_slice()).copied());
                // An empty log is as good as none.
                Thing::File(*file, logs.map(|log| log.filter(|log| log.size > 0)).collect())
            }
            Some(file) => Thing::File(*file, Vec::new()),
        },
    };
    manifest
        .entries
        .iter()
        .filter(is_own)
        .map(|entry| (entry.path.as_slice(), (thing(entry), entry.mode)))
        .collect()
}

fn compare(now: &Manifest, then: &Manifest) -> Sides {
    let mut sides = Sides::default();
    let (now, then) = (things(now), things(then));
    let is_database = |thing: &Thing| matches!(thing, Thing::File(file, _) if file.is_database);
    for (path, (thing, mode)) in &now {
        match then.get(path) {
            None => {
                sides.note(path, '+');
                if is_database(thing) {
                    sides.databases.push((path.to_vec(), true));
                }
            }
            Some((was, was_mode)) if was == thing && was_mode == mode => {}
            Some((was, was_mode)) if is_database(thing) && is_database(was) => {
                sides.databases.push((path.to_vec(), was_mode != mode));
                if was_mode != mode {
                    sides.note(path, '~');
                }
            }
            Some(_) => sides.note(path, '~'),
        }
    }
    for (path, (was, _)) in &then {
        if !now.contains_key(path) {
            sides.note(path, '-');
            if is_database(was) {
                sides.databases.push((path.to_vec(), true));
            }
        }
    }
    sides
}

impl Sides {
    fn note(&mut self, path: &[u8], sign: char) {
        match sign {
            '+' => self.added += 1,
            '-' => self.missing += 1,
            _ => self.changed += 1,
        }
        if self.paths.len() < PATHS_MAX {
            self.paths.push((path.to_vec(), sign));
        }
    }

    /// Compares the databases whose bytes differ by what they hold: a log that was written into its database, or a
    /// `VACUUM`, changes bytes and nothing else.
    fn add_databases(&mut self, now: &[DatabaseContent], then: &[DatabaseContent]) {
        for (path, is_counted) in std::mem::take(&mut self.databases) {
            let name = String::from_utf8_lossy(&path).into_owned();
            let find = |list: &'_ [DatabaseContent]| list.iter().find(|one| one.path == name).cloned();
            let (now, then) = (find(now), find(then));
            let before = self.tables.len();
            let tables = |content: &Option<DatabaseContent>| {
                let tables = content.iter().flat_map(|content| &content.tables);
                tables
                    .map(|table| (table.name.clone(), (table.rows, table.digest.clone())))
                    .collect::<BTreeMap<_, _>>()
            };
            let (tables_now, tables_then) = (tables(&now), tables(&then));
            let mut names: Vec<&String> = tables_now.keys().chain(tables_then.keys()).collect();
            names.sort();
            names.dedup();
            for table in names {
                let (is, was) = (tables_now.get(table), tables_then.get(table));
                if is != was && self.tables.len() < TABLES_MAX {
                    self.tables.push(TableDifference {
                        database: name.clone(),
                        table: table.clone(),
                        rows_now: is.map(|(rows, _)| *rows),
                        rows_then: was.map(|(rows, _)| *rows),
                    });
                }
            }
            let is_unreadable = |content: &Option<DatabaseContent>| {
                content.as_ref().is_some_and(|content| content.unreadable.is_some())
            };
            let differs = self.tables.len() > before || is_unreadable(&now) || is_unreadable(&then);
            if differs && !is_counted {
                self.note(&path, '~');
            }
        }
    }

    fn into_difference(mut self) -> Difference {
        self.paths.sort();
        let paths = self.paths.iter().map(|(path, sign)| format!("{sign} {}", String::from_utf8_lossy(path)));
        Difference {
            added: self.added,
            changed: self.changed,
            missing: self.missing,
            paths: paths.collect(),
            tables: self.tables,
        }
    }
}

//! The databases of a point or of a live volume, for a person who asks about them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trackbed_core::VolumeId;
use trackbed_core::ports::{PointData, PortError};
use trackbed_core::restore_point::DatabaseContent;

use super::check::{self, Record};
use super::prove::Restore;
use super::scratch::Scratch;
use super::stage::{GiveUp, blocking, explain};
use crate::beneath;
use crate::inspect::{Answer, Inspected, Priority, QueryLimits, QueryMode};
use crate::place::LocalVolumes;

impl LocalVolumes {
    /// Returns what the databases of a point hold: as it was recorded, else by a look into copies of them.
    ///
    /// # Errors
    /// When the point is missing or broken, or the box cannot look.
    pub async fn databases(&self, point: &PointData) -> Result<Vec<DatabaseContent>, PortError> {
        let (path, own) = (self.store.content_path(point), point.clone());
        let recorded = blocking(move || {
            Record::load(&path).map_err(|error| {
                PortError::new(format!("cannot read what point {} holds: {error}", own.point))
            })
        })
        .await?;
        if let Some(record) = recorded {
            return Ok(record.databases);
        }
        let found = self.look_into(point, |_| true).await?;
        Ok(found.into_iter().map(|found| found.content).collect())
    }

    /// Looks into those databases of a point that are wanted.
    pub(super) async fn look_into(
        &self,
        point: &PointData,
        is_wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Vec<Inspected>, PortError> {
        let (scratch, folder) = self.copies_of(point, is_wanted).await?;
        let found = self.inspector.content(&folder, &[], Priority::Normal).await;
        drop(scratch);
        Ok(found?)
    }

    /// Runs one statement, which may only read, on a copy of a database of a point.
    ///
    /// # Errors
    /// When the point has no such database or is broken, or the statement fails, is more than reading, or takes too long.
    pub async fn query_point(
        &self,
        point: &PointData,
        database: &str,
        sql: &str,
        limits: QueryLimits,
    ) -> Result<Answer, PortError> {
        let wanted = database.trim_start_matches('/').to_owned();
        let name = wanted.clone();
        let (scratch, folder) = self.copies_of(point, move |path| path == wanted.as_bytes()).await?;
        if !folder.join(&name).is_file() {
            return Err(PortError::new(format!("point {} holds no database `{name}`", point.point)));
        }
        let answer = self.inspector.query(&folder, &name, sql, limits, QueryMode::Read).await;
        drop(scratch);
        Ok(answer?)
    }

    /// Runs one statement on a database of a volume as it is now, with the rights of its owner and SQLite's own locks: an
    /// app that uses it goes on.
    ///
    /// # Errors
    /// When the volume has no such database, or the statement fails, leaves the database, or takes too long.
    pub async fn query_live(
        &self,
        volume: &VolumeId,
        database: &str,
        sql: &str,
        limits: QueryLimits,
    ) -> Result<Answer, PortError> {
        let folder = self.place(volume).directory;
        let name = database.trim_start_matches('/').to_owned();
        let (checked, path) = (folder.clone(), name.clone());
        blocking(move || {
            let there = || {
                let parts = beneath::parts(path.as_bytes())?;
                let parents = parts.split_last().map_or(&[][..], |(_, parents)| parents);
                beneath::descend(&beneath::folder(&checked)?, parents)?;
                std::fs::symlink_metadata(checked.join(&path))
            };
            match there() {
                Ok(metadata) if metadata.is_file() => Ok(()),
                Ok(_) => Err(PortError::new(format!("`{path}` is not a file"))),
                Err(error) => Err(PortError::new(format!("the volume holds no database `{path}`: {error}"))),
            }
        })
        .await?;
        self.inspector.query(&folder, &name, sql, limits, QueryMode::Write).await.map_err(PortError::from)
    }

    /// Restores databases of a point to a place that goes with the returned guard.
    async fn copies_of(
        &self,
        point: &PointData,
        is_wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<(Scratch, std::path::PathBuf), PortError> {
        let given_up = Arc::new(AtomicBool::new(false));
        let _guard = GiveUp(given_up.clone());
        let (own, point) = (self.clone(), point.clone());
        blocking(move || {
            let manifest = own.load_manifest(&point)?;
            let reader = own.store.reader()?;
            let entries = check::only_databases(&manifest.entries, is_wanted);
            own.restore_to_scratch(&point, &reader, &entries, &given_up).map_err(|error| match error {
                Restore::Box(error) => error,
                Restore::Fill(error) => explain(&format!("databases of point {}", point.point), &error),
            })
        })
        .await
    }
}

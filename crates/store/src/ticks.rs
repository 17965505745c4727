//! Which tick of a volume's schedule was served last.

use rusqlite::params;
use trackbed_core::restore_point::Schedule;
use trackbed_core::{Timestamp, VolumeId};

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Returns the last served tick of each schedule of a volume; a schedule that was never served is not among them.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_ticks(&self, volume: &VolumeId) -> Result<Vec<(Schedule, Timestamp)>, StoreError> {
        let mut query = self.sql.prepare("SELECT schedule, at FROM volume_ticks WHERE volume = ?1")?;
        let rows = query
            .query_map([volume.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        rows.map(|row| {
            let (schedule, at) = row?;
            Ok((schedule.parse()?, Timestamp(at)))
        })
        .collect()
    }

    /// Stores the last served tick of a schedule.
    ///
    /// # Errors
    /// When the volume is unknown.
    pub fn set_tick(&self, volume: &VolumeId, schedule: Schedule, at: Timestamp) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO volume_ticks VALUES (?1, ?2, ?3)
             ON CONFLICT (volume, schedule) DO UPDATE SET at = excluded.at",
            params![volume.as_str(), schedule.as_str(), at.0],
        )?;
        Ok(())
    }
}

//! Restore points.

use rusqlite::params;
use trackbed_core::ports::PointData;
use trackbed_core::restore_point::{Proof, RestorePoint};
use trackbed_core::{RestorePointId, ServiceId, Timestamp, VolumeId};

use crate::database::{Db, StoreError, optional};

impl Db<'_> {
    /// Adds a restore point. One that is there stays as it is, so that a step may be repeated.
    ///
    /// # Errors
    /// When its volume or service is unknown.
    pub fn add_restore_point(&self, point: &RestorePoint) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO restore_points (id, volume, service, taken_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO NOTHING",
            params![
                point.id.as_str(),
                point.volume.as_str(),
                point.service.as_str(),
                point.taken_at.0,
                serde_json::to_string(point)?
            ],
        )?;
        Ok(())
    }

    /// Returns a restore point, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_restore_point(&self, id: &RestorePointId) -> Result<Option<RestorePoint>, StoreError> {
        let body: Option<String> = optional(self.sql.query_row(
            "SELECT body FROM restore_points WHERE id = ?1",
            [id.as_str()],
            |row| row.get(0),
        ))?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// Returns the restore points of a volume, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_restore_points(&self, volume: &VolumeId) -> Result<Vec<RestorePoint>, StoreError> {
        self.restore_points(
            "SELECT body FROM restore_points WHERE volume = ?1 ORDER BY taken_at DESC, rowid DESC",
            params![volume.as_str()],
        )
    }

    /// Returns the restore points of all volumes of a service, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_service_points(&self, service: &ServiceId) -> Result<Vec<RestorePoint>, StoreError> {
        self.restore_points(
            "SELECT body FROM restore_points WHERE service = ?1 ORDER BY taken_at DESC, rowid DESC",
            params![service.as_str()],
        )
    }

    /// Returns the restore points of all volumes of the box, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_all_points(&self) -> Result<Vec<RestorePoint>, StoreError> {
        self.restore_points("SELECT body FROM restore_points ORDER BY taken_at DESC, rowid DESC", params![])
    }

    /// Returns the newest restore point of a volume that holds an instant at or before `at` and is not known to be
    /// broken, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_point_at(
        &self,
        volume: &VolumeId,
        at: Timestamp,
    ) -> Result<Option<RestorePoint>, StoreError> {
        let before = self.restore_points(
            "SELECT body FROM restore_points WHERE volume = ?1 AND taken_at <= ?2
             ORDER BY taken_at DESC, rowid DESC",
            params![volume.as_str(), at.0],
        )?;
        Ok(before.into_iter().find(|point| !point.is_broken()))
    }

    /// Returns the data of every restore point that is kept: what a collection must not touch.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_kept_data(&self) -> Result<Vec<PointData>, StoreError> {
        let mut query = self.sql.prepare("SELECT volume, id FROM restore_points ORDER BY volume, id")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (volume, point) = row?;
            Ok(PointData { volume: volume.parse()?, point: point.parse()? })
        })
        .collect()
    }

    /// Stores the last proof of a point. One that was removed meanwhile stays removed.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_proof(&self, id: &RestorePointId, proof: Proof) -> Result<(), StoreError> {
        let Some(mut point) = self.find_restore_point(id)? else { return Ok(()) };
        point.proof = Some(proof);
        self.update_restore_point(&point)
    }

    /// Stores a restore point as it is known now. Its volume and instant never change.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn update_restore_point(&self, point: &RestorePoint) -> Result<(), StoreError> {
        self.sql.execute(
            "UPDATE restore_points SET body = ?2 WHERE id = ?1",
            params![point.id.as_str(), serde_json::to_string(point)?],
        )?;
        Ok(())
    }

    /// Removes a restore point; its data goes with the next collection. Returns whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_restore_point(&self, id: &RestorePointId) -> Result<bool, StoreError> {
        Ok(self.sql.execute("DELETE FROM restore_points WHERE id = ?1", [id.as_str()])? > 0)
    }

    fn restore_points(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<RestorePoint>, StoreError> {
        let mut query = self.sql.prepare(sql)?;
        let rows = query.query_map(params, |row| row.get::<_, String>(0))?;
        rows.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }
}

//! Releases and the variables that each was made with.

use rusqlite::params;
use trackbed_core::release::Release;
use trackbed_core::{ReleaseId, Secret, ServiceId};

use crate::database::{Db, StoreError, optional};

impl Db<'_> {
    /// Returns the number that the next release of a service gets.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn next_version(&self, service: &ServiceId) -> Result<u32, StoreError> {
        Ok(self.sql.query_row(
            "SELECT coalesce(max(version), 0) + 1 FROM releases WHERE service = ?1",
            [service.as_str()],
            |row| row.get(0),
        )?)
    }

    /// Writes a release down, with its variables sealed. It is never changed afterwards.
    ///
    /// # Errors
    /// When its number is taken.
    pub fn add_release(
        &self,
        release: &Release,
        variables: &[(String, Secret<String>)],
    ) -> Result<(), StoreError> {
        let plain: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect();
        let sealed = self.key.seal(&place(&release.id), serde_json::to_string(&plain)?.as_bytes());
        self.sql.execute(
            "INSERT INTO releases (id, service, version, body, variables, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                release.id.as_str(),
                release.service.as_str(),
                release.version,
                serde_json::to_string(release)?,
                sealed,
                release.created_at.0
            ],
        )?;
        Ok(())
    }

    /// Returns a release.
    ///
    /// # Errors
    /// When there is none.
    pub fn load_release(&self, id: &ReleaseId) -> Result<Release, StoreError> {
        let body: String =
            self.sql.query_row("SELECT body FROM releases WHERE id = ?1", [id.as_str()], |row| row.get(0))?;
        Ok(serde_json::from_str(&body)?)
    }

    /// Returns the variables that a release was made with, references resolved.
    ///
    /// # Errors
    /// When they do not open with this box's key.
    pub fn load_release_variables(
        &self,
        id: &ReleaseId,
    ) -> Result<Vec<(String, Secret<String>)>, StoreError> {
        let sealed: Vec<u8> =
            self.sql
                .query_row("SELECT variables FROM releases WHERE id = ?1", [id.as_str()], |row| row.get(0))?;
        let plain = self.key.open_sealed(&place(id), &sealed)?;
        let plain: Vec<(String, String)> = serde_json::from_slice(&plain)?;
        Ok(plain.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
    }

    /// Returns the release of a service with a number, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_release(&self, service: &ServiceId, version: u32) -> Result<Option<Release>, StoreError> {
        let body: Option<String> = optional(self.sql.query_row(
            "SELECT body FROM releases WHERE service = ?1 AND version = ?2",
            params![service.as_str(), version],
            |row| row.get(0),
        ))?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    /// Returns the releases of a service whose images are kept, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_kept_releases(&self, service: &ServiceId) -> Result<Vec<Release>, StoreError> {
        let sql = "SELECT body FROM releases WHERE service = ?1 AND collected = 0 ORDER BY version DESC";
        let mut query = self.sql.prepare(sql)?;
        let rows = query.query_map([service.as_str()], |row| row.get::<_, String>(0))?;
        rows.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
    }

    /// Stores that the image of a release is kept no longer. From then on nobody can go back to it.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_collected(&self, id: &ReleaseId) -> Result<(), StoreError> {
        self.sql.execute("UPDATE releases SET collected = 1 WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Returns whether the image of a release is kept no longer.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn is_collected(&self, id: &ReleaseId) -> Result<bool, StoreError> {
        Ok(self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM releases WHERE id = ?1 AND collected = 1)",
            [id.as_str()],
            |row| row.get(0),
        )?)
    }

    /// Returns the newest release that was live before `version` and whose image is kept, or none: what `rollback`
    /// without a number means.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_release_before(
        &self,
        service: &ServiceId,
        version: u32,
    ) -> Result<Option<Release>, StoreError> {
        let body: Option<String> = optional(self.sql.query_row(
            "SELECT r.body FROM releases r
             WHERE r.service = ?1 AND r.version < ?2 AND r.collected = 0 AND EXISTS (
                 SELECT 1 FROM deployments d WHERE d.service = r.service AND d.state = 'success'
                 AND json_extract(d.body, '$.release') = r.id)
             ORDER BY r.version DESC LIMIT 1",
            params![service.as_str(), version],
            |row| row.get(0),
        ))?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }
}

fn place(id: &ReleaseId) -> String {
    format!("release {id}")
}

//! Links from where an app looks for a file to where it lies since it was adopted into a volume.

use rusqlite::params;
use trackbed_core::ServiceId;
use trackbed_core::instance::AppLink;

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Returns the links that every instance of a service gets, by place.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_app_links(&self, service: &ServiceId) -> Result<Vec<AppLink>, StoreError> {
        let mut query =
            self.sql.prepare("SELECT at, target FROM app_links WHERE service = ?1 ORDER BY at")?;
        let rows =
            query.query_map([service.as_str()], |row| Ok(AppLink { at: row.get(0)?, to: row.get(1)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stores a link of a service; one at the same place is replaced. Repeating it is fine.
    ///
    /// # Errors
    /// When the service is unknown.
    pub fn set_app_link(&self, service: &ServiceId, link: &AppLink) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO app_links VALUES (?1, ?2, ?3)
             ON CONFLICT (service, at) DO UPDATE SET target = excluded.target",
            params![service.as_str(), link.at, link.to],
        )?;
        Ok(())
    }

    /// Removes the link of a service at a place. Returns whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_app_link(&self, service: &ServiceId, at: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM app_links WHERE service = ?1 AND at = ?2";
        Ok(self.sql.execute(sql, [service.as_str(), at])? > 0)
    }
}

//! Which sources the box has taken in.

use rusqlite::params;
use trackbed_core::{Digest, Timestamp};

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Writes down that a source is on the box. Repeating it is fine.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add_source(&self, digest: &Digest, now: Timestamp) -> Result<(), StoreError> {
        self.sql.execute("INSERT OR IGNORE INTO sources VALUES (?1, ?2)", params![digest.as_str(), now.0])?;
        Ok(())
    }

    /// Returns whether the box has a source.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn has_source(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM sources WHERE digest = ?1)",
            [digest.as_str()],
            |row| row.get(0),
        )?)
    }
}

//! Which sources the box has taken in.

use rusqlite::params;
use trackbed_core::{Digest, Timestamp};

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Writes down that a source is on the box. Repeating it makes it new again.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add_source(&self, digest: &Digest, now: Timestamp) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO sources VALUES (?1, ?2) ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at",
            params![digest.as_str(), now.0],
        )?;
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

    /// Returns all sources and when each was received last.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_sources(&self) -> Result<Vec<(Digest, Timestamp)>, StoreError> {
        let mut query = self.sql.prepare("SELECT digest, created_at FROM sources ORDER BY created_at")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        rows.map(|row| {
            let (digest, at) = row?;
            Ok((digest.parse()?, Timestamp(at)))
        })
        .collect()
    }

    /// Stores that a source is no longer on the box. Called before it is removed.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_source(&self, digest: &Digest) -> Result<(), StoreError> {
        self.sql.execute("DELETE FROM sources WHERE digest = ?1", [digest.as_str()])?;
        Ok(())
    }
}

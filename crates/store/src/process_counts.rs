//! How many copies of its processes the owner of a service wants.

use rusqlite::params;
use trackbed_core::{ProcessName, ServiceId};

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Returns the counts that were set, by name of the process.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_process_counts(&self, service: &ServiceId) -> Result<Vec<(ProcessName, u32)>, StoreError> {
        let sql = "SELECT process, count FROM process_counts WHERE service = ?1 ORDER BY process";
        let mut query = self.sql.prepare(sql)?;
        let rows = query.query_map([service.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (process, count) = row?;
            Ok((process.parse()?, count))
        })
        .collect()
    }

    /// Sets a count, or takes back what was set.
    ///
    /// # Errors
    /// When the service is unknown.
    pub fn set_process_count(
        &self,
        service: &ServiceId,
        process: &ProcessName,
        count: Option<u32>,
    ) -> Result<(), StoreError> {
        match count {
            Some(count) => self.sql.execute(
                "INSERT INTO process_counts VALUES (?1, ?2, ?3)
                 ON CONFLICT (service, process) DO UPDATE SET count = excluded.count",
                params![service.as_str(), process.as_str(), count],
            )?,
            None => self.sql.execute(
                "DELETE FROM process_counts WHERE service = ?1 AND process = ?2",
                [service.as_str(), process.as_str()],
            )?,
        };
        Ok(())
    }
}

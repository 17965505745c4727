//! Volumes.

use rusqlite::params;
use trackbed_core::volume::Volume;
use trackbed_core::{ServiceId, Timestamp};

use crate::database::{Db, StoreError};

impl Db<'_> {
    /// Returns the volumes of a service, by mount path, so that a nested mount comes after what it lies in.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_volumes(&self, service: &ServiceId) -> Result<Vec<Volume>, StoreError> {
        let mut query = self
            .sql
            .prepare("SELECT id, name, mount, created_at FROM volumes WHERE service = ?1 ORDER BY mount")?;
        let rows = query.query_map([service.as_str()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })?;
        rows.map(|row| {
            let (id, name, mount, created_at) = row?;
            Ok(Volume {
                id: id.parse()?,
                service: service.clone(),
                name: name.parse()?,
                mount: mount.parse()?,
                created_at: Timestamp(created_at),
            })
        })
        .collect()
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// When the service already has one of that name or at that path; a volume's mount path is never changed silently.
    pub fn add_volume(&self, volume: &Volume) -> Result<(), StoreError> {
        for other in self.list_volumes(&volume.service)? {
            if other.name == volume.name {
                return Err(StoreError::Conflict(format!(
                    "the service already has a volume `{}`, mounted at {}",
                    other.name, other.mount
                )));
            }
            if other.mount == volume.mount {
                return Err(StoreError::Conflict(format!(
                    "the service already has a volume at {}, named `{}`",
                    other.mount, other.name
                )));
            }
        }
        self.sql.execute(
            "INSERT INTO volumes VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                volume.id.as_str(),
                volume.service.as_str(),
                volume.name.as_str(),
                volume.mount.as_str(),
                volume.created_at.0
            ],
        )?;
        Ok(())
    }
}

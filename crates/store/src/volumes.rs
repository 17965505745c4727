//! Volumes.

use rusqlite::{Row, params};
use trackbed_core::restore_point::Schedule;
use trackbed_core::volume::Volume;
use trackbed_core::{ServiceId, Timestamp, VolumeId};

use crate::database::{Db, StoreError, optional};

const SELECT: &str =
    "SELECT id, service, name, mount, schedules, created_at, limit_bytes, removed_at FROM volumes";

impl Db<'_> {
    /// Returns the volumes of a service, by mount path, so that a nested mount comes after what it lies in. Removed ones
    /// are not among them.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_volumes(&self, service: &ServiceId) -> Result<Vec<Volume>, StoreError> {
        let rest = "WHERE service = ?1 AND removed_at IS NULL ORDER BY mount";
        self.volumes(rest, params![service.as_str()])
    }

    /// Returns the volumes of all services that are not removed, by service and mount path.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_all_volumes(&self) -> Result<Vec<Volume>, StoreError> {
        self.volumes("WHERE removed_at IS NULL ORDER BY service, mount", params![])
    }

    /// Returns the removed volumes of a service whose data can still be had back, the last removed first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_removed_volumes(&self, service: &ServiceId) -> Result<Vec<Volume>, StoreError> {
        let rest = "WHERE service = ?1 AND removed_at IS NOT NULL AND erased_at IS NULL
             ORDER BY removed_at DESC, rowid DESC";
        self.volumes(rest, params![service.as_str()])
    }

    /// Returns the removed volumes of all services whose data is not erased yet, the first removed first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_volumes_to_erase(&self) -> Result<Vec<Volume>, StoreError> {
        let rest = "WHERE removed_at IS NOT NULL AND erased_at IS NULL ORDER BY removed_at, rowid";
        self.volumes(rest, params![])
    }

    /// Returns the volumes of all services whose data is erased and of which points may be left.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn list_erased_volumes(&self) -> Result<Vec<Volume>, StoreError> {
        self.volumes("WHERE erased_at IS NOT NULL ORDER BY removed_at, rowid", params![])
    }

    /// Returns a volume, removed or not, or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn find_volume(&self, id: &VolumeId) -> Result<Option<Volume>, StoreError> {
        let row = optional(self.sql.query_row(
            &format!("{SELECT} WHERE id = ?1"),
            [id.as_str()],
            RawVolume::from_row,
        ))?;
        row.map(RawVolume::parse).transpose()
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// When the service already has one of that name or at that path; a volume's mount path is never changed silently.
    pub fn add_volume(&self, volume: &Volume) -> Result<(), StoreError> {
        self.refuse_taken(volume)?;
        self.sql.execute(
            "INSERT INTO volumes (id, service, name, mount, created_at, schedules, limit_bytes, removed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                volume.id.as_str(),
                volume.service.as_str(),
                volume.name.as_str(),
                volume.mount.as_str(),
                volume.created_at.0,
                joined(&volume.schedules),
                volume.limit_bytes.map(limit),
                volume.removed_at.map(|at| at.0)
            ],
        )?;
        Ok(())
    }

    /// Removes a volume; its data can be had back until it is erased. Removing it again changes nothing.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove_volume(&self, id: &VolumeId, now: Timestamp) -> Result<(), StoreError> {
        self.sql.execute(
            "UPDATE volumes SET removed_at = ?2 WHERE id = ?1 AND removed_at IS NULL",
            params![id.as_str(), now.0],
        )?;
        Ok(())
    }

    /// Takes the removal of a volume back.
    ///
    /// # Errors
    /// When its data is erased, or another volume of the service has its name or its path by now.
    pub fn undelete_volume(&self, id: &VolumeId) -> Result<(), StoreError> {
        let Some(volume) = self.find_volume(id)? else {
            return Err(StoreError::Conflict(format!("there is no volume {id}")));
        };
        if volume.removed_at.is_none() {
            return Ok(());
        }
        self.refuse_taken(&volume)?;
        let sql = "UPDATE volumes SET removed_at = NULL WHERE id = ?1 AND erased_at IS NULL";
        if self.sql.execute(sql, [id.as_str()])? == 0 {
            return Err(StoreError::Conflict(format!(
                "the data of volume `{}` is deleted for good",
                volume.name
            )));
        }
        Ok(())
    }

    /// Stores that the directory of a removed volume is deleted for good. From then on it cannot be had back.
    ///
    /// # Errors
    /// When it is not removed: only a removed volume is ever erased.
    pub fn set_erased(&self, id: &VolumeId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE volumes SET erased_at = ?2 WHERE id = ?1 AND removed_at IS NOT NULL";
        if self.sql.execute(sql, params![id.as_str(), now.0])? == 0 {
            return Err(StoreError::Conflict(format!("volume {id} is not removed, so it is not erased")));
        }
        Ok(())
    }

    /// Forgets an erased volume of which no point is left. Returns whether it is forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn forget_volume(&self, id: &VolumeId) -> Result<bool, StoreError> {
        const IS_GONE: &str = "SELECT id FROM volumes WHERE id = ?1 AND erased_at IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM restore_points p WHERE p.volume = volumes.id)";
        self.sql.execute(&format!("DELETE FROM volume_ticks WHERE volume IN ({IS_GONE})"), [id.as_str()])?;
        let forgotten =
            self.sql.execute(&format!("DELETE FROM volumes WHERE id IN ({IS_GONE})"), [id.as_str()])?;
        Ok(forgotten > 0)
    }

    /// Stores when backups of a volume are taken by themselves. None means never.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_schedules(&self, id: &VolumeId, schedules: &[Schedule]) -> Result<(), StoreError> {
        self.sql.execute(
            "UPDATE volumes SET schedules = ?2 WHERE id = ?1",
            params![id.as_str(), joined(schedules)],
        )?;
        Ok(())
    }

    /// Stores the size above which the owner of a volume is warned; none means no limit of its own.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_volume_limit(&self, id: &VolumeId, limit_bytes: Option<u64>) -> Result<(), StoreError> {
        self.sql.execute(
            "UPDATE volumes SET limit_bytes = ?2 WHERE id = ?1",
            params![id.as_str(), limit_bytes.map(limit)],
        )?;
        Ok(())
    }

    fn refuse_taken(&self, volume: &Volume) -> Result<(), StoreError> {
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
        Ok(())
    }

    fn volumes(&self, rest: &str, params: impl rusqlite::Params) -> Result<Vec<Volume>, StoreError> {
        let mut query = self.sql.prepare(&format!("{SELECT} {rest}"))?;
        let rows = query.query_map(params, RawVolume::from_row)?;
        rows.map(|row| row?.parse()).collect()
    }
}

fn joined(schedules: &[Schedule]) -> String {
    schedules.iter().map(|schedule| schedule.as_str()).collect::<Vec<_>>().join(",")
}

/// SQLite counts to 2^63: more bytes than that are no limit at all.
fn limit(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A row before its texts are parsed.
struct RawVolume {
    texts: [String; 5],
    created_at: i64,
    limit_bytes: Option<i64>,
    removed_at: Option<i64>,
}

impl RawVolume {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            texts: [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?],
            created_at: row.get(5)?,
            limit_bytes: row.get(6)?,
            removed_at: row.get(7)?,
        })
    }

    fn parse(self) -> Result<Volume, StoreError> {
        let [id, service, name, mount, schedules] = self.texts;
        let words = schedules.split(',').filter(|word| !word.is_empty());
        Ok(Volume {
            id: id.parse()?,
            service: service.parse()?,
            name: name.parse()?,
            mount: mount.parse()?,
            created_at: Timestamp(self.created_at),
            schedules: words.map(str::parse).collect::<Result<_, _>>()?,
            limit_bytes: self.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            removed_at: self.removed_at.map(Timestamp),
        })
    }
}

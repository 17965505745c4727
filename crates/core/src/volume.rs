//! A volume: a directory that outlives every release and is mounted into one service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::ParseError;
use crate::restore_point::Schedule;
use crate::{Name, ServiceId, Timestamp, VolumeId};

/// Where a volume is mounted inside the sandbox: absolute, normalised, and none of the places the sandbox itself needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountPath(String);

/// Top-level directories that belong to the sandbox. A volume may live below `/app`, but not be it.
const RESERVED: [&str; 13] =
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr"];

impl MountPath {
    /// Returns the path as text, starting with `/` and without a trailing one.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for MountPath {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError {
            value: text.to_owned(),
            wanted: "a mount path (absolute, such as `/data` or `/app/data`, without `..`, and not a system directory)",
        };
        let rest = text.strip_prefix('/').ok_or_else(error)?;
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let clean =
            parts.iter().all(|part| *part != "." && *part != ".." && !part.contains(['\0', '\n', ':', '\\']));
        let Some(first) = parts.first() else { return Err(error()) };
        let is_app = parts == ["app"];
        if !clean || is_app || RESERVED.contains(first) || text.len() > 1024 {
            return Err(error());
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

impl TryFrom<String> for MountPath {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<MountPath> for String {
    fn from(path: MountPath) -> String {
        path.0
    }
}

impl std::fmt::Display for MountPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A volume as the control plane knows it. One service owns it for good; no two instances ever hold it at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id, which also names its directory on disk.
    pub id: VolumeId,
    /// The service that mounts it.
    pub service: ServiceId,
    /// Its name, unique within the service.
    pub name: Name,
    /// Where it is mounted.
    pub mount: MountPath,
    /// When it was made.
    pub created_at: Timestamp,
    /// When backups are taken by themselves. Empty means never.
    pub schedules: Vec<Schedule>,
    /// Warn, and refuse what is pushed or adopted, above this many bytes on disk; none means no limit of its own. What brings
    /// an earlier state back, or starts the live release again, is never refused for it.
    pub limit_bytes: Option<u64>,
    /// When its owner removed it; its data is kept for [`Volume::KEPT_AFTER_REMOVAL`] and can be had back until then.
    pub removed_at: Option<Timestamp>,
}

impl Volume {
    /// How long the data of a removed volume is kept, as Railway's.
    pub const KEPT_AFTER_REMOVAL: Duration = Duration::from_secs(48 * 60 * 60);

    /// Makes a volume with the schedules of a new one.
    pub fn new(id: VolumeId, service: ServiceId, name: Name, mount: MountPath, now: Timestamp) -> Self {
        let schedules = Schedule::DEFAULT.to_vec();
        Self { id, service, name, mount, created_at: now, schedules, limit_bytes: None, removed_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_paths_are_normalised() {
        assert_eq!("/data/".parse::<MountPath>().unwrap().as_str(), "/data");
        assert_eq!("//app//data".parse::<MountPath>().unwrap().as_str(), "/app/data");
    }

    #[test]
    fn mount_paths_cannot_cover_the_sandbox() {
        for bad in ["", "data", "/", "/app", "/etc", "/usr/lib", "/a/../etc", "/proc/self", "/tmp"] {
            assert!(bad.parse::<MountPath>().is_err(), "{bad:?}");
        }
    }
}

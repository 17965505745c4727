//! What lies on the disk of a world: volumes whose data is the list of those who wrote it, so that a test can tell which
//! data a release sees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trackbed_core::ports::{PointData, PortError, VolumePlace};
use trackbed_core::{DeploymentId, Digest, InstanceId, RestorePointId, VolumeId};

use crate::app::App;
use crate::clock;
use crate::world::{State, World, digest_of};

/// How long reading or writing all the data of a volume takes.
const DATA_TAKES: Duration = Duration::from_millis(30);

/// What lies in a volume. Two contents are equal when the same happened to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The instances that wrote, in order, each with its source.
    pub writes: Vec<(InstanceId, Digest)>,
    /// Files that were adopted: path in the volume and where they came from.
    pub adopted: BTreeMap<String, String>,
}

impl Content {
    pub(crate) fn files(&self) -> u64 {
        (self.writes.len() + self.adopted.len()) as u64
    }
}

/// Data beside a volume: staged, or set aside by a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it holds now.
    pub content: Content,
    /// Whether it was swapped in, so that it holds what was there before.
    pub is_swapped: bool,
}

/// All that lies on the disk of a world.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// By directory.
    pub(crate) places: BTreeMap<String, Content>,
    pub(crate) points: BTreeMap<PointData, Content>,
    pub(crate) broken: BTreeSet<RestorePointId>,
    /// Points of which nobody knows what they need.
    pub(crate) unreadable: BTreeSet<RestorePointId>,
    /// Points at which nobody can look.
    pub(crate) baffling: BTreeSet<RestorePointId>,
    pub(crate) stages: BTreeMap<(VolumeId, DeploymentId), bool>,
    /// Sources that requests were sent to.
    pub(crate) served: BTreeSet<Digest>,
    /// Volumes that have no room for a copy.
    pub(crate) is_full: bool,
    /// Bytes that are free as far as anybody asks; none means plenty.
    pub(crate) free_bytes: Option<u64>,
    /// How long reading or writing all the data of a volume takes, when not as usual.
    pub(crate) takes: Option<Duration>,
}

pub(crate) fn place_of(volume: &VolumeId) -> VolumePlace {
    VolumePlace {
        directory: format!("/volumes/{volume}/data").into(),
        lock: format!("/volumes/{volume}/lock").into(),
    }
}

pub(crate) fn stage_place(volume: &VolumeId, stage: &DeploymentId) -> VolumePlace {
    VolumePlace {
        directory: format!("/volumes/{volume}/stages/{stage}/data").into(),
        lock: format!("/volumes/{volume}/stages/{stage}/lock").into(),
    }
}

pub(crate) fn key(place: &VolumePlace) -> String {
    place.directory.to_string_lossy().into_owned()
}

impl World {
    /// Returns what lies in a volume.
    pub fn content(&self, volume: &VolumeId) -> Content {
        self.lock().disk.places.get(&key(&place_of(volume))).cloned().unwrap_or_default()
    }

    /// Returns the data of a restore point, or none.
    pub fn point(&self, volume: &VolumeId, point: &RestorePointId) -> Option<Content> {
        let data = PointData { volume: volume.clone(), point: point.clone() };
        self.lock().disk.points.get(&data).cloned()
    }

    /// Returns what lies beside the volumes.
    pub fn stages(&self) -> BTreeMap<(VolumeId, DeploymentId), Stage> {
        let state = self.lock();
        let stages = state.disk.stages.iter().map(|(name, is_swapped)| {
            let content = state.disk.places.get(&key(&stage_place(&name.0, &name.1)));
            let stage = Stage { content: content.cloned().unwrap_or_default(), is_swapped: *is_swapped };
            (name.clone(), stage)
        });
        stages.collect()
    }

    /// Lets the data of a point rot.
    pub fn break_point(&self, point: &RestorePointId) {
        self.lock().disk.broken.insert(point.clone());
    }

    /// Damages what a point is listed in, so that a collection cannot tell what it needs.
    pub fn damage_manifest(&self, point: &RestorePointId) {
        self.lock().disk.unreadable.insert(point.clone());
    }

    /// Lets every look at a point end without a verdict.
    pub fn baffle_point(&self, point: &RestorePointId) {
        self.lock().disk.baffling.insert(point.clone());
    }

    /// Takes [`World::break_point`] back.
    pub fn mend_point(&self, point: &RestorePointId) {
        self.lock().disk.broken.remove(point);
    }

    /// Lets reading and writing all the data of a volume take so long.
    pub fn slow_data(&self, takes: Duration) {
        self.lock().disk.takes = Some(takes);
    }

    pub(crate) fn data_takes(&self) -> Duration {
        self.lock().disk.takes.unwrap_or(DATA_TAKES)
    }

    /// Returns the name of the app that a source is.
    pub fn name_of(&self, source: &Digest) -> String {
        self.lock().apps.get(source).map(|app| app.name.clone()).unwrap_or_default()
    }

    /// Says how many bytes of the disk, which has a terabyte, are free.
    pub fn set_free(&self, bytes: u64) {
        self.lock().disk.free_bytes = Some(bytes);
    }

    /// Says whether the disk has room for another copy of anything.
    pub fn fill_disk(&self, is_full: bool) {
        self.lock().disk.is_full = is_full;
    }
}

impl State {
    /// Lets an instance find its data, and write there. Returns how much was written before.
    pub(crate) fn use_data(
        &mut self,
        id: &InstanceId,
        app: &App,
        directories: &[String],
        is_trial: bool,
    ) -> usize {
        let source = digest_of(&app.name);
        let mut found = 0;
        // A job serves nobody, and what it writes is what it is for.
        if app.config.cron.is_some() && !is_trial {
            self.disk.served.insert(source.clone());
        }
        for directory in directories {
            let content = self.disk.places.entry(directory.clone()).or_default();
            found += content.writes.len();
            // What a release wrote that never served anybody is nobody else's data.
            if let Some((writer, other)) = content.writes.last()
                && *other != source
                && !self.disk.served.contains(other)
                && !is_trial
            {
                self.violations.push(format!("{id} began on what {writer} had written, which never served"));
            }
            if app.writes {
                content.writes.push((id.clone(), source.clone()));
            }
        }
        found
    }

    /// Returns who lives in a place.
    pub(crate) fn holders(&self, place: &VolumePlace) -> Vec<InstanceId> {
        let (now, directory) = (clock::now(), key(place));
        let living = self.instances.values().filter(|instance| instance.lives(now));
        let here = living.filter(|it| it.spec.volumes.iter().any(|mount| mount.host_path == directory));
        here.map(|instance| instance.spec.id.clone()).collect()
    }

    pub(crate) fn refuse_holder(&mut self, what: &str, place: &VolumePlace) -> Result<(), PortError> {
        let Some(holder) = self.holders(place).into_iter().next() else { return Ok(()) };
        self.violations.push(format!("{what} of {} while {holder} holds it", key(place)));
        Err(PortError::new(format!("the volume is held by {holder}")))
    }

    pub(crate) fn refuse_full(&self) -> Result<(), PortError> {
        match self.disk.is_full {
            true => Err(PortError::new("no space left on the disk")),
            false => Ok(()),
        }
    }
}

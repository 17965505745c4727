//! Which restore points are kept. A function of what is there: it reads no clock and no state.
//!
//! A point of a schedule goes when it is older than its schedule keeps it *and* enough newer ones of that schedule are
//! there. So neither a clock that jumps forwards nor a long downtime empties the history; a clock that jumps back only
//! keeps more for a while. Points known to be broken take nobody's place.
//!
//! | taken | kept |
//! |---|---|
//! | hourly, daily, weekly, monthly | for a day, 6, 30, 90 days, and at least the newest 24, 6, 4, 3 |
//! | by a deployment | for 7 days, and longer while a rollback may want it (`collect.rs`) |
//! | by a command | for 30 days, and at least the newest 3; or until it is removed by hand |
//! | to look into databases | for an hour |
//! | before a restore | for 7 days, and at least the newest one |
//!
//! What stays in any case: the newest point of a volume that is not broken, the newest proven one, one that is wanted,
//! and the only one.

use std::collections::HashSet;
use std::time::Duration;

use trackbed_core::restore_point::{PointReason, RestorePoint, Schedule};
use trackbed_core::{RestorePointId, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the pin of a deployment is kept, whatever became of it.
const PIN_KEPT: Duration = DAY.saturating_mul(7);
/// How long a point is kept that somebody asked for.
const COMMAND_KEPT: Duration = DAY.saturating_mul(30);
/// How long a point is kept that was taken to look into databases: while somebody asks it further questions.
const LOOK_KEPT: Duration = Duration::from_secs(60 * 60);
/// How many points that somebody asked for are kept at least.
const COMMANDS_KEPT: usize = 3;
/// How long the data is kept that a restore replaced.
const REPLACED_KEPT: Duration = DAY.saturating_mul(7);
/// How many of those are kept at least.
const REPLACED_KEPT_LEAST: usize = 1;

/// How much room there is for the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Every point is kept for its time.
    Enough,
    /// The disk is nearly full: only what stays in any case is kept.
    Scarce,
}

/// Returns how many points of a schedule are kept at least, while the volume has that schedule.
pub fn kept_at_least(schedule: Schedule) -> usize {
    match schedule {
        Schedule::Hourly => 24,
        Schedule::Daily => 6,
        Schedule::Weekly => 4,
        Schedule::Monthly => 3,
    }
}

/// Returns which points of one volume are kept no longer. `wanted` are points that something still refers to.
pub fn expired(
    points: &[RestorePoint],
    schedules: &[Schedule],
    wanted: &HashSet<RestorePointId>,
    room: Room,
    now: Timestamp,
) -> Vec<RestorePointId> {
    let mut newest_first: Vec<&RestorePoint> = points.iter().collect();
    newest_first.sort_by(|a, b| (b.taken_at, &b.id).cmp(&(a.taken_at, &a.id)));
    let newest = newest_first.first().map(|point| &point.id);
    let sound = newest_first.iter().find(|point| !point.is_broken()).map(|point| &point.id);
    let proven = newest_first.iter().find(|point| point.is_proven()).map(|point| &point.id);
    let mut places = Places { schedules, taken: [0; 4], commands: 0, replaced: 0 };
    let mut gone = Vec::new();
    for point in &newest_first {
        // A point that stays in any case takes its place among its kind, too.
        let has_place = places.take(point);
        let stays = wanted.contains(&point.id)
            || Some(&point.id) == sound
            || Some(&point.id) == proven
            || sound.is_none() && Some(&point.id) == newest;
        let is_kept = room == Room::Enough && (has_place || is_young(point, now));
        if !stays && !is_kept {
            gone.push(point.id.clone());
        }
    }
    gone
}

fn is_young(point: &RestorePoint, now: Timestamp) -> bool {
    let kept_for = match &point.reason {
        PointReason::Schedule { schedules } => {
            schedules.iter().map(|schedule| schedule.kept_for()).max().unwrap_or(DAY)
        }
        PointReason::Deployment { .. } => PIN_KEPT,
        PointReason::Command => COMMAND_KEPT,
        PointReason::Look => LOOK_KEPT,
        PointReason::BeforeRestore { .. } => REPLACED_KEPT,
    };
    now.since(point.taken_at) < kept_for
}

/// The places that are kept whatever their age, filled from the newest on.
struct Places<'a> {
    schedules: &'a [Schedule],
    taken: [usize; 4],
    commands: usize,
    replaced: usize,
}

impl Places<'_> {
    fn take(&mut self, point: &RestorePoint) -> bool {
        if point.is_broken() {
            return false;
        }
        match &point.reason {
            PointReason::Schedule { schedules } => {
                let mut has_place = false;
                for (index, schedule) in Schedule::ALL.into_iter().enumerate() {
                    if schedules.contains(&schedule) && self.schedules.contains(&schedule) {
                        has_place |= take_one(&mut self.taken[index], kept_at_least(schedule));
                    }
                }
                has_place
            }
            PointReason::Deployment { .. } => false,
            PointReason::Look => false,
            PointReason::Command => take_one(&mut self.commands, COMMANDS_KEPT),
            PointReason::BeforeRestore { .. } => take_one(&mut self.replaced, REPLACED_KEPT_LEAST),
        }
    }
}

fn take_one(taken: &mut usize, places: usize) -> bool {
    *taken += 1;
    *taken <= places
}

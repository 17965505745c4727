//! What the keepers of data know beside the stored state: whose turn it is, what went wrong last, and whether the clock
//! can be believed. All of it may be lost with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, RwLock, RwLockReadGuard};
use tokio::time::Instant;
use trackbed_core::ports::{PointData, StrayFile};
use trackbed_core::{InstanceId, RestorePointId, ServiceId, Timestamp};
use trackbed_stdx::backoff;

use crate::control::Control;

/// Wait before something that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// Longest such wait.
const RETRY_CEILING: Duration = Duration::from_secs(30 * 60);
/// Difference between the two clocks that is a jump, and not their drift or a slow machine.
const JUMP: Duration = Duration::from_secs(5 * 60);
/// How long the wall clock must go as the other one does before anything is deleted for its age: a box that boots with a
/// wrong date, or that was suspended, has set its clock right by then.
const TRUSTED_AFTER: Duration = Duration::from_secs(60 * 60);

/// Something that did not work and is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// What happened.
    pub(crate) message: String,
    /// When it happened last.
    pub(crate) at: Timestamp,
    attempts: u32,
    not_before: Instant,
}

/// What an instance has written outside its volumes, as seen last.
#[derive(Debug, Clone)]
pub(crate) struct Strays {
    pub(crate) instance: InstanceId,
    pub(crate) seen: Instant,
    pub(crate) files: Vec<StrayFile>,
}

/// Watches the wall clock by the one that does not jump.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    steady_since: Option<(Instant, Timestamp)>,
}

impl ClockWatch {
    /// Takes a look, and returns whether ages by the wall clock can be believed.
    pub(crate) fn look(&mut self, now: Timestamp) -> bool {
        let instant = Instant::now();
        let Some((since, began)) = self.steady_since else {
            self.steady_since = Some((instant, now));
            return false;
        };
        let (by_clock, by_wall) = (instant.duration_since(since), now.since(began));
        if now < began || by_clock.abs_diff(by_wall) > JUMP {
            self.steady_since = Some((instant, now));
            return false;
        }
        by_clock >= TRUSTED_AFTER
    }
}

/// The memory of the keepers.
pub(crate) struct Keeping {
    turns: Mutex<HashMap<ServiceId, Arc<tokio::sync::Mutex<()>>>>,
    collection: RwLock<()>,
    /// Whose turn it is to prove a point: one at a time on the box.
    pub(crate) drill_turn: tokio::sync::Mutex<()>,
    /// The point that is being proven.
    pub(crate) proving: Mutex<Option<RestorePointId>>,
    /// Proofs that could not be made.
    pub(crate) unprovable: Mutex<HashMap<RestorePointId, Trouble>>,
    /// Backups that failed.
    pub(crate) troubles: Mutex<HashMap<ServiceId, Trouble>>,
    pub(crate) strays: Mutex<HashMap<ServiceId, Strays>>,
    pub(crate) clock: Mutex<ClockWatch>,
    /// The point that keeps space from being freed, and what is said of it.
    pub(crate) unreadable: Mutex<Option<(PointData, String)>>,
    /// What the disk of the box lacks, when it lacks something.
    pub(crate) disk: Mutex<Option<String>>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            collection: RwLock::default(),
            drill_turn: tokio::sync::Mutex::default(),
            proving: Mutex::default(),
            unprovable: Mutex::default(),
            troubles: Mutex::default(),
            strays: Mutex::default(),
            clock: Mutex::new(ClockWatch { steady_since: None }),
            unreadable: Mutex::default(),
            disk: Mutex::default(),
        }
    }
}

/// Locks memory that no holder leaves half changed.
pub(crate) fn lock<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Trouble {
    /// Returns whether it is time to try again.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.not_before
    }
}

/// Notes that something failed once more, and returns how often it has in a row.
pub(crate) fn note_trouble<K: Eq + std::hash::Hash>(
    troubles: &Mutex<HashMap<K, Trouble>>,
    key: K,
    message: String,
    at: Timestamp,
) -> u32 {
    let mut troubles = lock(troubles);
    let attempts = troubles.get(&key).map_or(0, |trouble| trouble.attempts);
    let not_before = Instant::now() + backoff::exponential(RETRY_FIRST, RETRY_CEILING, attempts);
    let attempts = attempts.saturating_add(1);
    troubles.insert(key, Trouble { message, at, attempts, not_before });
    attempts
}

impl Control {
    /// Waits for the turn to capture volumes of a service: one capture of a service at a time, whoever wants it.
    /// Cancel-safe.
    pub(crate) async fn turn_to_capture(&self, service: &ServiceId) -> OwnedMutexGuard<()> {
        let turn = lock(&self.inner.keeping.turns).entry(service.clone()).or_default().clone();
        turn.lock_owned().await
    }

    /// Waits until no collection runs, and keeps the next one away for as long as the guard lives. Whoever makes a point
    /// holds it until the point, or the deployment that names it, is stored.
    ///
    /// A deployment that waits here once after it has stored the ids of its points needs no guard later: a collection
    /// that begins afterwards knows them.
    pub(crate) async fn keep_collections_away(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.keeping.collection.read().await
    }

    /// Returns a guard when nobody makes a point just now. Never waits, so that nobody ever waits behind it.
    pub(crate) fn begin_collection(&self) -> Option<tokio::sync::RwLockWriteGuard<'_, ()>> {
        self.inner.keeping.collection.try_write().ok()
    }
}

/// Returns a time as people say it: `40 s`, `5 min`, `3 h`, `2 days`.
pub(crate) fn spoken(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        seconds if seconds < 2 * MINUTE => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_is_believed_after_an_hour_without_a_jump() {
        let mut watch = ClockWatch { steady_since: None };
        let mut wall = 1_000_000_000;
        for minute in 0..60 {
            assert!(!watch.look(Timestamp(wall)), "after {minute} min");
            tokio::time::advance(Duration::from_secs(60)).await;
            wall += 60_000;
        }
        assert!(watch.look(Timestamp(wall)));
        for jump in [-3_600_000, 365 * 24 * 3_600_000] {
            wall += jump;
            assert!(!watch.look(Timestamp(wall)), "after a jump of {jump} ms");
            tokio::time::advance(TRUSTED_AFTER).await;
            wall += 3_600_000;
            assert!(watch.look(Timestamp(wall)));
        }
    }

    #[test]
    fn a_time_is_spoken_in_one_unit() {
        assert_eq!(spoken(Duration::from_secs(90)), "90 s");
        assert_eq!(spoken(Duration::from_secs(26 * 3600)), "26 h");
    }
}

//! When a schedule is due. Ticks are places on the wall clock (each full hour, each midnight UTC, …), so that downtime
//! is caught up by one backup and not by many.

use std::time::Duration;

use trackbed_core::Timestamp;
use trackbed_core::restore_point::Schedule;

/// The first Monday after 1970-01-01: weeks begin there.
const FIRST_MONDAY_MS: i64 = 4 * 24 * 60 * 60 * 1000;

/// Returns the schedules whose tick has come since it was last served. `served` holds the wall time of the last one;
/// `since` stands for it where there is none: when the volume was made.
///
/// A clock that is set forward makes each schedule due once. One that is set back makes nothing due that was served
/// within one interval of the new time; what was served further in the future than that was served by a wrong clock, and
/// counts as due once more.
pub(crate) fn due(
    schedules: &[Schedule],
    served: &[(Schedule, Timestamp)],
    since: Timestamp,
    now: Timestamp,
) -> Vec<Schedule> {
    let is_due = |schedule: &Schedule| {
        let last = served.iter().find(|(known, _)| known == schedule).map_or(since, |(_, at)| *at);
        let is_ahead = last.since(now) > schedule.interval();
        is_ahead || tick(*schedule, now) > tick(*schedule, last)
    };
    schedules.iter().copied().filter(is_due).collect()
}

/// Returns the number of the tick that a time belongs to.
fn tick(schedule: Schedule, at: Timestamp) -> i64 {
    let offset = match schedule {
        Schedule::Weekly => FIRST_MONDAY_MS,
        Schedule::Hourly | Schedule::Daily | Schedule::Monthly => 0,
    };
    at.0.saturating_sub(offset).div_euclid(millis(schedule.interval()))
}

/// Returns a time that fits a stamp.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;
    const DAY: i64 = 24 * HOUR;
    /// A Tuesday, 22:13:20 UTC.
    const NOW: i64 = 1_700_000_000_000;

    fn due_after(schedules: &[Schedule], last: i64, now: i64) -> Vec<Schedule> {
        let served: Vec<_> = schedules.iter().map(|schedule| (*schedule, Timestamp(last))).collect();
        due(schedules, &served, Timestamp(0), Timestamp(now))
    }

    #[test]
    fn a_new_volume_is_due_at_the_first_full_hour() {
        let made = Timestamp(NOW);
        assert_eq!(due(&Schedule::ALL, &[], made, Timestamp(NOW + HOUR / 4)), []);
        assert_eq!(due(&Schedule::ALL, &[], made, Timestamp(NOW + HOUR)), [Schedule::Hourly]);
    }

    #[test]
    fn after_downtime_each_schedule_is_due_once() {
        assert_eq!(due_after(&Schedule::ALL, NOW - 40 * DAY, NOW), Schedule::ALL);
        assert_eq!(due_after(&Schedule::ALL, NOW, NOW), []);
    }

    #[test]
    fn weeks_begin_on_monday() {
        let monday = NOW + 6 * DAY - (22 * HOUR + 13 * 60 * 1000 + 20_000);
        assert_eq!(due_after(&[Schedule::Weekly], NOW, monday - 1), []);
        assert_eq!(due_after(&[Schedule::Weekly], NOW, monday), [Schedule::Weekly]);
    }

    #[test]
    fn a_clock_set_back_a_little_makes_nothing_due() {
        for back in [1, HOUR / 2, HOUR] {
            assert_eq!(due_after(&[Schedule::Hourly, Schedule::Daily], NOW, NOW - back), [], "{back} ms");
        }
    }

    #[test]
    fn a_clock_that_was_a_year_ahead_makes_each_schedule_due_once_when_it_is_set_right() {
        let ahead = NOW + 365 * DAY;
        assert_eq!(due_after(&Schedule::ALL, ahead, NOW), Schedule::ALL);
        assert_eq!(due_after(&Schedule::ALL, NOW, NOW + 60_000), [], "and then not again");
    }
}

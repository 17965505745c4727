//! When a service with a schedule runs: five fields of cron, in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::ParseError;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Two leap days may lie eight years apart, around a year such as 2100.
const DAYS_AHEAD_MAX: i64 = 9 * 366;
/// Longest text that is read.
const TEXT_MAX: usize = 1000;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule of five fields, minute, hour, day of the month, month and day of the week, each `*` or a list of numbers,
/// names, ranges and steps. As in every cron, a day counts by either of its two fields when both are given. It has a
/// next tick at any time: what never comes (30 February) is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronSchedule {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

impl CronSchedule {
    /// Returns the text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the first tick after a time, at a full minute.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let first = after.0.div_euclid(MINUTE_MS).checked_add(1)?.checked_mul(MINUTE_MS)?;
        let first_day = first.div_euclid(DAY_MS);
        for day in first_day..first_day.saturating_add(DAYS_AHEAD_MAX) {
            if !self.has_day(day) {
                continue;
            }
            let from = if day == first_day { first.rem_euclid(DAY_MS) / MINUTE_MS } else { 0 };
            let of_day = |minute: &i64| {
                self.hours & (1 << (minute / 60)) != 0 && self.minutes & (1 << (minute % 60)) != 0
            };
            if let Some(minute) = (from..24 * 60).find(of_day) {
                return Some(Timestamp(day * DAY_MS + minute * MINUTE_MS));
            }
        }
        None
    }

    fn has_day(&self, day: i64) -> bool {
        let (month, of_month) = month_and_day(day);
        if self.months & (1 << month) == 0 {
            return false;
        }
        let in_month = self.days & (1 << of_month) != 0;
        // 1970-01-01 was a Thursday.
        let in_week = self.weekdays & (1 << (day + 4).rem_euclid(7)) != 0;
        match (self.any_day, self.any_weekday) {
            (true, _) => in_week,
            (false, true) => in_month,
            (false, false) => in_month || in_week,
        }
    }
}

/// Returns month and day of the month, both from 1, of a day counted from 1970-01-01 in the Gregorian calendar. Years are
/// counted from March, so that the leap day is the last of its year and each of the twelve months has a fixed place.
fn month_and_day(day: i64) -> (i64, i64) {
    // 0000-03-01, and the cycle of 400 years after which the calendar repeats.
    let in_cycle = (day + 719_468).rem_euclid(146_097);
    let year = (in_cycle - in_cycle / 1_460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let of_year = in_cycle - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (month, of_year - (153 * from_march + 2) / 5 + 1)
}

impl FromStr for CronSchedule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |wanted| ParseError { value: text.chars().take(80).collect(), wanted };
        const FIELDS: &str =
            "a schedule of five fields, minute hour day month weekday, such as `*/15 * * * *`";
        if text.len() > TEXT_MAX {
            return Err(wrong(FIELDS));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else { return Err(wrong(FIELDS)) };
        let schedule = Self {
            text: fields.join(" "),
            minutes: field(minute, 0, 59, &[])
                .ok_or_else(|| wrong("a schedule whose minutes are 0 to 59"))?,
            hours: field(hour, 0, 23, &[]).ok_or_else(|| wrong("a schedule whose hours are 0 to 23"))?,
            days: field(day, 1, 31, &[]).ok_or_else(|| wrong("a schedule whose days are 1 to 31"))?,
            months: field(month, 1, 12, &MONTHS)
                .ok_or_else(|| wrong("a schedule whose months are 1 to 12 or JAN to DEC"))?,
            weekdays: field(weekday, 0, 7, &DAYS)
                .map(|days| days | (days >> 7 & 1))
                .ok_or_else(|| wrong("a schedule whose weekdays are 0 to 7 or SUN to SAT"))?,
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        };
        // The calendar repeats, so what has no tick from here on never had one.
        match schedule.next_after(Timestamp(0)) {
            Some(_) => Ok(schedule),
            None => Err(wrong("a schedule that ever comes")),
        }
    }
}

/// Returns the numbers of a field as bits.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    let value = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => u32::try_from(at).ok()? + low,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (low..=high).contains(&value).then_some(value)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, Some(step.parse::<u32>().ok().filter(|step| (1..=high).contains(step))?))
            }
            None => (part, None),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (low, high),
            (_, Some((first, last))) => (value(first)?, value(last)?),
            // `5/15` begins at 5 and goes on to the end.
            (_, None) => (value(range)?, if step.is_some() { high } else { value(range)? }),
        };
        if first > last {
            return None;
        }
        for number in (first..=last).step_by(step.unwrap_or(1) as usize) {
            bits |= 1u64 << number;
        }
    }
    Some(bits)
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for CronSchedule {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<CronSchedule> for String {
    fn from(schedule: CronSchedule) -> String {
        schedule.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14, a Tuesday, 22:13:20 UTC.
    const NOW: i64 = 1_700_000_000_000;
    /// That midnight before.
    const MIDNIGHT: i64 = NOW - (22 * HOUR_MS + 13 * MINUTE_MS + 20_000);

    fn after(schedule: &str, now: i64) -> i64 {
        schedule.parse::<CronSchedule>().unwrap().next_after(Timestamp(now)).unwrap().0
    }

    #[test]
    fn ticks_are_at_full_minutes_in_utc() {
        assert_eq!(after("* * * * *", NOW), NOW + 40_000);
        assert_eq!(after("*/15 * * * *", NOW), MIDNIGHT + 22 * HOUR_MS + 15 * MINUTE_MS);
        assert_eq!(after("0 3 * * *", NOW), MIDNIGHT + 27 * HOUR_MS);
        assert_eq!(after("5/20 23 * * *", NOW), MIDNIGHT + 23 * HOUR_MS + 5 * MINUTE_MS);
        let at_three = MIDNIGHT + 27 * HOUR_MS;
        assert_eq!(after("0 3 * * *", at_three), at_three + DAY_MS, "a tick is not its own next one");
    }

    #[test]
    fn days_of_week_and_month_count_by_either_when_both_are_given() {
        assert_eq!(after("0 0 * * WED", NOW), MIDNIGHT + DAY_MS);
        assert_eq!(after("0 0 * * sun,7", NOW), MIDNIGHT + 5 * DAY_MS);
        assert_eq!(after("0 0 16 * *", NOW), MIDNIGHT + 2 * DAY_MS);
        assert_eq!(after("0 0 20 * THU", NOW), MIDNIGHT + 2 * DAY_MS, "the Thursday comes first");
        assert_eq!(after("0 0 1 dec *", NOW), MIDNIGHT + 17 * DAY_MS);
    }

    #[test]
    fn the_leap_day_is_found_eight_years_ahead() {
        // 2096-03-01 to 2104-02-29: 2100 has none.
        let march_2096 = 3_981_398_400_000;
        let leap_2104 = 4_233_686_400_000;
        assert_eq!(after("0 0 29 2 *", march_2096), leap_2104);
        assert_eq!(month_and_day(leap_2104 / DAY_MS), (2, 29));
        assert_eq!(month_and_day(-1), (12, 31));
        assert_eq!(month_and_day(0), (1, 1));
    }

    #[test]
    fn what_is_no_schedule_or_never_comes_is_refused() {
        let hostile = "1,".repeat(1_000_000);
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1- * * * *",
            "+1 * * * *",
            "0 0 30 2 *",
            "@daily",
            "99999999999999999999 * * * *",
            &hostile,
        ] {
            assert!(text.parse::<CronSchedule>().is_err(), "{}", text.chars().take(20).collect::<String>());
        }
    }

    #[test]
    fn it_is_stored_as_its_text() {
        let schedule: CronSchedule = " 0  3 * * MON-FRI ".parse().unwrap();
        let stored = serde_json::to_string(&schedule).unwrap();
        assert_eq!(stored, "\"0 3 * * MON-FRI\"");
        assert_eq!(serde_json::from_str::<CronSchedule>(&stored).unwrap(), schedule);
    }
}

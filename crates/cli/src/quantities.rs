//! Times and sizes as people type them.

use trackbed_stdx::clock::now_ms;

use crate::args::RecoverAt;
use crate::human::moment;

/// Reads what `--at` names and returns it as the API takes it: the id of a restore point, `proven`, or milliseconds.
pub(crate) fn parse_at(text: &str) -> Result<String, String> {
    if text == "proven" || text.starts_with("rp_") {
        return Ok(text.to_owned());
    }
    let now = now_ms();
    match parse_time(text, now) {
        Some(at) if at <= now => Ok(at.to_string()),
        Some(at) => Err(format!("{} is in the future", moment(at))),
        None => {
            Err("a restore point such as rp_…, `proven` for the newest that is proven, or a time is wanted, \
                     such as 2026-11-22T08:00:00Z or `2h ago`"
                .to_owned())
        }
    }
}

/// Reads what `recover --at` names: a number of `recover --list`, or a time, in milliseconds since 1970 UTC.
pub(crate) fn parse_recover_at(text: &str) -> Result<RecoverAt, String> {
    let number = text.parse().map(RecoverAt::Number);
    number.ok().or_else(|| parse_time(text, now_ms()).map(RecoverAt::Time)).ok_or_else(|| {
        "a number that `--list` shows, or a time is wanted, such as 2026-11-22T08:00:00Z or `2h ago`"
            .to_owned()
    })
}

/// Reads a time: RFC 3339, or how long ago it was. Returns milliseconds since 1970 UTC.
fn parse_time(text: &str, now_ms: i64) -> Option<i64> {
    let text = text.trim();
    match text.strip_suffix("ago") {
        Some(span) => now_ms.checked_sub(parse_span(span)?),
        None => parse_rfc_3339(text),
    }
}

/// Reads a length of time, such as `2h`, `1 day 30 min`. Returns milliseconds.
fn parse_span(text: &str) -> Option<i64> {
    let (mut rest, mut total, mut parts) = (text.trim(), 0i64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 7 * 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(seconds * 1000)?)?;
        parts += 1;
        rest = rest[letters..].trim_start();
    }
    (parts > 0).then_some(total)
}

/// Reads a moment as RFC 3339 writes it. A moment without an offset is nobody's in particular and is refused.
fn parse_rfc_3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, offset) = time.split_at(offset_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let milli = match fraction {
        "" if time[..offset_at].contains('.') => return None,
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            format!("{digits:0<3}")[..3].parse::<i64>().ok()?
        }
        _ => return None,
    };
    let offset_minutes = match offset.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, rest) if sign == "+" || sign == "-" => {
            let [hours, minutes] = numbers(rest, ':', [2, 2])?;
            let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if sign == "-" { -minutes } else { minutes }
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is taken as the one after it.
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Howard Hinnant, `days_from_civil`; years begin in March here.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    let minutes = (days - 719_468) * 1440 + hour * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + milli)
}

/// Reads numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut read = [0; N];
    for (number, digits) in read.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(read)
}

/// Reads a size, such as `5GB`, `1.5 GB` or `512MiB`. Returns bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = || "a size is wanted, such as 500MB, 5GB or 1.5TB".to_owned();
    let text = text.trim();
    let letters = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text[..letters].trim(), text[letters..].trim().to_ascii_lowercase());
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wanted()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wanted())?;
    let mut bytes = whole.checked_mul(factor).ok_or_else(wanted)?;
    let mut place = factor;
    for digit in fraction.chars() {
        place /= 10;
        bytes += place * u64::from(digit.to_digit(10).ok_or_else(wanted)?);
    }
    if bytes == 0 { Err(wanted()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_293_163_004;

    #[test]
    fn a_time_reads_back_as_it_is_printed() {
        for ms in [0, 951_782_400_123, NOW, 4_102_444_799_999, -1] {
            assert_eq!(parse_time(&moment(ms), NOW), Some(ms), "{}", moment(ms));
        }
    }

    #[test]
    fn a_time_may_have_an_offset_a_fraction_or_a_space() {
        assert_eq!(parse_time("1970-01-01T02:30:00+02:30", NOW), Some(0));
        assert_eq!(parse_time("1969-12-31 19:00:00.5-05:00", NOW), Some(500));
        assert_eq!(parse_time("2000-02-29T00:00:00.123456Z", NOW), Some(951_782_400_123));
    }

    #[test]
    fn a_time_may_say_how_long_ago() {
        let ago = |text| parse_time(text, NOW).map(|at| (NOW - at) / 1000);
        assert_eq!(
            [ago("2h ago"), ago("90 min ago"), ago("1d2h ago")],
            [Some(7200), Some(5400), Some(93_600)]
        );
        assert_eq!([ago("1 week 3 days ago"), ago("0s ago")], [Some(864_000), Some(0)]);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "ago",
            "h ago",
            "2 ago",
            "-2h ago",
            "2h",
            "2 parsecs ago",
            "99999999999999999w ago",
            "2026-11-22",
            "2026-11-22T08:00:00",
            "2026-11-22T08:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T08:00:00.Z",
            "2026-11-22T08:00:00+99:00",
            "é-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(bad, NOW), None, "{bad}");
        }
    }

    #[test]
    fn at_takes_points_and_times_that_have_been() {
        assert_eq!(parse_at("rp_0123456789abcdef").unwrap(), "rp_0123456789abcdef");
        assert_eq!(parse_at("proven").unwrap(), "proven");
        assert_eq!(parse_recover_at("12"), Ok(RecoverAt::Number(12)));
        assert_eq!(parse_recover_at("1970-01-01T00:00:01Z"), Ok(RecoverAt::Time(1000)));
        assert!(parse_recover_at("2h ago").is_ok() && parse_recover_at("rp_0123456789abcdef").is_err());
        assert_eq!(parse_at("1970-01-01T00:00:01Z").unwrap(), "1000");
        assert!(parse_at("2999-01-01T00:00:00Z").unwrap_err().contains("in the future"));
        assert!(parse_at("yesterday").unwrap_err().contains("`2h ago`"));
    }

    #[test]
    fn sizes_are_read_in_thousands_unless_they_say_otherwise() {
        assert_eq!([parse_size("5GB"), parse_size("1.5 gb")], [Ok(5_000_000_000), Ok(1_500_000_000)]);
        assert_eq!([parse_size("512MiB"), parse_size("100")], [Ok(512 << 20), Ok(100)]);
        for bad in ["", "0", "GB", "5 apples", "-1GB", "1.x GB", "99999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}

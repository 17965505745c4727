//! Sizes, times and tables for people.

use trackbed_api::Pause;

/// Returns a size: `512 B`, `1.5 MB`. Powers of 1000, as disks are sold.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            let digits = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    unreachable!("the last unit takes everything")
}

/// Returns how long something took: `0.3 s`, `12 s`, `2 min 5 s`.
pub(crate) fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    match ms / 1000 {
        0..10 => format!("{:.1} s", ms as f64 / 1000.0),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Returns how long ago something was: `just now`, `3 min ago`, `2 days ago`.
pub(crate) fn ago(now_ms: i64, then_ms: i64) -> String {
    match span(now_ms.saturating_sub(then_ms)) {
        Some(span) => format!("{span} ago"),
        None => "just now".to_owned(),
    }
}

/// Returns a rough length of time: `3 min`, `2 days`; none below five seconds.
pub(crate) fn span(ms: i64) -> Option<String> {
    let plural = |count: i64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match ms / 1000 {
        ..5 => None,
        seconds @ 5..60 => Some(format!("{seconds} s")),
        seconds @ 60..3600 => Some(format!("{} min", seconds / 60)),
        seconds @ 3600..86400 => Some(format!("{} h", seconds / 3600)),
        seconds => Some(plural(seconds / 86400, "day")),
    }
}

/// Returns how long something is still kept, in whole hours: `48 h`.
pub(crate) fn hours(ms: i64) -> String {
    const HOUR: i64 = 3_600_000;
    format!("{} h", ms.max(0).saturating_add(HOUR / 2) / HOUR)
}

/// Returns a moment as RFC 3339 in UTC with milliseconds.
pub(crate) fn moment(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days to a date: Howard Hinnant, `civil_from_days`; years begin in March here.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Returns a number and its noun: `1 request`, `2 requests`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns what callers saw of a handover: `callers waited at most 1.2 s, 14 requests, none refused`.
pub(crate) fn pause(pause: &Pause) -> String {
    let requests = match pause.requests {
        0 => return "no caller had to wait".to_owned(),
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    };
    let refused = match pause.refused {
        0 => "none refused".to_owned(),
        count => format!("{count} refused"),
    };
    format!("callers waited at most {}, {requests}, {refused}", wait(pause.longest_ms))
}

/// The same for a column of a table: `1.2 s (14)`, and `1.2 s (14, 3 refused)`.
pub(crate) fn pause_cell(pause: &Pause) -> String {
    match (pause.requests, pause.refused) {
        (0, _) => "none".to_owned(),
        (count, 0) => format!("{} ({count})", wait(pause.longest_ms)),
        (count, refused) => format!("{} ({count}, {refused} refused)", wait(pause.longest_ms)),
    }
}

fn wait(ms: u64) -> String {
    duration(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Lays rows out in columns, two spaces between them; the first row is the head.
pub(crate) fn table<R: AsRef<[String]>>(rows: &[R]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.as_ref().iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &R| {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Makes text from elsewhere safe for a terminal: control characters but tabs are shown, not obeyed.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Returns the first line of a reason, without the colon that leads to the others.
pub(crate) fn headline(reason: &str) -> String {
    plain(reason.lines().next().unwrap_or_default().trim_end().trim_end_matches(':'))
}

/// As [`plain`], but colours stay: an app's log may be coloured, and must not move the cursor, rename the window or
/// write to the clipboard.
pub(crate) fn coloured(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\u{1b}') {
        shown.push_str(&plain(&rest[..start]));
        rest = &rest[start..];
        let body = rest.strip_prefix("\u{1b}[").unwrap_or_default();
        let digits = body.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(body.len());
        let length = if body[digits..].starts_with('m') { 2 + digits + 1 } else { 1 };
        let sequence = &rest[..length];
        shown.push_str(&if length > 1 { sequence.to_owned() } else { plain(sequence) });
        rest = &rest[length..];
    }
    shown.push_str(&plain(rest));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_may_have_colours_and_nothing_else() {
        assert_eq!(coloured("\u{1b}[31mred\u{1b}[0m\tä"), "\u{1b}[31mred\u{1b}[0m\tä");
        assert_eq!(coloured("\u{1b}[2Jx\u{1b}]0;t\u{7}"), "\\u{1b}[2Jx\\u{1b}]0;t\\u{7}");
        assert_eq!(coloured("\u{1b}["), "\\u{1b}[");
        assert_eq!(coloured("\u{1b}"), "\\u{1b}");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(0), size(999), size(1500)], ["0 B", "999 B", "1.5 kB"]);
        assert_eq!([size(999_600), size(48_300_000)], ["1.0 MB", "48 MB"]);
        assert_eq!(size(u64::MAX), "18446744 TB");
    }

    #[test]
    fn times_are_rough() {
        assert_eq!([duration(1234), duration(12_345), duration(125_000)], ["1.2 s", "12 s", "2 min 5 s"]);
        assert_eq!(duration(-5), "0.0 s");
        assert_eq!(
            [ago(1000, 5000), ago(200_000, 0), ago(200_000_000, 0)],
            ["just now", "3 min ago", "2 days ago"]
        );
    }

    #[test]
    fn moments_are_rfc_3339() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(moment(1_795_293_163_004), "2026-11-21T20:32:43.004Z");
    }

    #[test]
    fn a_pause_is_a_sentence_or_a_cell() {
        let seen = |requests, refused| Pause { longest_ms: 1234, requests, refused };
        assert_eq!(pause(&seen(14, 0)), "callers waited at most 1.2 s, 14 requests, none refused");
        assert_eq!(pause(&seen(1, 1)), "callers waited at most 1.2 s, 1 request, 1 refused");
        assert_eq!(pause(&seen(0, 0)), "no caller had to wait");
        assert_eq!(pause_cell(&seen(14, 0)), "1.2 s (14)");
        assert_eq!(pause_cell(&seen(14, 3)), "1.2 s (14, 3 refused)");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("NAME", "SIZE"), row("é", "1")]), ["NAME  SIZE", "é     1"]);
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(plain("a\x1b[2Jb\tc"), "a\\u{1b}[2Jb\tc");
    }
}

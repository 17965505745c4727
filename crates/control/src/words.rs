//! Figures in words, for events and failures.

use trackbed_core::restore_point::{Capture, Difference};

/// Returns `1 file` or `3 files`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Returns a size as people read it: `1.2 MB`. Thousands, as disks are sold.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "two figures are read")]
    let mut scaled = size as f64 / 1000.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Returns what was captured: `3 files, 1.2 MB`.
pub(crate) fn captured(capture: &Capture) -> String {
    format!("{}, {}", count(capture.files, "file"), bytes(capture.bytes))
}

/// Returns what a volume has that a point does not: `3 files and 120 rows`; none when nothing.
pub(crate) fn newer(difference: &Difference) -> Option<String> {
    let files = difference.added + difference.changed;
    let more = |table: &trackbed_core::restore_point::TableDifference| {
        table.rows_now.unwrap_or_default().saturating_sub(table.rows_then.unwrap_or_default())
    };
    let rows: u64 = difference.tables.iter().map(more).sum();
    match (files, rows) {
        (0, 0) => None,
        (files, 0) => Some(count(files, "file")),
        (0, rows) => Some(count(rows, "row")),
        (files, rows) => Some(format!("{} and {}", count(files, "file"), count(rows, "row"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_two_figures() {
        assert_eq!(
            [0, 999, 1000, 1_234_567, 999_950, 7_300_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.2 MB", "1.0 MB", "7.3 GB"]
        );
    }

    #[test]
    fn what_is_newer_is_counted_in_files_and_rows() {
        let difference = Difference { added: 1, changed: 2, ..Difference::default() };
        assert_eq!(newer(&difference).unwrap(), "3 files");
        assert_eq!(newer(&Difference { missing: 4, ..Difference::default() }), None);
    }
}

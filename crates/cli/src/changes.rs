//! How data differs from a restore point, in words: what going back sets aside, and what it brings back.

use trackbed_api::{Changes, Deployment, Difference};

use crate::human::{count, plain, table};

/// Says what going back to a point sets aside: `12 rows and 3 files`.
pub(crate) fn set_aside(changes: &Changes) -> String {
    let rows = changes.tables.iter().map(|table| newer(table.rows_now, table.rows_then)).sum();
    let files = changes.added + changes.changed;
    match (rows, files) {
        (0, 0) => "nothing".to_owned(),
        (0, files) => count(files, "file"),
        (rows, 0) => count(rows, "row"),
        (rows, files) => format!("{} and {}", count(rows, "row"), count(files, "file")),
    }
}

/// Returns whether nothing differs.
pub(crate) fn is_none(changes: &Changes) -> bool {
    changes.added + changes.changed + changes.missing == 0 && changes.tables.is_empty()
}

/// Shows what going back to a point would change: a headline, tables with their rows, and some paths.
pub(crate) fn lines(difference: &Difference) -> Vec<String> {
    let (point, changes) = (&difference.point, &difference.changes);
    let volume = &point.volume;
    if is_none(changes) {
        return vec![format!("volume {volume} holds what {} holds", point.id)];
    }
    let mut lines = vec![format!(
        "volume {volume}, back to {}: {} newer, set aside; {} brought back",
        point.id,
        set_aside(changes),
        count(changes.missing, "file"),
    )];
    if !changes.tables.is_empty() {
        let head = ["DATABASE", "TABLE", "ROWS NOW", "ROWS THEN"].map(str::to_owned);
        let rows = |rows: Option<u64>| rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
        let body = changes.tables.iter().map(|table| {
            let (now, then) = (rows(table.rows_now), rows(table.rows_then));
            [plain(&table.database), plain(&table.table), now, then]
        });
        let all: Vec<_> = std::iter::once(head).chain(body).collect();
        lines.extend(table(&all).into_iter().map(|line| format!("  {line}")));
    }
    lines.extend(changes.paths.iter().map(|path| format!("  {}", plain(path))));
    let files = changes.added + changes.changed + changes.missing;
    let shown = u64::try_from(changes.paths.len()).unwrap_or(u64::MAX);
    if files > shown && shown > 0 {
        lines.push(format!("  … and {}", count(files - shown, "more file")));
    }
    lines
}

/// Says what a deployment took out of the volumes and where that is kept.
pub(crate) fn of_deployment(deployment: &Deployment) -> Vec<String> {
    let one = |replaced: &trackbed_api::ReplacedData| {
        let (volume, changes) = (&replaced.volume, &replaced.changes);
        let point = deployment.restores.iter().find(|restored| restored.volume == *volume);
        let point = point.map_or_else(String::new, |restored| format!(" than {}", restored.point));
        let kept = replaced.kept_in.as_ref().map_or_else(String::new, |kept| {
            format!(", kept in {kept}; to have it back: trackbed volume restore {volume} --at {kept}")
        });
        format!("volume {volume}: {} newer{point} set aside{kept}", set_aside(changes))
    };
    deployment.replaced.iter().map(one).collect()
}

/// Rows that are there now and were not then. A table that only one side has counts as empty on the other.
fn newer(now: Option<u64>, then: Option<u64>) -> u64 {
    now.unwrap_or(0).saturating_sub(then.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use trackbed_api::TableDifference;

    use super::*;

    fn table(rows_now: Option<u64>, rows_then: Option<u64>) -> TableDifference {
        TableDifference { database: "app.db".to_owned(), table: "t".to_owned(), rows_now, rows_then }
    }

    #[test]
    fn rows_and_files_that_are_newer_are_counted() {
        let tables = vec![
            table(Some(12), Some(2)),
            table(Some(1), Some(5)),
            table(None, Some(3)),
            table(Some(2), None),
        ];
        let changes = Changes { added: 2, changed: 1, missing: 7, paths: Vec::new(), tables };
        assert_eq!(set_aside(&changes), "12 rows and 3 files");
        assert_eq!(set_aside(&Changes { added: 1, ..Changes::default() }), "1 file");
        assert_eq!(set_aside(&Changes { tables: vec![table(Some(1), None)], ..Changes::default() }), "1 row");
        assert_eq!(set_aside(&Changes { missing: 3, ..Changes::default() }), "nothing");
    }
}

//! `trackbed recover --list`: the copies that a target holds.

use anyhow::Result;
use trackbed_api::BackupCopy;
use trackbed_stdx::clock::now_ms;

use crate::args::Listing;
use crate::human::{ago, moment, size, table};
use crate::output::Output;

/// Prints the copies that were found at a target, newest first.
///
/// # Errors
/// When standard output is gone.
pub fn show_copies(copies: &[BackupCopy], listing: Listing) -> Result<()> {
    print(&Output::of_process(), copies, listing, now_ms())
}

fn print(output: &Output, copies: &[BackupCopy], listing: Listing, now: i64) -> Result<()> {
    if listing == Listing::Json {
        return Ok(output.json_pretty(&copies)?);
    }
    let mut rows = vec![["NUMBER", "TAKEN", "AGE", "OBJECTS", "SIZE", "POINTS", "STATE"].map(str::to_owned)];
    rows.extend(copies.iter().map(|copy| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        [
            known(copy.number.map(|number| number.to_string())),
            known(copy.taken_at.map(moment)),
            known(copy.taken_at.map(|at| ago(now, at))),
            copy.objects.to_string(),
            size(copy.bytes),
            copy.points.to_string(),
            if copy.faults.is_empty() { "whole".to_owned() } else { copy.faults.join(", ") },
        ]
    }));
    for line in table(&rows) {
        output.result(line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fake::Buffer;

    #[test]
    fn a_list_says_of_each_whether_it_is_whole() {
        let whole = BackupCopy {
            number: Some(7),
            taken_at: Some(1_000),
            objects: 3,
            bytes: 2_000_000,
            points: 2,
            ..BackupCopy::default()
        };
        let broken = BackupCopy {
            faults: vec!["head.age is damaged: header is invalid".into()],
            ..BackupCopy::default()
        };
        let (result, talk) = (Buffer::default(), Buffer::default());
        let output = Output::to(result.clone(), talk);
        print(&output, &[broken, whole], Listing::Table, 61_000).unwrap();
        let text = result.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with('?') && lines[1].ends_with("header is invalid"), "{text}");
        assert!(lines[2].starts_with("7 ") && lines[2].ends_with("whole"), "{text}");
    }
}

//! Raw rows, kept as a file, and what is made of them: medians, and ratios to a peer of the same round.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use super::spread;
use crate::shell::target_dir;

/// A file of tab-separated rows below `target/bench/`, one per measurement, written as they come.
pub(super) struct Rows {
    file: File,
    pub(super) path: PathBuf,
}

impl Rows {
    /// Begins a new file; an earlier run's stays.
    pub(super) fn create(name: &str, columns: &str) -> Result<Rows> {
        let folder = target_dir().join("bench");
        std::fs::create_dir_all(&folder)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let path = folder.join(format!("{name}-{now}.tsv"));
        let mut rows = Rows { file: File::create(&path)?, path };
        writeln!(rows.file, "# {}", crate::install::machine())?;
        rows.add(columns)?;
        Ok(rows)
    }

    /// Adds one row, columns separated by `\t`.
    pub(super) fn add(&mut self, row: &str) -> Result<()> {
        Ok(writeln!(self.file, "{row}")?)
    }
}

/// One figure of several contestants, round by round.
#[derive(Default)]
pub(super) struct Series {
    values: Vec<(String, Vec<f64>)>,
}

impl Series {
    /// Adds the figure of the next round.
    pub(super) fn push(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.values.push((name, vec![value])),
        }
    }

    /// Returns all figures of one contestant.
    pub(super) fn of(&self, name: &str) -> &[f64] {
        self.values.iter().find(|(known, _)| *known == name).map_or(&[], |(_, values)| values)
    }

    /// Writes `median [min-max]`.
    pub(super) fn spread(&self, name: &str, digits: usize) -> String {
        spread(self.of(name), digits)
    }

    /// Writes `median [min-max]` of the ratios to a peer, each pair from one round.
    pub(super) fn ratio(&self, name: &str, peer: &str) -> String {
        let pairs = self.of(name).iter().zip(self.of(peer));
        spread(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>(), 2)
    }
}

/// Turns a list so that each round begins with another one: no contestant has always the same neighbour in time.
pub(super) fn rotated<T: Copy>(all: &[T], round: usize) -> Vec<T> {
    let mut turned = all.to_vec();
    turned.rotate_left(round % all.len().max(1));
    turned
}

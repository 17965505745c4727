//! The only place that reads what is typed: answers to questions, and lines of a console.

use std::cell::RefCell;
use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context, Result};

use crate::output::{Ink, Output};

/// Longest line in bytes: a statement that is longer belongs into a program.
const LINE_MAX_BYTES: u64 = 16 << 20;

/// Where a command reads.
pub(crate) struct Input {
    lines: RefCell<Box<dyn BufRead>>,
    /// Whether somebody types.
    pub(crate) is_typed: bool,
}

impl Input {
    /// Reads the standard input of this process.
    pub(crate) fn of_process() -> Self {
        let input = io::stdin();
        Self { is_typed: input.is_terminal(), lines: RefCell::new(Box::new(io::BufReader::new(input))) }
    }

    /// Reads a text that nobody types.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self { lines: RefCell::new(Box::new(io::Cursor::new(text.as_bytes().to_vec()))), is_typed: false }
    }

    /// Returns the next line with its end, or none after the last.
    pub(crate) fn line(&self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let mut lines = self.lines.borrow_mut();
        let read = lines.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line);
        read.context("cannot read standard input")?;
        if line.is_empty() {
            return Ok(None);
        }
        String::from_utf8(line).map(Some).context("standard input is no UTF-8 text")
    }

    /// Asks whether to go on; yes only when somebody types it. Ask only where [`Input::can_ask`].
    pub(crate) fn confirms(&self, output: &Output, question: &str) -> Result<bool> {
        output.prompt(&format!("{} {question} [y/N] ", output.ink_talk(Ink::Odd, "?")));
        let answer = self.line()?.unwrap_or_default();
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Returns whether somebody is there to see a question and to answer it.
    pub(crate) fn can_ask(&self, output: &Output) -> bool {
        self.is_typed && output.talk_is_seen
    }
}

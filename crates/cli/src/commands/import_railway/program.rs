//! The owner's own `railway` program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::human::plain;
use crate::session::Refusal;

/// How long a question to Railway may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of an answer at most.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// Lines of a complaint that are shown.
const COMPLAINT_LINES: usize = 3;

/// The program, and the folder that it is linked in.
pub(super) struct Railway<'a> {
    pub(super) program: &'a Path,
    pub(super) folder: &'a Path,
}

impl Railway<'_> {
    /// Runs the program and returns what it printed.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.ask_within(arguments, ANSWER_LIMIT).await
    }

    /// Runs the program for so long at most and returns what it printed. Dropping this ends the program.
    pub(super) async fn ask_within(&self, arguments: &[&str], limit: Duration) -> Result<String> {
        let shown = format!("railway {}", arguments.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        let mut command = Command::new(self.program);
        command.args(arguments).current_dir(self.folder).stdin(Stdio::null()).kill_on_drop(true);
        let ended = match tokio::time::timeout(limit, command.output()).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Refusal::with_hint(
                    format!("the railway program `{}` is not installed", self.program.display()),
                    "install it (docs.railway.com/cli), log in by `railway login`, and import again",
                ));
            }
            Ok(Err(error)) => return Err(error).with_context(|| format!("cannot run `{shown}`")),
            Err(_) => anyhow::bail!("`{shown}` gave no answer within {} s", limit.as_secs()),
        };
        if !ended.status.success() {
            // It may quote nothing but its own complaint; values are only in what it prints when it does well.
            let said = complaint(&String::from_utf8_lossy(&ended.stderr));
            let hint = "are you logged in (`railway login`), and are project, environment and service right?";
            return Err(Refusal::with_hint(format!("`{shown}` failed: {}", plain(&said)), hint));
        }
        anyhow::ensure!(ended.stdout.len() <= ANSWER_MAX_BYTES, "`{shown}` printed more than 16 MiB");
        String::from_utf8(ended.stdout).map_err(|_| anyhow::anyhow!("`{shown}` printed no UTF-8 text"))
    }
}

/// Returns the last lines of what the program said, without the choices that it repeats and without a backtrace.
fn complaint(said: &str) -> String {
    let lines = said.lines().map(str::trim).take_while(|line| *line != "Stack backtrace:");
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("> ")).collect();
    match lines.len() {
        0 => "no word about why".to_owned(),
        count => lines[count.saturating_sub(COMPLAINT_LINES)..].join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_what_is_said_last_without_choices_and_backtraces() {
        let said = "> Select a project shop\nService \"x\" not found.\nAvailable: api, Postgres\n\nStack backtrace:\n   0: anyhow";
        assert_eq!(complaint(said), "Service \"x\" not found. Available: api, Postgres");
        assert_eq!(complaint("\n"), "no word about why");
    }
}

//! Asking a process to look, and its end whatever it does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use trackbed_core::restore_point::DatabaseContent;
use trackbed_core::schema::DatabaseSchema;
use trackbed_stdx::program;

use super::schema::SCHEMA_TIME;
use super::wire::{Answer, Inspected, Line, QueryLimits, QueryMode, Request};
use super::{Priority, ROLE};

/// How long the process may take to begin, and beyond the limits that it sets itself, until it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// Bytes of a line: the content of a database with many tables.
const LINE_MAX: u64 = 64 << 20;
/// Databases of a folder at which the process may die; more is a fault of the box.
const DEATHS_MAX: usize = 16;

/// Why a look gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The process cannot be started or has been ended.
    #[error("cannot look into databases: {0}")]
    Box(String),
    /// What it was asked for cannot be done.
    #[error("{0}")]
    Refused(String),
}

/// Looks into databases by a process of its own for each question. All methods may be dropped at any moment; the process
/// is killed then.
#[derive(Debug, Clone)]
pub struct Inspector {
    program: PathBuf,
}

impl Default for Inspector {
    /// By the program that runs, which must know [`ROLE`].
    fn default() -> Self {
        Self::by(program::OWN)
    }
}

impl Inspector {
    /// By another program that knows [`ROLE`].
    pub fn by(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Returns what each database below a folder holds, by path. The folder is a copy that nobody uses. A database that
    /// cannot be read is told as such, also when it makes the process die.
    ///
    /// # Errors
    /// When the process cannot be started, or is ended again and again.
    pub async fn content(
        &self,
        folder: &Path,
        skip: &[String],
        priority: Priority,
    ) -> Result<Vec<Inspected>, LookError> {
        let mut skip = skip.to_vec();
        let mut found: Vec<Inspected> = Vec::new();
        for _ in 0..DEATHS_MAX {
            let low_priority = priority == Priority::Low;
            let request = Request { skip: skip.clone(), low_priority, ..Request::default() };
            let mut look = self.begin(&["content".as_ref(), folder.as_os_str()], &request).await?;
            let (mut at, mut limit) = (None::<String>, GRACE);
            let died = loop {
                match look.line(limit).await {
                    Ok(Line::Begins { path, limit_ms }) => {
                        at = Some(path);
                        limit = Duration::from_millis(limit_ms).saturating_add(GRACE);
                    }
                    Ok(Line::Found(inspected)) => {
                        skip.push(inspected.content.path.clone());
                        found.push(*inspected);
                        (at, limit) = (None, GRACE);
                    }
                    Ok(Line::Done) => {
                        look.end().await;
                        found.sort_by(|a, b| a.content.path.cmp(&b.content.path));
                        return Ok(found);
                    }
                    Ok(Line::Failed { reason }) => return Err(LookError::Refused(reason)),
                    Ok(Line::Answer(_) | Line::Schema(_)) => {
                        return Err(LookError::Box("it answers what nobody asked".into()));
                    }
                    Err(reason) => break reason,
                }
            };
            look.end().await;
            let Some(path) = at else { return Err(LookError::Box(died)) };
            skip.push(path.clone());
            found.push(dead(path, &died));
        }
        Err(LookError::Box(format!("it was ended at {DEATHS_MAX} databases")))
    }

    /// Returns what each database below a folder looks like, by path. The folder is a copy that nobody uses.
    ///
    /// # Errors
    /// When the process cannot be started, or is ended: by a database that makes it die, too.
    pub async fn schemas(&self, folder: &Path) -> Result<Vec<DatabaseSchema>, LookError> {
        let mut look = self.begin(&["schema".as_ref(), folder.as_os_str()], &Request::default()).await?;
        let mut found = Vec::new();
        let end = loop {
            match look.line(SCHEMA_TIME.saturating_add(GRACE)).await {
                Ok(Line::Schema(schema)) => found.push(*schema),
                Ok(Line::Done) => break Ok(found),
                Ok(Line::Failed { reason }) => break Err(LookError::Refused(reason)),
                Ok(_) => break Err(LookError::Box("it says what nobody asked".into())),
                Err(reason) => break Err(LookError::Box(reason)),
            }
        };
        look.end().await;
        end
    }

    /// Runs one statement on a database below a folder: reading, on a copy that nobody uses; writing, also on a live one.
    ///
    /// # Errors
    /// When the statement fails, is not allowed, or takes too long.
    pub async fn query(
        &self,
        folder: &Path,
        database: &str,
        sql: &str,
        limits: QueryLimits,
        mode: QueryMode,
    ) -> Result<Answer, LookError> {
        let request = Request { sql: sql.to_owned(), limits, mode, ..Request::default() };
        let arguments = ["query".as_ref(), folder.as_os_str(), OsStr::new(database)];
        let mut look = self.begin(&arguments, &request).await?;
        let line = look.line(limits.time.saturating_add(GRACE)).await;
        look.end().await;
        match line.map_err(LookError::Box)? {
            Line::Answer(answer) => Ok(answer),
            Line::Failed { reason } => Err(LookError::Refused(reason)),
            _ => Err(LookError::Box("it gives no answer".into())),
        }
    }

    /// Copies a live database by SQLite's online backup into a new file: one instant, all in one go. `patience` bounds the
    /// wait for locks, `limit` the whole.
    ///
    /// # Errors
    /// When the database cannot be read, stays locked, or the disk refuses. What is written of the copy is worthless then.
    pub async fn backup(
        &self,
        from: &Path,
        to: &Path,
        patience: Duration,
        limit: Duration,
    ) -> Result<(), LookError> {
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let request = Request { patience_ms, ..Request::default() };
        let mut look = self.begin(&["backup".as_ref(), from.as_os_str(), to.as_os_str()], &request).await?;
        let line = look.line(limit).await;
        look.end().await;
        match line.map_err(LookError::Box)? {
            Line::Done => Ok(()),
            Line::Failed { reason } => Err(LookError::Refused(reason)),
            _ => Err(LookError::Box("it says what nobody asked".into())),
        }
    }

    async fn begin(&self, arguments: &[&OsStr], request: &Request) -> Result<Look, LookError> {
        let failed = |error: std::io::Error| LookError::Box(format!("{}: {error}", self.program.display()));
        let mut command = Command::new(&self.program);
        command.arg(ROLE).args(arguments).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(LookError::Box("it has no pipes".into()));
        };
        let mut line = serde_json::to_vec(request).map_err(|error| LookError::Box(error.to_string()))?;
        line.push(b'\n');
        timeout(GRACE, input.write_all(&line))
            .await
            .map_err(|_| LookError::Box("it does not read".into()))?
            .map_err(failed)?;
        Ok(Look { child, output: BufReader::new(output), _input: input })
    }
}

fn dead(path: String, why: &str) -> Inspected {
    let content = DatabaseContent {
        path,
        journal_mode: "unknown".into(),
        sqlite_version: None,
        tables: Vec::new(),
        unreadable: Some(format!("the process that looked into it has ended: {why}")),
    };
    Inspected { content, damage: Vec::new(), is_limited: true }
}

/// A process that looks.
struct Look {
    child: Child,
    output: BufReader<ChildStdout>,
    /// It ends when this does.
    _input: ChildStdin,
}

impl Look {
    /// Returns the next line, or why there is none.
    async fn line(&mut self, limit: Duration) -> Result<Line, String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.output).take(LINE_MAX);
        match timeout(limit, bounded.read_until(b'\n', &mut line)).await {
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(_)) if line.last() == Some(&b'\n') => serde_json::from_slice(&line)
                .map_err(|error| format!("it does not speak our language: {error}")),
            Ok(Ok(_)) => match timeout(GRACE, self.child.wait()).await {
                Ok(Ok(status)) => Err(status.to_string()),
                _ => Err("it has closed its output".into()),
            },
        }
    }

    /// Ends the process and waits until it is gone.
    async fn end(mut self) {
        let _ = self.child.start_kill();
        let _ = timeout(GRACE, self.child.wait()).await;
    }
}

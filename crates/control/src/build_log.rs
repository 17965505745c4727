//! What a build says, kept with its deployment: `<data dir>/deployments/<id>/build.log`, one line a record.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use trackbed_core::instance::{LogLine, LogStream};
use trackbed_core::ports::BuildLog;
use trackbed_core::{DeploymentId, Timestamp};
use trackbed_stdx::files;

use crate::control::{Control, ControlError};

/// Largest build log. A build that says more goes on, unheard.
const SIZE_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Lines kept in memory for quoting.
const TAIL_KEPT: usize = 50;
/// Lines in one page.
const PAGE_LINES: usize = 1000;

pub(crate) struct BuildLogFile {
    clock: fn() -> Timestamp,
    state: Mutex<State>,
}

struct State {
    file: File,
    size_bytes: u64,
    tail: Vec<String>,
}

/// Some lines of a build log and where to go on.
#[derive(Debug)]
pub struct LogFilePage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Byte offset of the next page.
    pub next: u64,
}

fn path_of(data_dir: &Path, deployment: &DeploymentId) -> PathBuf {
    data_dir.join("deployments").join(deployment.as_str()).join("build.log")
}

/// Removes the logs of all deployments but these.
pub(crate) async fn remove_build_logs(
    data_dir: &Path,
    kept: HashSet<DeploymentId>,
) -> Result<(), ControlError> {
    let folder = data_dir.join("deployments");
    let path = folder.clone();
    let remove = move || {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            // What is not named by a deployment is not ours to remove.
            let Some(id) = name.to_str().and_then(|name| name.parse::<DeploymentId>().ok()) else { continue };
            if !kept.contains(&id) {
                files::remove_tree(&folder.join(name))?;
            }
        }
        Ok(())
    };
    let removed = tokio::task::spawn_blocking(remove).await;
    let removed = removed.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    removed.map_err(|source| ControlError::File { path, source })
}

impl BuildLogFile {
    /// Opens the log of a deployment for adding; a build that is repeated after a crash goes on in the same file.
    pub(crate) fn create(
        data_dir: &Path,
        deployment: &DeploymentId,
        clock: fn() -> Timestamp,
    ) -> Result<Self, ControlError> {
        let path = path_of(data_dir, deployment);
        let fail = |source| ControlError::File { path: path.clone(), source };
        std::fs::create_dir_all(path.parent().unwrap_or(data_dir)).map_err(fail)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        let size_bytes = file.metadata().map_err(fail)?.len();
        Ok(Self { clock, state: Mutex::new(State { file, size_bytes, tail: Vec::new() }) })
    }

    /// Returns the last lines.
    pub(crate) fn tail(&self, lines: usize) -> Vec<String> {
        let state = self.state.lock().expect("no holder of this lock panics");
        state.tail.iter().rev().take(lines).rev().cloned().collect()
    }
}

impl BuildLog for BuildLogFile {
    fn line(&self, stream: LogStream, text: &str) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let record = LogLine { at: (self.clock)(), stream, process: None, text: text.to_owned() };
        let Ok(mut json) = serde_json::to_string(&record) else { return };
        json.push('\n');
        if state.size_bytes + json.len() as u64 <= SIZE_MAX_BYTES
            && state.file.write_all(json.as_bytes()).is_ok()
        {
            state.size_bytes += json.len() as u64;
        }
        if state.tail.len() == TAIL_KEPT {
            state.tail.remove(0);
        }
        state.tail.push(text.to_owned());
    }
}

impl Control {
    /// Returns lines of a deployment's build log from a byte offset on. A log that was never begun is empty.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn build_log(&self, deployment: &DeploymentId, from: u64) -> Result<LogFilePage, ControlError> {
        let path = path_of(&self.inner.config.data_dir, deployment);
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || read_page(&path, from)
        });
        read.await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|source| ControlError::File { path, source })
    }
}

fn read_page(path: &Path, from: u64) -> std::io::Result<LogFilePage> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(LogFilePage { lines: Vec::new(), next: 0 });
        }
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let (mut lines, mut next, mut record) = (Vec::new(), from, String::new());
    while lines.len() < PAGE_LINES {
        record.clear();
        let length = reader.read_line(&mut record)?;
        // A line without its end is still being written.
        if length == 0 || !record.ends_with('\n') {
            break;
        }
        next += length as u64;
        lines.extend(serde_json::from_str::<LogLine>(&record));
    }
    Ok(LogFilePage { lines, next })
}

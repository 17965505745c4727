//! Keeps one edge process alive: adopts the one that runs, starts one when there is none, and tells it the routes again
//! after it was away. The edge is never a part of `serve`: it goes on when `serve` ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;
use trackbed_control::Control;
use trackbed_core::ports::Edge;
use trackbed_core::route::EdgeStats;
use trackbed_edge::EdgeClient;
use trackbed_stdx::tasks::Tasks;

/// How long a fresh edge may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Time between looks at the edge.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What an edge is started with.
#[derive(Debug, Clone)]
pub(crate) struct EdgePlace {
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) listen: String,
}

/// Returns the running edge's counters, having started one when none answered.
///
/// # Errors
/// When it does not start; the end of its log says why.
pub(crate) async fn ensure(place: &EdgePlace, client: &EdgeClient) -> anyhow::Result<EdgeStats> {
    if let Ok(stats) = client.stats().await {
        return Ok(stats);
    }
    let log = place.data_dir.join("edge.log");
    let log_file =
        std::fs::OpenOptions::new().create(true).append(true).open(&log).context("cannot open edge.log")?;
    let log_begin = log_file.metadata().map_or(0, |metadata| metadata.len());
    let mut child = Command::new(&place.binary)
        .arg("edge")
        .arg(&place.data_dir)
        .arg(&place.listen)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .with_context(|| format!("cannot start the edge from {}", place.binary.display()))?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(stats) = client.stats().await {
            reap_later(child);
            return Ok(stats);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the edge did not start ({status}): {}", last_line(&log, log_begin));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "the edge did not answer within {} s: {}",
                START_LIMIT.as_secs(),
                last_line(&log, log_begin)
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for the child in a thread of its own, so that it never stays behind as a zombie. The thread ends with it.
fn reap_later(mut child: std::process::Child) {
    let _ = std::thread::Builder::new()
        .name("edge-reaper".into())
        .stack_size(64 * 1024)
        .spawn(move || child.wait());
}

fn last_line(log: &Path, begin: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let begin = usize::try_from(begin).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[begin..]).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

/// Looks after the edge for as long as `serve` runs.
pub(crate) fn keep(tasks: &Tasks, place: EdgePlace, client: Arc<EdgeClient>, control: Control) {
    let mut shutdown = tasks.shutdown();
    tasks.spawn("edge keeper", async move {
        let mut known = 0;
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            match ensure(&place, &client).await {
                Ok(stats) => {
                    if stats.pid != known
                        && let Err(error) = control.sync_routes().await
                    {
                        tracing::warn!(%error, "the edge did not take the routes yet");
                        continue;
                    }
                    known = stats.pid;
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "there is no edge"),
            }
        }
    });
}

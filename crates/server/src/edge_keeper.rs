//! Keeps one edge process alive: adopts the one that runs, starts one when there is none, replaces one that runs another
//! program, and tells it the routes again after it was away. The edge is never a part of `serve`: it goes on when `serve`
//! ends.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;
use trackbed_control::Control;
use trackbed_core::route::EdgeStats;
use trackbed_edge::EdgeClient;
use trackbed_stdx::tasks::Tasks;
use trackbed_stdx::{paths, program};

/// How long a fresh edge may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Time between looks at the edge.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time between looks at an edge that is just starting.
const START_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Time between attempts to replace an edge that keeps its place, or is too old to give it away.
const UPGRADE_PAUSE: Duration = Duration::from_secs(60);
/// How long systemd may take to reload the edge's unit. Starting a successor takes far less.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// What an edge is started with.
#[derive(Debug, Clone)]
pub(crate) struct EdgePlace {
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) listen: String,
    /// The systemd unit that runs the edge; none means that we do.
    pub(crate) unit: Option<String>,
}

/// Whether an edge takes a free place or that of another.
#[derive(Debug, Clone, Copy)]
enum Entrance {
    Free,
    TakeOver,
}

/// Where an edge writes its log.
#[derive(Debug, Clone, Copy)]
enum Log {
    /// `edge.log` in the data directory.
    File,
    /// Wherever we write ours.
    Ours,
}

/// Returns the running edge's counters, having started one when none answered.
///
/// # Errors
/// When it does not start; the end of its log says why.
pub(crate) async fn ensure(place: &EdgePlace, client: &EdgeClient) -> anyhow::Result<EdgeStats> {
    if let Ok(stats) = client.identify().await {
        return Ok(stats);
    }
    match &place.unit {
        None => start(place, client, Entrance::Free, Log::File).await,
        Some(unit) => {
            systemctl("start", unit).await?;
            let deadline = Instant::now() + START_LIMIT;
            loop {
                match client.identify().await {
                    Ok(stats) => return Ok(stats),
                    Err(error) if Instant::now() >= deadline => {
                        bail!(
                            "the edge of {unit} does not answer ({error}); `journalctl -u {unit}` says why"
                        );
                    }
                    Err(_) => tokio::time::sleep(START_LOOK_INTERVAL).await,
                }
            }
        }
    }
}

/// Puts an edge of the program at `binary` in the place of the one that runs on a data directory, without losing a
/// connection; starts one when none runs. This is what `systemctl reload` of the edge's unit does.
///
/// # Errors
/// When the running edge keeps its place, or the new one does not start: then nothing has changed.
pub async fn reload_edge(binary: PathBuf, data_dir: PathBuf, listen: String) -> anyhow::Result<()> {
    let socket = paths::ensure_run_dir(&data_dir)?.join("edge.sock");
    let client = EdgeClient::new(socket.clone());
    let place = EdgePlace { binary, data_dir, socket, listen, unit: None };
    start(&place, &client, Entrance::TakeOver, Log::Ours).await.map(|_| ())
}

/// Starts an edge and waits until it is the one that answers.
async fn start(
    place: &EdgePlace,
    client: &EdgeClient,
    entrance: Entrance,
    log: Log,
) -> anyhow::Result<EdgeStats> {
    let path = place.data_dir.join("edge.log");
    let (errors, log_begin) = match log {
        Log::File => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let file = file.context("cannot open edge.log")?;
            let begin = file.metadata().map_or(0, |metadata| metadata.len());
            (Stdio::from(file), Some(begin))
        }
        Log::Ours => (Stdio::inherit(), None),
    };
    let words = || log_begin.map_or("see its log".to_owned(), |begin| last_line(&path, begin));
    let mut command = Command::new(own_program(&place.binary));
    command.arg0(&place.binary).arg("edge").arg(&place.data_dir).arg(&place.listen);
    match entrance {
        Entrance::Free => {}
        Entrance::TakeOver => {
            command.arg("--take-over");
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let mut child =
        command.spawn().with_context(|| format!("cannot start the edge from {}", place.binary.display()))?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(stats) = client.identify().await {
            match entrance {
                Entrance::TakeOver if stats.pid != child.id() => {}
                Entrance::Free | Entrance::TakeOver => {
                    reap_later(child);
                    return Ok(stats);
                }
            }
        }
        if let Some(status) = child.try_wait()? {
            bail!("the edge did not start ({status}): {}", words());
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the edge did not answer within {} s: {}", START_LIMIT.as_secs(), words());
        }
        tokio::time::sleep(START_LOOK_INTERVAL).await;
    }
}

/// Returns where our own program can be started from: its path, or what the kernel keeps of it when another file has
/// taken that. An edge newer than its control plane would be the wrong way round.
fn own_program(binary: &Path) -> PathBuf {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let own = Path::new(program::OWN);
    if identity(binary) == identity(own) { binary.to_owned() } else { own.to_owned() }
}

async fn systemctl(verb: &str, unit: &str) -> anyhow::Result<()> {
    let attempt = format!("systemctl {verb} {unit}");
    let mut command = tokio::process::Command::new("systemctl");
    command.args([verb, unit]).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(RELOAD_LIMIT, command.output()).await;
    let output = done.with_context(|| format!("`{attempt}` takes too long"))?;
    let output = output.with_context(|| format!("cannot run `{attempt}`"))?;
    if !output.status.success() {
        bail!("`{attempt}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Waits for the child in a thread of its own, so that it never stays behind as a zombie. The thread ends with it.
fn reap_later(mut child: Child) {
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
        let mut upgrade = Upgrade::default();
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let stats = match ensure(&place, &client).await {
                Ok(stats) => upgrade.consider(&place, &client, stats).await,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "there is no edge");
                    continue;
                }
            };
            if stats.pid != known
                && let Err(error) = control.sync_routes().await
            {
                tracing::warn!(%error, "the edge did not take the routes yet");
                continue;
            }
            known = stats.pid;
        }
    });
}

/// Replaces an edge that runs another program than `serve` does. Programs are told apart by their contents: a copy of
/// the same build is no reason.
#[derive(Debug, Default)]
struct Upgrade {
    /// The digest of our own program, once it is known.
    own: Option<String>,
    /// Not before.
    again_at: Option<Instant>,
    /// An edge that was started in the right way and is still another program.
    settled: Option<u32>,
}

impl Upgrade {
    /// Returns the counters of the edge that runs afterwards, whether it was replaced or not.
    async fn consider(&mut self, place: &EdgePlace, client: &EdgeClient, stats: EdgeStats) -> EdgeStats {
        let own = match &self.own {
            Some(own) => own.clone(),
            None => {
                let read = tokio::task::spawn_blocking(|| program::digest(Path::new(program::OWN))).await;
                let Ok(Ok(own)) = read else { return stats };
                self.own.insert(own).clone()
            }
        };
        let too_soon = self.again_at.is_some_and(|at| Instant::now() < at);
        if stats.build == own || self.settled == Some(stats.pid) || too_soon {
            return stats;
        }
        tracing::info!(
            pid = stats.pid,
            version = stats.version,
            "the edge runs another program: replacing it"
        );
        let replaced = match &place.unit {
            None => start(place, client, Entrance::TakeOver, Log::File).await,
            Some(unit) => match systemctl("reload", unit).await {
                Ok(()) => client.identify().await.map_err(anyhow::Error::new),
                Err(error) => Err(error),
            },
        };
        match replaced {
            Ok(new) => {
                self.again_at = None;
                if new.build != own {
                    self.settled = Some(new.pid);
                    tracing::warn!(
                        pid = new.pid,
                        "the new edge runs another program than `trackbed serve`, too"
                    );
                } else {
                    tracing::info!(pid = new.pid, earlier = new.draining, "the edge was replaced");
                }
                new
            }
            Err(error) => {
                self.again_at = Some(Instant::now() + UPGRADE_PAUSE);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the edge was not replaced; the old one serves on"
                );
                stats
            }
        }
    }
}

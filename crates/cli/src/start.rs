//! Starts a box on this machine when none runs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use trackbed_client::{Client, ClientError};

use crate::home;
use crate::session::{Refusal, Session};

/// How long a box may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// How long to go on when the process we started has ended: another one may have been faster.
const RIVAL_GRACE: Duration = Duration::from_secs(2);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of the box's log to quote.
const QUOTED_BYTES: u64 = 4096;

/// Returns a client of a box that answers, and starts the box when nobody does.
pub(crate) async fn ensure_box(session: &Session) -> Result<Client> {
    let client = session.client();
    match client.box_info().await {
        Ok(_) => return Ok(client),
        Err(ClientError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = &session.data_dir;
    session.output.talk(format!("no box is running; starting one in {}", folder.display()));
    let log = folder.join("serve.log");
    let (mut child, log_begin) =
        spawn(folder, &log).with_context(|| format!("cannot start a box in {}", folder.display()))?;
    let begun = Instant::now();
    let mut ended: Option<(Instant, String)> = None;
    loop {
        match client.box_info().await {
            Ok(info) => {
                let address =
                    info.edge.map(|edge| format!(", serving on {}", edge.listen)).unwrap_or_default();
                session.output.talk(format!("the box runs{address}; its log is {}", log.display()));
                return Ok(client);
            }
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error.into()),
        }
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (Instant::now(), status.to_string()));
        }
        let reason = match &ended {
            Some((at, status)) if at.elapsed() > RIVAL_GRACE => format!("it ended with {status}"),
            _ if begun.elapsed() > START_DEADLINE => {
                format!("it does not answer after {} s", START_DEADLINE.as_secs())
            }
            _ => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let said = tail(&log, log_begin);
        for line in said.lines() {
            session.output.talk(format!("  | {line}"));
        }
        let message = format!("cannot start a box: {reason}");
        // The edge's words, see `trackbed edge`.
        if said.contains("another process has this port") {
            return Err(Refusal::with_hint(message, free_port(folder)));
        }
        return Err(Refusal::with_hint(message, format!("its log is {}", log.display())));
    }
}

/// Says how to start a box when the usual port is taken.
fn free_port(folder: &Path) -> String {
    let is_usual = home::data_dir(None).is_ok_and(|usual| usual == folder);
    let of = if is_usual { String::new() } else { format!(" --data-dir {}", folder.display()) };
    format!("start one with `trackbed serve --listen 127.0.0.1:0{of}` (any free port)")
}

/// Starts `trackbed serve` in a process group of its own, so that Ctrl-C here is not heard there.
fn spawn(folder: &Path, log: &Path) -> Result<(Child, u64)> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let begin = file.metadata()?.len();
    let program = std::env::current_exe().context("cannot find this program")?;
    let child = Command::new(program)
        .arg("serve")
        .arg("--data-dir")
        .arg(folder)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()?;
    Ok((child, begin))
}

/// Returns the last of what was written to a log since `begin`.
fn tail(log: &Path, begin: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = fs::metadata(log)?.len();
        file.seek(SeekFrom::Start(begin.max(length.saturating_sub(QUOTED_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(QUOTED_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

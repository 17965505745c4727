//! Work for one caller: jobs to their end, and commands inside a running instance. Dropping the future kills either.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use trackbed_core::instance::{Exit, InstanceSpec, LogCursor, LogStream};
use trackbed_core::ports::{BuildLog, JobEnd, JobRunner, PortError};
use trackbed_core::{InstanceId, Secret};

use crate::control::{self, Answer, Ask};
use crate::logfile::LINE_LIMIT_BYTES;
use crate::reconcile::Life;
use crate::sandbox::Sandbox;

/// Time between two looks at a job.
const LOOK: Duration = Duration::from_millis(20);
/// Lines handed on per look.
const LINES: usize = 1000;
/// Wait for output that is still on its way when a command has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(300);

#[async_trait]
impl JobRunner for Sandbox {
    async fn run_job(
        &self,
        spec: InstanceSpec,
        time_limit: Duration,
        log: &dyn BuildLog,
    ) -> Result<JobEnd, PortError> {
        let id = spec.id.clone();
        let left = Arc::new(AtomicBool::new(false));
        let wanted = Arc::new(());
        let asked = Arc::downgrade(&wanted);
        let mut leash = Leash { sandbox: self.clone(), id: id.clone(), holds: true, left: left.clone() };
        self.inner.memory().jobs.insert(id.clone());
        let deadline = tokio::time::Instant::now() + time_limit;
        let started = self.blocking(move |inner| {
            let started = inner.start(&spec, &asked);
            if left.load(Ordering::SeqCst) {
                // The caller went away before this thread came to it.
                inner.kill(&spec.id).and_then(|()| inner.remove(&spec.id))?;
            }
            started
        });
        started.await?;
        drop(wanted);
        let mut from = LogCursor::START;
        let end = loop {
            let (looked, life) = (id.clone(), id.clone());
            // First the life, then the log: what was written before the end is read after it.
            let ended = self.blocking(move |inner| Ok(inner.life(&life))).await?;
            let page = self.blocking(move |inner| inner.logs(&looked, from, LINES)).await?;
            from = page.next;
            let more = page.lines.len() == LINES;
            for line in page.lines {
                log.line(line.stream, &line.text);
            }
            match ended {
                _ if more => continue,
                Some(Life::Ended(end)) => break JobEnd::Exit(end.exit),
                None => break JobEnd::Exit(Exit::Lost),
                Some(Life::Living { .. } | Life::Beginning) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                break JobEnd::TimedOut;
            }
            tokio::time::sleep(LOOK).await;
        };
        leash.holds = false;
        self.blocking(move |inner| {
            let ended = inner.kill(&id).and_then(|()| inner.remove(&id));
            inner.memory().jobs.remove(&id);
            ended
        })
        .await?;
        Ok(end)
    }
}

/// Kills its job when the caller goes away.
struct Leash {
    sandbox: Sandbox,
    id: InstanceId,
    holds: bool,
    /// Set when the caller has gone, for a start that is still to come.
    left: Arc<AtomicBool>,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if !self.holds {
            return;
        }
        self.left.store(true, Ordering::SeqCst);
        let (sandbox, id) = (self.sandbox.clone(), self.id.clone());
        // A thread, not a task: the runtime may be on its way down. The start may still be under way beside us.
        std::thread::spawn(move || {
            while sandbox.inner.memory().starting.contains(&id) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Err(error) = sandbox.inner.kill(&id).and_then(|()| sandbox.inner.remove(&id)) {
                tracing::warn!(instance = %id, %error, "a job that nobody waits for could not be ended");
            }
            sandbox.inner.memory().jobs.remove(&id);
        });
    }
}

/// How often a full sink is looked at again.
const ROOM_LOOK: Duration = Duration::from_millis(5);

/// Runs a command inside an instance; see [`trackbed_core::ports::Engine::exec`].
pub(crate) async fn exec(
    sandbox: &Sandbox,
    id: &InstanceId,
    command: &[String],
    env: &[(String, Secret<String>)],
    log: &dyn BuildLog,
) -> Result<Exit, PortError> {
    let failed =
        |error: std::io::Error| PortError::new(format!("cannot run a command in instance {id}: {error}"));
    let env = env.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect();
    let ask = Ask::Exec { command: command.to_vec(), env };
    let (out, app_out) = pipe().map_err(failed)?;
    let (err, app_err) = pipe().map_err(failed)?;
    let looked = id.clone();
    let line = sandbox
        .blocking(move |inner| {
            inner.living(&looked)?;
            let fds = [app_out.as_raw_fd(), app_err.as_raw_fd()];
            control::ask(&inner.socket(&looked), ask, &fds)
                .map_err(|error| PortError::new(format!("cannot reach the supervisor of {looked}: {error}")))
        })
        .await?;
    line.set_nonblocking(true).map_err(failed)?;
    // Dropping it is what tells the shim that nobody waits any more.
    let mut line = BufReader::new(tokio::net::UnixStream::from_std(line).map_err(failed)?);
    let mut streams = [Stream::new(out, LogStream::Out), Stream::new(err, LogStream::Err)];
    for stream in &mut streams {
        stream.pipe = Some(Receiver::from_owned_fd(stream.fd.take().expect("set by new")).map_err(failed)?);
    }
    let [out, err] = &mut streams;
    let mut text = Vec::new();
    loop {
        tokio::select! {
            () = out.pass_on(log) => {}
            () = err.pass_on(log) => {}
            read = line.read_until(b'\n', &mut text) => {
                read.map_err(failed)?;
                break;
            }
        }
    }
    for stream in [out, err] {
        // A slow caller may take its time; a stream that somebody else holds open may not.
        while stream.pipe.is_some() {
            room_in(log).await;
            if tokio::time::timeout(LAST_OUTPUT, stream.pass_on(log)).await.is_err() {
                break;
            }
        }
        stream.finish(log);
    }
    let answer: Answer = serde_json::from_slice(&text)
        .map_err(|_| PortError::new(format!("instance {id} ended while the command ran")))?;
    match answer {
        Answer { exit: Some(exit), .. } => Ok(exit),
        Answer { error, .. } => {
            let why = error.unwrap_or_else(|| "no answer".to_owned());
            Err(PortError::new(format!("cannot run `{}` in instance {id}: {why}", command.join(" "))))
        }
    }
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// Waits until lines would not be lost. Meanwhile the command's pipe fills, and the command waits too.
async fn room_in(log: &dyn BuildLog) {
    while log.is_full() {
        tokio::time::sleep(ROOM_LOOK).await;
    }
}

/// One stream of a command, cut into lines.
struct Stream {
    fd: Option<OwnedFd>,
    pipe: Option<Receiver>,
    stream: LogStream,
    rest: Vec<u8>,
}

impl Stream {
    fn new(fd: OwnedFd, stream: LogStream) -> Stream {
        Stream { fd: Some(fd), pipe: None, stream, rest: Vec::new() }
    }

    /// Hands on what comes next. Cancel-safe. Waits for ever when the stream has ended.
    async fn pass_on(&mut self, log: &dyn BuildLog) {
        room_in(log).await;
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => self.rest.extend_from_slice(&buffer[..length]),
        }
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            log.line(self.stream, &String::from_utf8_lossy(&self.rest[..end]));
            self.rest.drain(..=end);
        }
        if self.rest.len() >= LINE_LIMIT_BYTES {
            self.finish(log);
        }
    }

    fn finish(&mut self, log: &dyn BuildLog) {
        if !self.rest.is_empty() {
            log.line(self.stream, &String::from_utf8_lossy(&self.rest));
            self.rest.clear();
        }
    }
}

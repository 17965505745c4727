//! One push: a pack goes to `git receive-pack`, and what that says goes back while the hook deploys.
//!
//! The process belongs to a task, not to the connection. A client that leaves before the pack is whole has pushed nothing.
//! One that leaves later misses the rest of the log: the deployment goes on, and the branch moves when it is live. When
//! `serve` ends, the deployment goes on with the next one, and the branch stays where it was.
//!
//! An answer of which git has not said the end is broken off, never closed: a client that meets an end too early between two
//! of its packets waits for the rest for ever.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use trackbed_core::service::Service;
use trackbed_stdx::tasks::Shutdown;

use super::repository::{GitError, PACK_MAX_BYTES, Repository, not_started};
use super::{GitDoor, UnderWay};

/// How long a push may stand still while it is received.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// How long a push may take with its deployment, whose steps have limits of their own.
const PUSH_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);
/// Time between SIGTERM, on which git removes what it received, and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// Memory of its own that each process of a push may have. Packs are mapped, which does not count.
const MEMORY_MAX_BYTES: u64 = 2 << 30;
/// Pieces of the answer that wait for the client.
const PIECES_WAITING_MAX: usize = 1024;
/// Bytes of a piece of the answer.
const PIECE_BYTES: usize = 8 << 10;
/// Bytes of git's own complaints that are kept for the log.
const COMPLAINTS_MAX_BYTES: u64 = 16 << 10;

/// Receives a push and returns the answer as it comes. Cancel-safe: the push belongs to a task.
///
/// # Errors
/// When git cannot be started.
pub(super) async fn receive(
    door: &GitDoor,
    service: &Service,
    repository: &Repository,
    body: Body,
) -> Result<Body, GitError> {
    let place = door.inner.places.clone().try_acquire_owned().map_err(|_| GitError::Crowded)?;
    let under_way = door.begin(&service.id);
    let room = door.inner.control.room().await.unwrap_or(PACK_MAX_BYTES);
    let mut command = repository.receive(room)?;
    command
        .env("TRACKBED_DATA_DIR", &door.inner.data_dir)
        .env("TRACKBED_PUSH_PROJECT", service.project_name.as_str())
        .env("TRACKBED_PUSH_SERVICE", service.name.as_str())
        .env("TRACKBED_PUSH_IS_SECOND", if under_way.is_some() { "" } else { "1" })
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_started(&error))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(GitError::new("cannot start git", "it has no pipes"));
    };
    limit_memory(&child);
    let (answer, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let (whole, is_whole) = oneshot::channel();
    let (begin, mut may_begin) = mpsc::channel(1);
    let push = Push { child, stdin, stdout, stderr, answer, whole, held: (place, under_way) };
    let shutdown = door.inner.tasks.shutdown();
    let name = service.name.to_string();
    door.inner.tasks.spawn(format!("push to {name}"), async move {
        push.run(body, begin, shutdown, &name).await;
    });
    // Either word will do, also the last one of a task that was ended.
    let _ = may_begin.recv().await;
    let pieces = stream::try_unfold((pieces, is_whole), |(mut pieces, is_whole)| async move {
        match pieces.recv().await {
            Some(piece) => Ok(Some((piece, (pieces, is_whole)))),
            None => is_whole.await.map(|()| None).map_err(|_| io::Error::other("the push was ended")),
        }
    });
    Ok(Body::from_stream(pieces))
}

/// A push under way.
struct Push {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    answer: mpsc::Sender<Bytes>,
    /// Told once git has said all; without it the answer is broken off.
    whole: oneshot::Sender<()>,
    held: (OwnedSemaphorePermit, Option<UnderWay>),
}

impl Push {
    async fn run(self, body: Body, begin: mpsc::Sender<()>, mut shutdown: Shutdown, service: &str) {
        let Push { mut child, stdin, stdout, stderr, answer, whole, held } = self;
        let feeding = async {
            if let Err(error) = feed(body, stdin).await {
                tracing::info!(service, %error, "a push broke off");
            }
            // The answer begins when the pack is whole: an earlier one would end the upload of a client that waits for
            // `100 Continue`.
            let _ = begin.try_send(());
        };
        let working = async {
            let ((), (), complaints) =
                tokio::join!(feeding, pass_on(stdout, &answer, &begin), complaints(stderr));
            if !complaints.is_empty() {
                tracing::info!(service, complaints, "git said of a push");
            }
        };
        let is_done = tokio::select! {
            done = tokio::time::timeout(PUSH_LIMIT, working) => done.is_ok(),
            () = shutdown.wait() => false,
        };
        if !is_done {
            end(&mut child).await;
        }
        match child.wait().await {
            Ok(status) if is_done && status.success() => {
                let _ = whole.send(());
            }
            Ok(status) => tracing::info!(service, %status, "a push was broken off"),
            Err(error) => tracing::warn!(service, %error, "a push could not be waited for"),
        }
        // Before the answer ends: whoever has heard all of it may push again at once.
        drop(held);
        drop(answer);
    }
}

/// Gives the body to git. When it breaks off, the pipe is closed, and git finds that the pack is not whole.
async fn feed(body: Body, mut stdin: ChildStdin) -> io::Result<()> {
    let mut pieces = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(IDLE_LIMIT, pieces.next()).await;
        let next = next.map_err(|_| io::Error::other("the client stands still"))?;
        let Some(piece) = next else { return stdin.shutdown().await };
        let piece = piece.map_err(io::Error::other)?;
        let written = tokio::time::timeout(IDLE_LIMIT, stdin.write_all(&piece)).await;
        match written.map_err(|_| io::Error::other("git stands still"))? {
            Ok(()) => {}
            // Git has heard enough and says why; the rest is read, so that the client hears it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return drain(pieces).await,
            Err(error) => return Err(error),
        }
    }
}

async fn drain(mut pieces: axum::body::BodyDataStream) -> io::Result<()> {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(IDLE_LIMIT, pieces.next()).await {}
    Ok(())
}

/// Passes on what git says until it ends. A client that is gone is no reason to stop. Git that says much before it has the
/// whole pack must not wait for an answer that waits for the pack.
async fn pass_on(mut stdout: ChildStdout, answer: &mpsc::Sender<Bytes>, begin: &mpsc::Sender<()>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match stdout.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if answer.capacity() < PIECES_WAITING_MAX / 2 {
                    let _ = begin.try_send(());
                }
                let _ = answer.send(piece.into()).await;
            }
        }
    }
}

pub(super) async fn complaints(stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    let mut kept = stderr.take(COMPLAINTS_MAX_BYTES);
    let _ = kept.read_to_end(&mut bytes).await;
    // What is beyond that is read and dropped: git must not wait for a full pipe.
    let _ = tokio::io::copy(&mut kept.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Bounds the memory of git and of all that it starts: a small pack can unfold into a huge object.
pub(super) fn limit_memory(child: &Child) {
    let limit = Rlimit { current: Some(MEMORY_MAX_BYTES), maximum: Some(MEMORY_MAX_BYTES) };
    let set = pid_of(child).map(|pid| rustix::process::prlimit(Some(pid), Resource::Data, limit));
    if let Some(Err(error)) = set {
        tracing::warn!(%error, "the memory of a push is not limited");
    }
}

/// Ends git and all that it started.
pub(super) async fn end(child: &mut Child) {
    let Some(group) = pid_of(child) else { return };
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = rustix::process::kill_process_group(group, signal);
        if tokio::time::timeout(GRACE, child.wait()).await.is_ok() && signal == Signal::KILL {
            return;
        }
    }
}

pub(super) fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

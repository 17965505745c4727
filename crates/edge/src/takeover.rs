//! How a new edge takes the place of the running one, with the same sockets and the same lock, so that no connection is
//! refused and there is never a moment without an owner, nor one with two.
//!
//! The successor asks over the control socket, receives copies of all that the place consists of, makes itself ready
//! without accepting anything, and says so. The reply to that is the turning point: whoever wrote it is an elder from
//! then on. Until then the old edge goes on whenever it hears nothing, something else, or the end of the connection.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::control::{Control, Talk, bind};
use crate::descriptors;
use crate::elders;
use crate::error::EdgeError;
use crate::limits::{DEATH_TIME_MAX, PREDECESSOR_TIME_MAX, READY_TIME_MAX};
use crate::shutdown::{Drain, Stage, draining};
use crate::snapshot::Snapshot;
use crate::wire::{Op, Outcome, PROTOCOL, Reply, Request, line};

/// Longest reply of a predecessor, in bytes: it says a word or two.
const REPLY_BYTES_MAX: usize = 4096;

/// What only one edge on a state directory uses at a time, though two may hold copies for a moment.
pub(crate) struct Belongings {
    /// Where clients connect.
    pub(crate) listener: TcpListener,
    /// Where the control plane connects.
    pub(crate) orders: UnixListener,
    /// The lock of the state directory. Held by being open; never unlocked, which would take it from the successor too.
    pub(crate) lock: File,
}

/// Whether this edge owns its state directory.
pub(crate) enum Place {
    /// It does: it keeps tables, and speaks for the elders.
    Face(Belongings),
    /// It does, until its last request has ended; nobody may connect or succeed any more.
    Ending {
        /// Held to the end, so that no other edge begins beside this one.
        _lock: File,
    },
    /// A successor does.
    Elder,
}

impl Belongings {
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Control {
    /// Gives the place to the process at the other end, if that takes it. Holds the place for so long: orders that would
    /// change something wait, at most [`READY_TIME_MAX`]. Not cancel-safe; a connection that is dropped in the middle
    /// means to the other side that this process is dying, and it looks whether that is so.
    pub(crate) async fn hand_over(&self, talk: &mut Talk) -> io::Result<()> {
        let mut place = self.place.lock().await;
        let belongings = match &*place {
            Place::Face(belongings) if *self.stage.borrow() == Stage::Running => belongings,
            Place::Face(_) | Place::Ending { .. } => {
                return talk.reply(Outcome::Failed { message: "it is about to end".into() }).await;
            }
            Place::Elder => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let mut handed =
            serde_json::to_vec(&Reply { v: PROTOCOL, outcome: Outcome::Handed { pid: std::process::id() } })?;
        handed.push(b'\n');
        let copies = [belongings.listener.as_fd(), belongings.orders.as_fd(), belongings.lock.as_fd()];
        descriptors::send(talk.stream(), &handed, &copies).await?;

        let mut stage = self.stage.subscribe();
        let refused = tokio::select! {
            said = timeout(READY_TIME_MAX, talk.next()) => match said {
                Ok(Ok(true)) if is_ready(talk.line()) => None,
                Ok(Ok(true)) => Some("it said something else than that it is ready".to_owned()),
                Ok(Ok(false)) => Some("it has gone".to_owned()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("it was not ready within {} s", READY_TIME_MAX.as_secs())),
            },
            _ = draining(&mut stage) => Some("this edge is about to end".to_owned()),
        };
        // Made before the reply: what can fail must fail while the way back is open.
        let elder = elders::socket(&self.folder, std::process::id());
        let made = match refused {
            Some(reason) => Err(reason),
            None => bind(&elder).map_err(|error| error.to_string()),
        };
        let listener = match made {
            Ok(listener) => listener,
            Err(message) => {
                tracing::warn!(reason = message, "a successor did not take over; this edge goes on");
                return talk.reply(Outcome::Failed { message }).await;
            }
        };
        if let Err(error) = talk.reply(Outcome::Done).await {
            tracing::warn!(%error, "a successor died when it was about to take over; this edge goes on");
            let _ = std::fs::remove_file(&elder);
            return Err(error);
        }
        // Nothing waits from here on: the successor owns the place.
        *place = Place::Elder;
        self.become_elder(listener);
        Ok(())
    }

    /// Closes what others could still come through: the kernel refuses clients from here on.
    pub(crate) async fn stop_listening(&self) {
        let mut place = self.place.lock().await;
        *place = match std::mem::replace(&mut *place, Place::Elder) {
            Place::Face(belongings) => Place::Ending { _lock: belongings.lock },
            other @ (Place::Ending { .. } | Place::Elder) => other,
        };
    }

    fn become_elder(&self, listener: tokio::net::UnixListener) {
        self.replaced.store(true, Ordering::SeqCst);
        *self.elder_orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        self.routes.closing.store(true, Ordering::SeqCst);
        self.stage.send_replace(Stage::Draining(Drain::ELDER));
        tracing::info!("a successor has taken over; open requests and streams are finished here");
    }
}

fn is_ready(line: &[u8]) -> bool {
    serde_json::from_slice::<Request>(line).is_ok_and(|request| matches!(request.op, Op::Ready))
}

/// The edge whose place is being taken.
pub(crate) struct Predecessor {
    stream: BufStream<UnixStream>,
    /// Tells its death for certain.
    process: OwnedFd,
}

/// Asks the edge that listens on a control socket for its place. None when nobody does.
///
/// # Errors
/// When it refuses, or is too old to know how.
pub(crate) async fn ask(
    socket: &Path,
    snapshot: &Snapshot,
) -> Result<Option<(Belongings, Predecessor)>, EdgeError> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if elders::is_gone(&error) => return Ok(None),
        Err(error) => return Err(EdgeError::state(socket, error)),
    };
    let asked = timeout(PREDECESSOR_TIME_MAX, receive(stream)).await;
    let (belongings, predecessor) =
        asked.unwrap_or_else(|_| Err("it does not answer".into())).map_err(kept)?;
    if !snapshot.is_lock(&belongings.lock) {
        return Err(kept("it works on another state directory".into()));
    }
    Ok(Some((belongings, predecessor)))
}

fn kept(reason: String) -> EdgeError {
    EdgeError::NotHandedOver { reason }
}

async fn receive(mut stream: UnixStream) -> Result<(Belongings, Predecessor), String> {
    let said = |error: io::Error| error.to_string();
    stream.write_all(&line(Op::TakeOver).map_err(said)?).await.map_err(said)?;
    let (mut reply, mut received) = (Vec::new(), Vec::new());
    while !reply.ends_with(b"\n") && reply.len() < REPLY_BYTES_MAX {
        let mut buffer = [0; REPLY_BYTES_MAX];
        let (count, more) = descriptors::receive(&stream, &mut buffer).await.map_err(said)?;
        if count == 0 {
            return Err("it ended the conversation".into());
        }
        reply.extend_from_slice(&buffer[..count]);
        received.extend(more);
    }
    let pid = match outcome(&reply)? {
        Outcome::Handed { pid } => pid,
        Outcome::Failed { message } => return Err(message),
        other => return Err(format!("it gave an unexpected reply: {other:?}")),
    };
    let process = watch(pid).map_err(|error| format!("its process {pid} cannot be watched: {error}"))?;
    let [listener, orders, lock] =
        <[OwnedFd; 3]>::try_from(received).map_err(|received| format!("it gave {} files", received.len()))?;
    let belongings = Belongings { listener: listener.into(), orders: orders.into(), lock: lock.into() };
    Ok((belongings, Predecessor { stream: BufStream::new(stream), process }))
}

fn outcome(reply: &[u8]) -> Result<Outcome, String> {
    serde_json::from_slice::<Reply>(reply).map(|reply| reply.outcome).map_err(|error| error.to_string())
}

fn watch(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for the end of a process. Returns whether it came within [`DEATH_TIME_MAX`].
async fn is_dead(process: OwnedFd) -> bool {
    let wait = move || {
        // A pidfd is readable once its process has ended (pidfd_open(2)).
        let mut wanted = [PollFd::new(&process, PollFlags::IN)];
        let limit = Timespec::try_from(DEATH_TIME_MAX).ok();
        limit.is_some_and(|limit| poll(&mut wanted, Some(&limit)).is_ok_and(|count| count > 0))
    };
    tokio::task::spawn_blocking(wait).await.unwrap_or(false)
}

impl Predecessor {
    /// Says that the place can be taken; when this returns, it is.
    ///
    /// # Errors
    /// When the predecessor has changed its mind, or fell silent without being dead: then the place is still its own.
    pub(crate) async fn succeed(mut self) -> Result<(), EdgeError> {
        match timeout(PREDECESSOR_TIME_MAX, self.say_ready()).await {
            Ok(Ok(Some(reply))) => match outcome(&reply).map_err(kept)? {
                Outcome::Done => Ok(()),
                Outcome::Failed { message } => Err(kept(message)),
                other => Err(kept(format!("it gave an unexpected reply: {other:?}"))),
            },
            Ok(Ok(None) | Err(_)) => {
                // Its end of the connection alone is no proof: two owners would be worse than no upgrade.
                if !is_dead(self.process).await {
                    return Err(kept("it ended the conversation, but lives".into()));
                }
                tracing::warn!("the edge died while it was being replaced; its successor goes on");
                Ok(())
            }
            Err(_) => Err(kept("it does not answer".into())),
        }
    }

    /// Returns the reply, or none when the other side is gone without one.
    async fn say_ready(&mut self) -> io::Result<Option<Vec<u8>>> {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt};
        self.stream.write_all(&line(Op::Ready)?).await?;
        self.stream.flush().await?;
        let mut reply = Vec::new();
        (&mut self.stream).take(REPLY_BYTES_MAX as u64).read_until(b'\n', &mut reply).await?;
        Ok(reply.ends_with(b"\n").then_some(reply))
    }
}

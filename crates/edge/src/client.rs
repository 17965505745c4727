//! The control plane's side: the `Edge` port over the control socket.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use trackbed_core::InstanceId;
use trackbed_core::ports::{Edge, PortError, Probe};
use trackbed_core::route::{EdgeStats, RouteTable, Target};

use crate::limits::{CONTROL_LINE_BYTES_MAX, CONTROL_TIME_MAX, CONTROL_TRIES_MAX};
use crate::probe::probe;
use crate::wire::{Answers, Op, Outcome, Reply, line};

/// Speaks to the edge of a control socket. Keeps its connection between calls and makes a new one when the edge was
/// restarted or replaced.
#[derive(Debug)]
pub(crate) struct Caller {
    socket: PathBuf,
    connection: Mutex<Option<BufStream<UnixStream>>>,
}

impl Caller {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, connection: Mutex::default() }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a line and reads the reply. Every order may safely be given twice, and is when an edge closes the
    /// connection instead of replying: it has just been replaced.
    ///
    /// # Errors
    /// When nobody answers within the limit.
    pub(crate) async fn call(&self, line: &[u8], limit: Duration) -> io::Result<Outcome> {
        let reply = timeout(limit, self.exchange(line)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(serde_json::from_slice::<Reply>(&reply)?.outcome)
    }

    async fn exchange(&self, line: &[u8]) -> io::Result<Vec<u8>> {
        let mut kept = self.connection.lock().await;
        // Taken out for the call: one that is dropped half-way must not leave its reply to the next.
        if let Some(mut old) = kept.take()
            && let Ok(reply) = converse(&mut old, line).await
        {
            *kept = Some(old);
            return Ok(reply);
        }
        let mut tries = 1;
        loop {
            let mut fresh = BufStream::new(UnixStream::connect(&self.socket).await?);
            match converse(&mut fresh, line).await {
                Ok(reply) => {
                    *kept = Some(fresh);
                    return Ok(reply);
                }
                Err(error) if tries == CONTROL_TRIES_MAX => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }
}

/// Speaks to a running edge.
#[derive(Debug)]
pub struct EdgeClient {
    caller: Caller,
}

impl EdgeClient {
    /// Makes a client for a control socket. Connects with the first call.
    pub fn new(control_socket: impl Into<PathBuf>) -> Self {
        Self { caller: Caller::new(control_socket.into()) }
    }

    /// Returns how the finished requests of each service ended, by service.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    pub async fn answers(&self) -> Result<BTreeMap<String, Answers>, PortError> {
        Ok(self.load_stats().await?.1)
    }

    /// Asks the edge to end: no new connections, open requests finish within `drain_limit`. Returns when it has been
    /// told, not when it has ended.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    pub async fn shutdown(&self, drain_limit: Duration) -> Result<(), PortError> {
        let drain_ms = u64::try_from(drain_limit.as_millis()).unwrap_or(u64::MAX);
        match self.call(Op::Shutdown { drain_ms }).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Returns who the newest edge is, with its own counters alone: it answers even while an earlier one hangs.
    ///
    /// # Errors
    /// When the edge cannot be reached.
    pub async fn identify(&self) -> Result<EdgeStats, PortError> {
        match self.call(Op::Who).await? {
            Outcome::Stats { stats, .. } => Ok(stats),
            // One of an earlier version does not know the question.
            _ => self.load_stats().await.map(|(stats, _)| stats),
        }
    }

    async fn load_stats(&self) -> Result<(EdgeStats, BTreeMap<String, Answers>), PortError> {
        match self.call(Op::Stats).await? {
            Outcome::Stats { stats, answers } => Ok((stats, answers)),
            other => Err(unexpected(other)),
        }
    }

    /// Sends an order and reads the reply, within [`CONTROL_TIME_MAX`].
    async fn call(&self, op: Op) -> Result<Outcome, PortError> {
        let called = match line(op) {
            Ok(line) => self.caller.call(&line, CONTROL_TIME_MAX).await,
            Err(error) => Err(error),
        };
        called.map_err(|error| {
            let socket = self.caller.socket().display();
            PortError::new(format!("cannot reach the edge at {socket}: {error}"))
                .hint("check that `trackbed edge` runs")
        })
    }
}

async fn converse(stream: &mut BufStream<UnixStream>, line: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(line).await?;
    stream.flush().await?;
    let mut reply = Vec::new();
    stream.take(CONTROL_LINE_BYTES_MAX as u64).read_until(b'\n', &mut reply).await?;
    if reply.ends_with(b"\n") { Ok(reply) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn unexpected(outcome: Outcome) -> PortError {
    match outcome {
        Outcome::Failed { message } => PortError::new(format!("the edge refused: {message}")),
        other => PortError::new(format!("the edge gave an unexpected reply: {other:?}")),
    }
}

#[async_trait]
impl Edge for EdgeClient {
    async fn apply(&self, table: &RouteTable) -> Result<(), PortError> {
        match self.call(Op::Apply { table: table.clone() }).await? {
            Outcome::Applied { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn stats(&self) -> Result<EdgeStats, PortError> {
        Ok(self.load_stats().await?.0)
    }

    async fn end_streams(&self, instance: &InstanceId, over: Duration) -> Result<(), PortError> {
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        match self.call(Op::EndStreams { instance: instance.clone(), over_ms }).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn cut(&self, instance: &InstanceId) -> Result<(), PortError> {
        match self.call(Op::Cut { instance: instance.clone() }).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn probe(&self, target: &Target, path: Option<&str>, host: &str, limit: Duration) -> Probe {
        probe(&target.address, path, host, limit).await
    }
}

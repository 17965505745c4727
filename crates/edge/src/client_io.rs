//! The client's side of a connection: a socket that knows whether a head is being read, a request is being answered or
//! nothing happens, so that one lazy timer per connection can enforce every limit without any work per request.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::framing::HeadScanner;
use crate::limits::{CLIENT_IDLE_MAX, CLIENT_STALL_MAX, HEAD_TIME_MAX};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// Stands for "not blocked": no connection is that old.
const NEVER: u64 = u64::MAX;

/// What a connection is doing and since when. Written by its own task only; atomic because hyper wants `Send`.
#[derive(Debug)]
pub(crate) struct Watch {
    peer: IpAddr,
    opened: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds since `opened`.
    since_ms: AtomicU64,
    /// When the client stopped taking bytes, in milliseconds since `opened`.
    write_blocked_ms: AtomicU64,
    /// When the client stopped sending the body that a target waits for, in milliseconds since `opened`.
    body_blocked_ms: AtomicU64,
    framing_conflict: AtomicBool,
    /// The connection's place among those allowed; kept for as long as a tunnel lives on after hyper.
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    pub(crate) fn new(peer: IpAddr, permit: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self {
            peer,
            opened: Instant::now(),
            phase: AtomicU8::new(HEAD),
            since_ms: AtomicU64::new(0),
            write_blocked_ms: AtomicU64::new(NEVER),
            body_blocked_ms: AtomicU64::new(NEVER),
            framing_conflict: AtomicBool::new(false),
            _permit: permit,
        })
    }

    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Marks a request as being answered until the returned value is dropped.
    pub(crate) fn begin_answer(self: &Arc<Self>) -> Answering {
        self.phase.store(BUSY, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Returns whether the head just read said in two ways where its body ends, and forgets it.
    pub(crate) fn take_framing_conflict(&self) -> bool {
        self.framing_conflict.load(Ordering::Relaxed) && self.framing_conflict.swap(false, Ordering::Relaxed)
    }

    /// Returns when the connection must be closed if nothing changes; none when it may stay.
    pub(crate) fn due(&self) -> Option<Instant> {
        let after =
            |ms: u64, limit: Duration| (ms != NEVER).then(|| self.opened + Duration::from_millis(ms) + limit);
        let since = self.since_ms.load(Ordering::Relaxed);
        let stalled = after(self.write_blocked_ms.load(Ordering::Relaxed), CLIENT_STALL_MAX);
        let phase = match self.phase.load(Ordering::Relaxed) {
            IDLE => after(since, CLIENT_IDLE_MAX),
            HEAD => after(since, HEAD_TIME_MAX),
            _ => after(self.body_blocked_ms.load(Ordering::Relaxed), CLIENT_STALL_MAX),
        };
        [stalled, phase].into_iter().flatten().min()
    }

    fn block(&self, what: &AtomicU64) {
        if what.load(Ordering::Relaxed) == NEVER {
            what.store(self.now_ms(), Ordering::Relaxed);
        }
    }
}

/// Marks a connection as busy.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Watch>);

impl Answering {
    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.0)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.body_blocked_ms.store(NEVER, Ordering::Relaxed);
        self.0.enter(IDLE);
    }
}

/// The client's socket, watched.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: TcpStream,
    watch: Arc<Watch>,
    scanner: HeadScanner,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch, scanner: HeadScanner::default() }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        match self.watch.phase.load(Ordering::Relaxed) {
            IDLE if !bytes.is_empty() => {
                self.watch.enter(HEAD);
                self.scanner = HeadScanner::default();
            }
            HEAD => {}
            _ => return,
        }
        self.scanner.feed(bytes);
        if self.scanner.conflict() {
            self.watch.framing_conflict.store(true, Ordering::Relaxed);
        }
    }

    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.watch.block(&self.watch.write_blocked_ms),
            Poll::Ready(_) => self.watch.write_blocked_ms.store(NEVER, Ordering::Relaxed),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body on its way to the target: passed on as it comes, with a note when the client keeps us waiting.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    watch: Arc<Watch>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, watch: Arc<Watch>) -> Self {
        Self { incoming, watch }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        match frame {
            Poll::Pending => self.watch.block(&self.watch.body_blocked_ms),
            Poll::Ready(_) => self.watch.body_blocked_ms.store(NEVER, Ordering::Relaxed),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.watch.body_blocked_ms.store(NEVER, Ordering::Relaxed);
    }
}

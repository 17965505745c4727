//! What follows `101 Switching Protocols`: bytes both ways until both sides are done, or the stream is asked to end, or
//! the target is cut.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::buffers::{Kept, with_scratch};
use crate::frames::{CLOSE_TO_APP, CLOSE_TO_CLIENT, Frames};
use crate::limits::{ROUNDS_MAX, TUNNEL_BUFFER_BYTES};
use crate::link::Link;
use crate::streams::OpenStream;
use crate::upstream::Upstream;
use crate::watch::Watch;

/// One direction.
pub(crate) struct Flow {
    frames: Frames,
    kept: Kept,
    /// The reading side has ended.
    ended: bool,
    /// The end was passed on.
    finished: bool,
    /// A close frame of ours was the last word: what still comes is read and dropped.
    closed: bool,
}

/// An exchange that has become a tunnel.
pub(crate) struct Switched {
    pub(crate) open: Arc<OpenStream>,
    /// From the target to the client.
    pub(crate) down: Flow,
    /// From the client to the target.
    pub(crate) up: Flow,
}

/// Joins the two sides. A side that has finished sending may still receive. Has no time limit of its own while both
/// sides are open: a WebSocket may be quiet for hours.
pub(crate) struct Tunnel<'a> {
    watch: &'a Watch,
    upstream: &'a Arc<Upstream>,
    open: Arc<OpenStream>,
    down: Flow,
    up: Flow,
}

/// A side has gone for good.
struct Gone;

impl<'a> Tunnel<'a> {
    /// Makes a tunnel; `early` is what the client has already sent in the new protocol.
    pub(crate) fn new(
        watch: &'a Watch,
        upstream: &'a Arc<Upstream>,
        switched: Switched,
        early: &[u8],
    ) -> Self {
        let Switched { open, down, mut up } = switched;
        up.frames.feed(early);
        up.kept.keep(early);
        Self { watch, upstream, open, down, up }
    }

    /// Moves bytes until the tunnel has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.register(cx.waker());
        if self.upstream.link.poll_cut(cx) {
            return Poll::Ready(());
        }
        let (client, target) = (&self.watch.link, &self.upstream.link);
        for _ in 0..ROUNDS_MAX {
            if self.open.asked_to_end().is_some() {
                self.down.close(cx, client, &CLOSE_TO_CLIENT);
                self.up.close(cx, target, &CLOSE_TO_APP);
            }
            let left = self.down.kept.left();
            let up = self.up.poll_move(cx, client, target);
            let down = self.down.poll_move(cx, target, client);
            let (Ok(up), Ok(down)) = (up, down) else { return Poll::Ready(()) };
            if down {
                self.open.touch();
            }
            self.watch.note_progress(left, self.down.kept.left());
            // With one side gone, the other one has a limit, counted anew from each byte.
            let is_half = self.up.ended || self.down.ended;
            if up || down {
                self.watch.note_body(false);
            }
            self.watch.note_body(is_half);
            // Once we have said goodbye to both, the client's goodbye or end is the end.
            let said_goodbye = self.down.closed && (self.up.frames.is_closed() || self.up.ended);
            if target.is_cut() || said_goodbye || (self.up.finished && self.down.finished) {
                return Poll::Ready(());
            }
            if !up && !down {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Flow {
    /// Makes a direction that has got this far, with what its reader has not taken yet.
    pub(crate) fn new(frames: Frames, kept: Kept) -> Self {
        Self { frames, kept, ended: false, finished: false, closed: false }
    }

    /// Moves a piece. Returns whether there may be another.
    fn poll_move(&mut self, cx: &mut Context<'_>, from: &Link, to: &Link) -> Result<bool, Gone> {
        match self.kept.poll_flush(to, cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) => return Err(Gone),
            Poll::Ready(Ok(())) => {}
        }
        if self.ended {
            if !self.finished {
                self.finished = true;
                to.finish();
            }
            return Ok(false);
        }
        with_scratch(|scratch| match from.poll_read(cx, &mut scratch.read[..TUNNEL_BUFFER_BYTES]) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(_)) => Err(Gone),
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Ok(true)
            }
            Poll::Ready(Ok(count)) => {
                let bytes = &scratch.read[..count];
                self.frames.feed(bytes);
                if !self.closed {
                    self.kept.write(to, cx, &[IoSlice::new(bytes)]).map_err(|_| Gone)?;
                }
                Ok(true)
            }
        })
    }

    /// Says the last word, if it may stand here.
    fn close(&mut self, cx: &mut Context<'_>, to: &Link, frame: &[u8]) {
        if !self.closed
            && !self.ended
            && !self.frames.is_closed()
            && self.frames.is_between_frames()
            && self.kept.is_empty()
        {
            self.closed = true;
            // A side that has gone shows with the next write or read.
            let _ = self.kept.write(to, cx, &[IoSlice::new(frame)]);
        }
    }
}

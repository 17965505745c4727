//! Buffers: one big one per worker that bytes pass through, and small ones that exist only while a peer does not keep up.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::limits::{KEPT_BYTES_SOFT_MAX, READ_BYTES, READ_BYTES_CROWDED};
use crate::link::Link;

/// What a worker's connections use in turn, each within one poll.
pub(crate) struct Scratch {
    /// Bytes just read.
    pub(crate) read: Box<[u8]>,
    /// A head or a frame being written.
    pub(crate) head: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_BYTES].into_boxed_slice(), head: Vec::with_capacity(1024) });
    /// Bytes in the [`Kept`] of this worker.
    static KEPT: Cell<usize> = const { Cell::new(0) };
}

/// Lends the worker's buffers. Never from inside itself: the borrow would panic.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}

/// Returns how much to read at once: less when many peers of this worker do not keep up, because what they do not take
/// has to be kept.
pub(crate) fn read_size() -> usize {
    if KEPT.get() > KEPT_BYTES_SOFT_MAX { READ_BYTES_CROWDED } else { READ_BYTES }
}

/// Bytes that a peer has not taken yet. While there are any, nothing more is read for it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    sent: usize,
}

impl Kept {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns how many bytes are left to write.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Writes slices as far as the peer takes them and keeps the rest, behind what is kept already. Returns how many
    /// bytes went out.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn write(
        &mut self,
        link: &Link,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let mut written = 0;
        if self.is_empty() {
            match link.poll_write(cx, slices) {
                Poll::Ready(count) => written = count?,
                Poll::Pending => {}
            }
        }
        let mut skip = written;
        for slice in slices {
            let rest = &slice[skip.min(slice.len())..];
            skip -= skip.min(slice.len());
            if !rest.is_empty() {
                self.keep(rest);
            }
        }
        Ok(written)
    }

    /// Keeps bytes for later.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        KEPT.set(KEPT.get() + bytes.len());
    }

    /// Writes what is kept. Ready when nothing is.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn poll_flush(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let count = ready!(link.poll_write(cx, &[IoSlice::new(&self.bytes[self.sent..])]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        if !self.bytes.is_empty() {
            KEPT.set(KEPT.get().saturating_sub(self.bytes.len()));
            // Given back at once: a stream that was slow for a moment may be quiet for hours.
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

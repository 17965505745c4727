//! One TCP connection, to a client or a target, shared between the task that reads and writes it and whoever may cut it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The other side has said that it sends nothing more (poll(2)); `nix` has no name for it.
const CLOSED: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// The connection itself. Its reading side and its writing side each belong to one task at a time.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    is_cut: AtomicBool,
    /// Whoever must hear of a cut although it waits for something else.
    on_cut: AtomicWaker,
    /// The runtime was told that there is nothing to read although there may be: the kernel has to be asked.
    may_have_bytes: AtomicBool,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_cut: AtomicBool::new(false),
            on_cut: AtomicWaker::new(),
            may_have_bytes: AtomicBool::new(false),
        }
    }

    /// Ends the connection from any thread: whoever reads sees its end, whoever writes an error.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        // An error means that it has ended already.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
        self.on_cut.wake();
    }

    /// Returns whether [`Link::cut`] ended it; wakes this task when it does.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> bool {
        self.on_cut.register(cx.waker());
        self.is_cut()
    }

    /// The end, when it comes, is a reset: a reader that knows the end of a message by the end of the connection must
    /// not take it for a good one.
    pub(crate) fn end_badly(&self) {
        // An error means that it has ended already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Returns whether [`Link::cut`] ended it: its end is no good end then.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Says that nothing more will be written.
    pub(crate) fn finish(&self) {
        // An error means that it has ended already.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// Reads what there is, once. 0 is the end.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.may_have_bytes.swap(false, Ordering::Relaxed) {
            match recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    // A full buffer says nothing about what is behind it, and the kernel will not tell of it again.
                    let is_full = matches!(read, Ok(count) if count == buffer.len());
                    self.may_have_bytes.store(is_full, Ordering::Relaxed);
                    return Poll::Ready(read);
                }
            }
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) if count > 0 && count < buffer.len() => {
                    // The kernel had no more: said now, the next poll needs no system call to find out.
                    self.forget_readiness(Interest::READABLE);
                    return Poll::Ready(Ok(count));
                }
                read => return Poll::Ready(read),
            }
        }
    }

    /// Writes as much as the kernel takes now, once.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let written = match slices {
                [one] => self.stream.try_write(one),
                many => self.stream.try_write_vectored(many),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Ready when the other side has closed, without reading what it sent before.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        while let Ok(()) = ready!(self.stream.poll_read_ready(cx)) {
            let mut ends = [PollFd::new(self.stream.as_fd(), CLOSED)];
            // Asks without waiting; a connection that is reset or hung up is always told (poll(2)).
            if !matches!(poll(&mut ends, PollTimeout::ZERO), Ok(0)) {
                break;
            }
            self.may_have_bytes.store(true, Ordering::Relaxed);
            self.forget_readiness(Interest::READABLE);
        }
        Poll::Ready(())
    }

    /// Returns whether an idle connection can take a request, as far as the runtime has heard: the target has neither
    /// closed it nor sent anything.
    pub(crate) fn seems_quiet(&self) -> bool {
        self.stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// As [`Link::seems_quiet`], but asks the kernel, which knows of what has happened since.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        matches!(SockRef::from(&self.stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The runtime forgets that a side is ready; the end of the connection is never forgotten.
    fn forget_readiness(&self, side: Interest) {
        let _ = self.stream.try_io(side, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

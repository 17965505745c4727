//! One TCP connection to a target, shared between the task that reads and writes it and whoever may cut it.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// The connection itself.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    is_cut: AtomicBool,
    cut: Notify,
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream, is_cut: AtomicBool::new(false), cut: Notify::new() })
    }

    /// Ends the connection from any thread: whoever reads sees its end, whoever writes an error.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        // An error means that it has ended already.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
        self.cut.notify_waiters();
    }

    /// Returns whether [`Link::cut`] ended it: its end is no good end then.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Waits for the cut. Cancel-safe.
    pub(crate) async fn wait_cut(&self) {
        let waiting = self.cut.notified();
        if !self.is_cut() {
            waiting.await;
        }
    }

    /// Returns whether an idle connection can take a request: the target has neither closed it nor sent anything. Asks
    /// the kernel, because readiness that the runtime has not yet collected would be missed.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        matches!(SockRef::from(&self.stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The reading and writing side of a [`Link`]; there is one.
#[derive(Debug)]
pub(crate) struct LinkIo(pub(crate) Arc<Link>);

impl AsyncRead for LinkIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) if buf.remaining() > 0 => {
                    // The kernel had no more: say so now, and the next poll needs no system call to find out.
                    let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    let _ = stream.try_io(Interest::READABLE, empty);
                    return Poll::Ready(Ok(()));
                }
                other => return Poll::Ready(other.map(drop)),
            }
        }
    }
}

impl LinkIo {
    fn poll_try_write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match write(&self.0.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.0.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

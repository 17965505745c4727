//! A thread inside a network namespace that makes sockets for the rest of us. It enters once and can never leave, which
//! is why it is a thread of its own: a socket belongs for ever to the namespace that it was made in.

use std::fs::File;
use std::io;
use std::net::TcpStream;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, oneshot};

use crate::limits::{NAMESPACE_QUEUE_MAX, NAMESPACE_STACK_BYTES};

/// A process whose namespace is meant. The start time tells it from a later process with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamespaceId {
    /// Process id.
    pub(crate) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub(crate) started: u64,
}

struct Ask {
    ipv6: bool,
    reply: oneshot::Sender<io::Result<TcpStream>>,
}

/// A namespace that sockets can be made in. Its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    asks: mpsc::Sender<Ask>,
}

impl Namespace {
    /// Starts the thread. Whether the namespace can be entered shows with the first socket.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(crate) fn new(id: NamespaceId) -> io::Result<Self> {
        let (asks, inbox) = mpsc::channel(NAMESPACE_QUEUE_MAX);
        std::thread::Builder::new()
            .name(format!("netns-{}", id.pid))
            .stack_size(NAMESPACE_STACK_BYTES)
            .spawn(move || serve(id, inbox))?;
        Ok(Self { asks })
    }

    /// Returns a new non-blocking, close-on-exec TCP socket of the namespace.
    ///
    /// # Errors
    /// When the process is gone, or this process may not enter the namespace.
    pub(crate) async fn socket(&self, ipv6: bool) -> io::Result<TcpStream> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| io::Error::other("the namespace thread has ended");
        self.asks
            .send(Ask { ipv6, reply })
            .await
            .map_err(|_| io::Error::other("the namespace thread has ended"))?;
        answer.await.map_err(gone)?
    }
}

fn serve(id: NamespaceId, mut inbox: mpsc::Receiver<Ask>) {
    let mut entered = false;
    while let Some(ask) = inbox.blocking_recv() {
        let made = if entered { Ok(()) } else { enter(id) }.and_then(|()| {
            entered = true;
            let domain = if ask.ipv6 { Domain::IPV6 } else { Domain::IPV4 };
            let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
            Ok(TcpStream::from(socket))
        });
        // Nobody waits any more when the request was dropped.
        let _ = ask.reply.send(made);
    }
}

/// Enters the namespace, having made sure before and after opening it that the process is the one that was meant.
fn enter(id: NamespaceId) -> io::Result<()> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, format!("process {} is gone", id.pid));
    if started(id.pid)? != id.started {
        return Err(gone());
    }
    let namespace = File::open(format!("/proc/{}/ns/net", id.pid))?;
    if started(id.pid)? != id.started {
        return Err(gone());
    }
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

fn started(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name may hold spaces and parentheses; what follows its last one starts with field 3.
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(22 - 3));
    field.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("unreadable /proc stat"))
}

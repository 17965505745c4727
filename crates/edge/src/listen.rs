//! The listening socket, and how many connections it may lead to.

use std::io;
use std::net::{SocketAddr, TcpListener};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::error::EdgeError;
use crate::limits::{DESCRIPTORS_RESERVED, LISTEN_BACKLOG};

/// Binds `wanted`. With port 0, the port of last time is tried first.
///
/// # Errors
/// When another process has the port, or the address is not ours.
pub(crate) fn bind(wanted: SocketAddr, last: Option<SocketAddr>) -> Result<TcpListener, EdgeError> {
    let last = last.filter(|last| wanted.port() == 0 && last.ip() == wanted.ip());
    if let Some(last) = last {
        match try_bind(last) {
            Ok(listener) => return Ok(listener),
            Err(error) => tracing::warn!(address = %last, %error, "the last port is taken: taking another"),
        }
    }
    try_bind(wanted).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => EdgeError::PortTaken { address: wanted },
        _ => EdgeError::Listen { address: wanted, source },
    })
}

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    // Lets a restarted edge take the port back while old connections are in TIME_WAIT; a live listener still wins.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit of open files as far as allowed and returns how many client connections each worker may hold: each
/// needs a descriptor for the client and one for the target.
pub(crate) fn connections_per_worker(workers: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        tracing::warn!(hard, "cannot raise the limit of open files");
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let shared = soft.saturating_sub(DESCRIPTORS_RESERVED) / 2;
    // A semaphore counts to far more than any box has descriptors.
    usize::try_from(shared).unwrap_or(usize::MAX).min(u32::MAX as usize) / workers.max(1)
}

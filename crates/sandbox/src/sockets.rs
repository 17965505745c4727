//! Messages over unix sockets, with file descriptors where needed.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message.
pub(crate) const MESSAGE_LIMIT_BYTES: usize = 128 << 10;

/// Makes the line between a shim and its init.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends bytes and descriptors.
pub(crate) fn send_bytes(to: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let slices = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(to.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives at most `buffer.len()` bytes and two descriptors.
#[allow(unsafe_code)]
pub(crate) fn receive_bytes(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel just put these descriptors into our table; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

/// Sends one message over a line from [`pair`].
pub(crate) fn send<T: Serialize>(to: BorrowedFd<'_>, message: &T, fds: &[RawFd]) -> io::Result<()> {
    send_bytes(to, &serde_json::to_vec(message)?, fds).map(drop)
}

/// Receives one message; none when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(from: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_LIMIT_BYTES];
    loop {
        return match receive_bytes(from, &mut buffer) {
            Ok((0, _)) => Ok(None),
            Ok((length, fds)) => Ok(Some((serde_json::from_slice(&buffer[..length])?, fds))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(None),
            Err(error) => Err(error),
        };
    }
}

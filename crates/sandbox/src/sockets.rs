//! Messages over unix sockets, with file descriptors where needed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message between a shim and its init that goes through the line itself; a longer one goes through memory.
const MESSAGE_LIMIT_BYTES: usize = 64 << 10;
/// Stands for a message that lies in the last descriptor that comes along. No JSON begins like this.
const IN_MEMORY: &[u8] = b"@";

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

/// Receives at most `buffer.len()` bytes and three descriptors.
#[allow(unsafe_code)]
pub(crate) fn receive_bytes(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel just put these descriptors into our table; nobody else knows them.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    Ok((message.bytes, fds))
}

/// Sends one message over a line from [`pair`].
pub(crate) fn send<T: Serialize>(to: BorrowedFd<'_>, message: &T, fds: &[RawFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() <= MESSAGE_LIMIT_BYTES {
        return send_bytes(to, &bytes, fds).map(drop);
    }
    let mut memory = File::from(memfd_create(c"trackbed message", MFdFlags::MFD_CLOEXEC)?);
    memory.write_all(&bytes)?;
    memory.seek(SeekFrom::Start(0))?;
    send_bytes(to, IN_MEMORY, &[fds, &[memory.as_raw_fd()]].concat()).map(drop)
}

/// Receives one message; none when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(from: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_LIMIT_BYTES];
    loop {
        return match receive_bytes(from, &mut buffer) {
            Ok((0, _)) => Ok(None),
            Ok((length, mut fds)) if buffer[..length] == *IN_MEMORY => {
                let memory = fds.pop().ok_or(io::ErrorKind::InvalidData)?;
                let mut bytes = Vec::new();
                File::from(memory).read_to_end(&mut bytes)?;
                Ok(Some((serde_json::from_slice(&bytes)?, fds)))
            }
            Ok((length, fds)) => Ok(Some((serde_json::from_slice(&buffer[..length])?, fds))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(None),
            Err(error) => Err(error),
        };
    }
}

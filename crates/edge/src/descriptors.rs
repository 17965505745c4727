//! Open files on their way from one process to another (unix(7), `SCM_RIGHTS`). The crate `rustix` is used because it
//! returns what was received as owned descriptors, without a line of unsafe code here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors in one message at most. More are closed by the kernel on arrival.
pub(crate) const DESCRIPTORS_MAX: usize = 8;

/// Sends bytes with descriptors attached to their first one. Cancel-safe: sent or not.
///
/// # Errors
/// When the other side has gone, or takes less than all of it: messages here are far below a socket's buffer.
pub(crate) async fn send(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("too many descriptors for one message"));
            }
            // A peer that has gone is an error, never a signal.
            Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
        })
        .await?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives up to a buffer of bytes and what is attached to them; 0 bytes are the end. Descriptors are closed in
/// programs that this process starts. Cancel-safe.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(buffer)];
            let received = recvmsg(stream, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            let descriptors = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            Ok((received.bytes, descriptors.flatten().collect()))
        })
        .await
}

//! The API's listener: a unix socket that answers only this user and root.

use std::io;

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// A unix listener that hangs up on everybody but its own user and root (SO_PEERCRED, unix(7)).
pub(crate) struct OwnUserListener(pub(crate) UnixListener);

impl Listener for OwnUserListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) if is_own_user(&stream) => return (stream, address),
                Ok(_) => tracing::warn!("refused a caller of another user"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the API socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

//! Turns an address of the engine into a connection: on this box's own network, or inside a network namespace.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};
use trackbed_core::route::Address;

use crate::limits::CONNECT_TIME_MAX;
use crate::netns::{Namespace, NamespaceId};

/// Connects to one address, again and again.
#[derive(Debug)]
pub(crate) enum Dialler {
    /// On this box's own network.
    Plain(SocketAddr),
    /// Inside a namespace.
    Inside(Namespace, SocketAddr),
}

impl Dialler {
    /// Reads an address: `tcp:<ip>:<port>` or `netns:<pid>@<start time>:<ip>:<port>`.
    ///
    /// # Errors
    /// When it is neither, or when no thread can be made for the namespace.
    pub(crate) fn new(address: &Address) -> io::Result<Self> {
        let text = address.0.as_str();
        let unusable = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{text}` is not an address"));
        if let Some(plain) = text.strip_prefix("tcp:") {
            return Ok(Self::Plain(plain.parse().map_err(|_| unusable())?));
        }
        let (id, inner) =
            text.strip_prefix("netns:").and_then(|rest| rest.split_once(':')).ok_or_else(unusable)?;
        let (pid, started) = id.split_once('@').ok_or_else(unusable)?;
        let id = NamespaceId {
            pid: pid.parse().map_err(|_| unusable())?,
            started: started.parse().map_err(|_| unusable())?,
        };
        let inner = inner.parse().map_err(|_| unusable())?;
        Ok(Self::Inside(Namespace::new(id)?, inner))
    }

    /// Connects, within [`CONNECT_TIME_MAX`]. Safe to drop.
    ///
    /// # Errors
    /// As connect(2), or when the namespace is gone.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, self.connect_unbounded()).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect_unbounded(&self) -> io::Result<TcpStream> {
        let (socket, to) = match self {
            Dialler::Plain(to @ SocketAddr::V4(_)) => (TcpSocket::new_v4()?, to),
            Dialler::Plain(to @ SocketAddr::V6(_)) => (TcpSocket::new_v6()?, to),
            Dialler::Inside(namespace, to) => {
                (TcpSocket::from_std_stream(namespace.socket(to.is_ipv6()).await?), to)
            }
        };
        socket.set_nodelay(true)?;
        socket.connect(*to).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_one_is_refused() {
        for text in
            ["", "tcp:", "tcp:localhost:1", "udp:1.2.3.4:5", "netns:1:127.0.0.1:80", "netns:x@1:127.0.0.1:80"]
        {
            let error = Dialler::new(&Address(text.into())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{text}");
        }
        assert!(Dialler::new(&Address("tcp:[::1]:80".into())).is_ok());
    }
}

//! An HTTP/1.1 connection to a target, driven from inside the task of the request that uses it: no second task, no
//! channel hop between two of them, and what the target sends is passed on in the same turn.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::client_io::RequestBody;
use crate::limits::{BUFFER_BYTES_MAX, HEAD_BYTES_MAX, UPSTREAM_IDLE_MAX};
use crate::link::{Link, LinkIo};

/// The connection itself, polled until it ends or switches to another protocol, and never after.
struct Driven {
    connection: Connection<TokioIo<LinkIo>, RequestBody>,
    ended: bool,
}

impl Driven {
    fn drive(&mut self, cx: &mut Context<'_>) {
        // Its error, if any, also reaches whoever waits for the answer or its body.
        self.ended = self.ended || self.connection.poll_without_shutdown(cx).is_ready();
    }
}

/// A connection and the means to send one request at a time over it.
pub(crate) struct Upstream {
    sender: SendRequest<RequestBody>,
    connection: Driven,
    link: Arc<Link>,
    idle_since: Instant,
}

impl Upstream {
    /// Prepares an open link for HTTP.
    ///
    /// # Errors
    /// None in practice: HTTP/1.1 has no handshake.
    pub(crate) async fn over(link: Arc<Link>) -> io::Result<Box<Self>> {
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX).max_header_size(HEAD_BYTES_MAX);
        let made = builder.handshake(TokioIo::new(LinkIo(Arc::clone(&link)))).await;
        let (sender, connection) = made.map_err(io::Error::other)?;
        let connection = Driven { connection, ended: false };
        Ok(Box::new(Self { sender, connection, link, idle_since: Instant::now() }))
    }

    /// Sends a request and waits for the answer's head. The body goes on being sent while the answer's body is polled.
    ///
    /// # Errors
    /// When the connection ends first. The error still holds the request when nothing of it was written.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            connection.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Moves bytes. Returns whether the connection goes on.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.connection.drive(cx);
        !self.connection.ended
    }

    /// Returns whether the last exchange is over on both sides, so that another may follow.
    pub(crate) fn is_ready(&self) -> bool {
        !self.connection.ended && self.sender.is_ready()
    }

    /// Notes when the connection fell idle.
    pub(crate) fn rest(&mut self) {
        self.idle_since = Instant::now();
    }

    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }

    /// Returns whether an idle connection is young enough and still open.
    pub(crate) fn is_usable(&self) -> bool {
        self.idle_for(Instant::now()) < UPSTREAM_IDLE_MAX && self.link.is_quiet()
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Waits until the connection has switched to another protocol, and returns it with what the target has already
    /// sent in that protocol.
    pub(crate) async fn into_switched(mut self) -> (LinkIo, Bytes) {
        poll_fn(|cx| if self.drive(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        let parts = self.connection.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }
}

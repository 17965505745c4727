//! Drives one client connection: hyper does the protocol, one lazy timer does every time limit.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::client_io::{ClientIo, Watch};
use crate::limits::{BUFFER_BYTES_MAX, CLIENT_IDLE_MAX, HEAD_BYTES_MAX};
use crate::proxy::{self, Client};
use crate::shutdown::Closing;

/// Serves a client until it leaves, breaks a limit, or the edge closes.
pub(crate) async fn serve(stream: TcpStream, client: Arc<Client>, closing: Closing) {
    let watch = Arc::clone(&client.watch);
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&watch)));
    let service = service_fn(move |request| proxy::handle(Arc::clone(&client), request));
    let mut builder = Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX).max_header_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let mut timer = Timer::new();
    let mut timer = Pin::new(&mut timer);
    let mut closed = pin!(closing.wait());
    let mut is_closing = false;
    poll_fn(|cx| {
        loop {
            // Its error is a client that left or broke the protocol; hyper has answered what can be answered.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if is_closing || closed.as_mut().poll(cx).is_pending() {
                break;
            }
            is_closing = true;
            connection.as_mut().graceful_shutdown();
        }
        timer.as_mut().poll_overdue(cx, &watch)
    })
    .await;
}

/// Fires when the watch says that a limit is over. It is moved forward only when it must fire earlier than planned;
/// otherwise it fires, looks again, and is set anew: a busy connection never touches it.
struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(CLIENT_IDLE_MAX)) }
    }

    fn poll_overdue(mut self: Pin<&mut Self>, cx: &mut Context<'_>, watch: &Watch) -> Poll<()> {
        let due = watch.due();
        if let Some(due) = due
            && due < self.sleep.deadline()
        {
            self.sleep.as_mut().reset(due);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let next = match watch.due() {
                Some(due) if due <= now => return Poll::Ready(()),
                Some(due) => due,
                None => now + CLIENT_IDLE_MAX,
            };
            self.sleep.as_mut().reset(next);
        }
        Poll::Pending
    }
}

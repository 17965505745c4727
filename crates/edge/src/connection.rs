//! One client connection: reads heads, has each answered, and ends.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::buffers::with_scratch;
use crate::limits::{
    HEAD_BYTES_MAX, IDLE_BUFFER_BYTES_MAX, LINGER_BYTES_MAX, LINGER_PAUSE_MAX, LINGER_TIME_MAX,
};
use crate::pages::Fault;
use crate::proxy::{Client, Next, Side};
use crate::request::{ClientFacts, Refusal, Request, ends_head, has_bare_line_end, read_request};
use crate::shutdown::Closing;
use crate::watch::Watch;

/// Serves a client until it leaves, breaks a limit, or the edge closes.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    permit: OwnedSemaphorePermit,
    client: Arc<Client>,
    closing: Closing,
) {
    let routes = &client.routes;
    let is_trusted = routes.load().trusted.iter().any(|network| network.contains(peer));
    let Some(place) = routes.sources.take(peer, is_trusted) else {
        tracing::debug!(%peer, "holds too many connections already");
        return;
    };
    let watch = Watch::new(stream, permit, place);
    routes.watches[client.worker].add(&watch);
    let peer_text = peer.to_string();
    let mut side = Side { client: &client, watch: &watch, inbuf: Vec::new(), head: Vec::new() };
    let mut closed = pin!(closing.wait());
    loop {
        let next = match side.read_head(peer, &peer_text, closed.as_mut()).await {
            Head::Request(request) => {
                watch.begin_answer();
                side.answer(&request).await
            }
            Head::Refused(refusal) => {
                watch.begin_answer();
                side.refuse_head(&refusal).await;
                Next::Linger
            }
            Head::Gone => return,
        };
        match next {
            Next::Request => {
                side.rest();
                watch.begin_idle();
            }
            Next::Close => return,
            Next::Linger => return linger(&watch).await,
        }
    }
}

enum Head {
    Request(Request),
    Refused(Box<Refusal>),
    /// The client has left, or the edge closes idle connections.
    Gone,
}

impl Side<'_> {
    /// Gives back what one large request needed: the next one may be long in coming.
    fn rest(&mut self) {
        if self.inbuf.is_empty() && self.inbuf.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.inbuf = Vec::new();
        }
        if self.head.capacity() > IDLE_BUFFER_BYTES_MAX {
            self.head = Vec::new();
        }
    }

    /// Reads the next head and writes it for the target.
    async fn read_head(
        &mut self,
        peer: IpAddr,
        peer_text: &str,
        mut closed: Pin<&mut impl Future<Output = ()>>,
    ) -> Head {
        let mut is_new = true;
        // Where to look on for the end of the head.
        let (mut seen, mut checked) = (0, 0);
        if !self.inbuf.is_empty() {
            self.watch.begin_head();
        }
        loop {
            // A head that comes in pieces is read when it is whole; the first piece at once, since it may be nonsense.
            if !self.inbuf.is_empty() && (is_new || ends_head(&self.inbuf[seen..])) {
                is_new = false;
                let routes = &self.client.routes;
                let table = routes.load();
                let facts = ClientFacts { peer, peer_text, trusted: &table.trusted };
                match read_request(&self.inbuf, &facts, || routes.next_request_id(), &mut self.head) {
                    Ok(Some(request)) => {
                        self.inbuf.drain(..request.head_bytes);
                        return Head::Request(request);
                    }
                    Ok(None) => {}
                    Err(refusal) => return Head::Refused(refusal),
                }
            }
            let refused =
                |fault| Head::Refused(Box::new(Refusal { fault, wants_page: false, is_head: false }));
            // Nobody waits for the rest of what is wrong already.
            if has_bare_line_end(&self.inbuf, checked) {
                return refused(Fault::BareLineEnd);
            }
            if self.inbuf.len() >= HEAD_BYTES_MAX {
                return refused(Fault::HeadTooLarge);
            }
            checked = self.inbuf.len();
            seen = checked.saturating_sub(3);
            let (watch, inbuf) = (self.watch, &mut self.inbuf);
            let is_open = poll_fn(|cx| {
                if inbuf.is_empty() && closed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(false);
                }
                with_scratch(|scratch| {
                    let space = HEAD_BYTES_MAX - inbuf.len();
                    watch.link.poll_read(cx, &mut scratch.read[..space]).map(|read| match read {
                        Ok(0) | Err(_) => false,
                        Ok(count) => {
                            let mut bytes = &scratch.read[..count];
                            if inbuf.is_empty() {
                                // Empty lines before a head are nothing (RFC 9112 §2.2), and gain no time either.
                                while let Some(rest) = bytes.strip_prefix(b"\r\n") {
                                    bytes = rest;
                                }
                                if !bytes.is_empty() {
                                    watch.begin_head();
                                }
                            }
                            inbuf.extend_from_slice(bytes);
                            true
                        }
                    })
                })
            })
            .await;
            if !is_open {
                return Head::Gone;
            }
        }
    }
}

/// Ends a connection whose client may still be sending: closed at once, the kernel would answer that with a reset, and
/// the client might never see why it was refused.
async fn linger(watch: &Watch) {
    watch.link.finish();
    let began = Instant::now();
    let mut left = LINGER_BYTES_MAX;
    while left > 0 && began.elapsed() < LINGER_TIME_MAX {
        let read = poll_fn(|cx| with_scratch(|scratch| watch.link.poll_read(cx, &mut scratch.read)));
        match tokio::time::timeout(LINGER_PAUSE_MAX, read).await {
            Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count),
            _ => return,
        }
    }
}

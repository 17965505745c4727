//! One client connection: reads heads, has each answered, and ends.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::buffers::with_scratch;
use crate::limits::{HEAD_BYTES_MAX, LINGER_BYTES_MAX, LINGER_TIME_MAX};
use crate::pages::Fault;
use crate::proxy::{Client, Next, Side};
use crate::request::{ClientFacts, Refusal, Request, read_request};
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
    let is_trusted = routes.trusted.iter().any(|network| network.contains(peer));
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
        let facts = ClientFacts { peer, peer_text: &peer_text, trusted: &routes.trusted };
        let next = match side.read_head(&facts, closed.as_mut()).await {
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
            Next::Request => watch.begin_idle(),
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
    /// Reads the next head and writes it for the target.
    async fn read_head(
        &mut self,
        facts: &ClientFacts<'_>,
        mut closed: Pin<&mut impl Future<Output = ()>>,
    ) -> Head {
        let mut is_new = true;
        // Where to look on for the end of the head.
        let mut seen = 0;
        if !self.inbuf.is_empty() {
            self.watch.begin_head();
        }
        loop {
            // A head that comes in pieces is read when it is whole; the first piece at once, since it may be nonsense.
            if !self.inbuf.is_empty() && (is_new || ends_head(&self.inbuf[seen..])) {
                is_new = false;
                let routes = &self.client.routes;
                match read_request(&self.inbuf, facts, || routes.next_request_id(), &mut self.head) {
                    Ok(Some(request)) => {
                        self.inbuf.drain(..request.head_bytes);
                        return Head::Request(request);
                    }
                    Ok(None) => {}
                    Err(refusal) => return Head::Refused(refusal),
                }
            }
            if self.inbuf.len() >= HEAD_BYTES_MAX {
                let fault = Fault::HeadTooLarge;
                return Head::Refused(Box::new(Refusal { fault, wants_page: false, is_head: false }));
            }
            seen = self.inbuf.len().saturating_sub(3);
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
                            if inbuf.is_empty() {
                                watch.begin_head();
                            }
                            inbuf.extend_from_slice(&scratch.read[..count]);
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

/// Returns whether there is an empty line.
fn ends_head(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

/// Ends a connection whose client may still be sending: closed at once, the kernel would answer that with a reset, and
/// the client might never see why it was refused.
async fn linger(watch: &Watch) {
    watch.link.finish();
    let drained = poll_fn(|cx| {
        with_scratch(|scratch| {
            let mut left = LINGER_BYTES_MAX;
            loop {
                match watch.link.poll_read(cx, &mut scratch.read) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(count)) if count >= left => return Poll::Ready(()),
                    Poll::Ready(Ok(count)) => left -= count,
                }
            }
        })
    });
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drained).await;
}

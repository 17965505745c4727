//! The body of an answer: a page of our own, or what a target sends, frame by frame as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::client_io::Answering;
use crate::open_request::OpenRequest;
use crate::upstream::Upstream;

/// Why a body ended before its end. The client's connection is closed then, which is how HTTP/1.1 says "incomplete".
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    /// The target went away or broke the protocol.
    #[error("the target ended its answer early")]
    Upstream(#[source] hyper::Error),
    /// The control plane cut the target.
    #[error("the target was cut")]
    Cut,
}

enum Content {
    Empty,
    Page(Bytes),
    Upstream(Exchange),
}

/// An answer's body. The client's connection counts as busy for as long as it lives.
pub(crate) struct Answer {
    content: Content,
    _answering: Answering,
}

impl Answer {
    pub(crate) fn empty(answering: Answering) -> Self {
        Self { content: Content::Empty, _answering: answering }
    }

    pub(crate) fn page(page: Bytes, answering: Answering) -> Self {
        Self { content: Content::Page(page), _answering: answering }
    }

    pub(crate) fn upstream(exchange: Exchange, answering: Answering) -> Self {
        Self { content: Content::Upstream(exchange), _answering: answering }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Page(page) => {
                let page = std::mem::take(page);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(page))))
            }
            Content::Upstream(exchange) => exchange.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Page(page) => page.is_empty(),
            Content::Upstream(exchange) => exchange.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Page(page) => SizeHint::with_exact(page.len() as u64),
            Content::Upstream(exchange) => exchange.incoming.size_hint(),
        }
    }
}

/// A request whose answer is under way. Dropping it before its end closes the connection to the target, which is how
/// the target learns that the client has left.
pub(crate) struct Exchange {
    /// None once the answer is over.
    upstream: Option<Box<Upstream>>,
    incoming: Incoming,
    open: Option<OpenRequest>,
    worker: usize,
}

impl Exchange {
    pub(crate) fn new(upstream: Box<Upstream>, incoming: Incoming, open: OpenRequest, worker: usize) -> Self {
        Self { upstream: Some(upstream), incoming, open: Some(open), worker }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() {
            // Whatever the target has sent is read now and taken at once: nothing waits for more.
            if let Some(upstream) = &mut self.upstream {
                upstream.drive(cx);
            }
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.complete(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(BodyFault::Upstream(error))))),
            // An answer without a length ends with its connection; a cut looks the same and must not.
            Poll::Ready(None) if self.is_cut() => Poll::Ready(Some(Err(self.fail(BodyFault::Cut)))),
            Poll::Ready(None) => {
                self.complete(cx);
                Poll::Ready(None)
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.link().is_cut())
    }

    /// Ends a good exchange: the connection goes back to the idle ones if it can take another request.
    pub(crate) fn complete(&mut self, cx: &mut Context<'_>) {
        let Some(mut upstream) = self.upstream.take() else { return };
        let Some(open) = self.open.take() else { return };
        if upstream.drive(cx) && upstream.is_ready() {
            upstream.rest();
            open.keep_idle(self.worker, upstream);
        }
        open.complete();
    }

    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.upstream = None;
        if let Some(open) = self.open.take() {
            open.fail();
        }
        fault
    }
}

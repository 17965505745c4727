//! A request body that comes through a bounded channel: whoever fills it waits for the box.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// How many chunks may wait in the channel.
const WAITING_CHUNKS_MAX: usize = 4;

/// The end of a source channel that is filled. An error put into it ends the upload, and the box keeps nothing of it.
pub type SourceChunks = mpsc::Sender<io::Result<Bytes>>;

/// Makes a channel for [`crate::Client::upload_source`]. Dropping the sender ends the source.
pub fn source_channel() -> (SourceChunks, mpsc::Receiver<io::Result<Bytes>>) {
    mpsc::channel(WAITING_CHUNKS_MAX)
}

/// How many bytes have gone to the box, and whom to tell.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Returns the number of bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body.
pub(crate) struct ChannelBody<F> {
    pub(crate) chunks: mpsc::Receiver<io::Result<Bytes>>,
    pub(crate) sent: Counter,
    pub(crate) on_progress: F,
}

impl<F: FnMut(u64) + Unpin> Body for ChannelBody<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        this.chunks.poll_recv(context).map(|chunk| {
            let chunk = chunk?;
            if let Ok(bytes) = &chunk {
                let now = this.sent.0.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
                (this.on_progress)(now);
            }
            Some(chunk.map(Frame::data))
        })
    }
}

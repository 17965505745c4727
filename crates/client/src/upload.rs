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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::{Client, ClientError};

    /// Uploads up to 64 MB to a box that reads a little and then answers this and hangs up.
    async fn upload_to(answer: &'static [u8]) -> ClientError {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket =
            std::env::temp_dir().join(format!("trackbed-upload-{}-{number}.sock", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let box_thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 4096]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let (chunks, taken) = source_channel();
        let client = Client::local(socket.clone());
        let filling = async move {
            for _ in 0..1000 {
                if chunks.send(Ok(Bytes::from(vec![7; 64 << 10]))).await.is_err() {
                    break;
                }
            }
        };
        let (refused, ()) = tokio::join!(client.upload_source(taken, None, |_| {}), filling);
        box_thread.join().unwrap();
        std::fs::remove_file(socket).unwrap();
        refused.unwrap_err()
    }

    #[tokio::test]
    async fn an_early_refusal_is_heard_although_the_box_hung_up() {
        let answer = b"HTTP/1.1 413 X\r\ncontent-length: 63\r\nconnection: close\r\n\r\n\
                       {\"error\":{\"code\":\"invalid_source\",\"message\":\"big\",\"hint\":null}}";
        for _ in 0..20 {
            let refused = upload_to(answer).await;
            assert!(matches!(&refused, ClientError::Api(_, 413)), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_box_that_hangs_up_without_a_word_is_a_broken_connection() {
        let refused = upload_to(b"").await;
        assert!(matches!(&refused, ClientError::Transport { .. }), "{refused}");
    }
}

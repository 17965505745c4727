//! Bodies as blocking readers and writers: what comes or goes piece by piece, while somebody works on files.

use std::io::{self, Read, Write};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

/// Pieces that wait for the disk or for the caller; whoever is faster is held back beyond that.
const PIECES_WAITING_MAX: usize = 8;
/// Bytes of a piece that is sent.
const PIECE_BYTES: usize = 256 << 10;

/// Has `work` read a body on a thread where it may block, and returns what came of it.
///
/// # Errors
/// When the work panics.
pub(crate) async fn read_body<T: Send + 'static>(
    body: Body,
    work: impl FnOnce(Pieces) -> T + Send + 'static,
) -> io::Result<T> {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    let working =
        tokio::task::spawn_blocking(move || work(Pieces { waiting, current: Bytes::new(), complete: false }));
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece =
            piece.map(Some).map_err(|error| io::Error::other(format!("the upload broke off: {error}")));
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            break;
        }
    }
    // The end is said aloud: a caller that vanished must not look like a complete upload.
    let _ = pieces.send(Ok(None)).await;
    drop(pieces);
    working.await.map_err(io::Error::other)
}

/// The pieces of an upload as a blocking reader.
pub(crate) struct Pieces {
    waiting: mpsc::Receiver<io::Result<Option<Bytes>>>,
    current: Bytes,
    complete: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.current.has_remaining() && !self.complete {
            match self.waiting.blocking_recv() {
                Some(Ok(Some(piece))) => self.current = piece,
                Some(Ok(None)) => self.complete = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the upload broke off")),
            }
        }
        let count = buffer.len().min(self.current.remaining());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Makes a body of what `work` writes on a thread where it may block. An error of it breaks the body off; when the caller
/// goes, its next write fails.
pub(crate) fn written_body(work: impl FnOnce(&mut Sink) -> io::Result<()> + Send + 'static) -> Body {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    // It ends by itself when nobody reads any more.
    drop(tokio::task::spawn_blocking(move || {
        let mut sink = Sink { pieces, gathered: Vec::new() };
        let outcome = work(&mut sink).and_then(|()| sink.flush());
        if let Err(error) = outcome {
            let _ = sink.pieces.blocking_send(Err(error));
        }
    }));
    let pieces = stream::unfold(waiting, |mut waiting| async move {
        let piece = waiting.recv().await?;
        Some((piece, waiting))
    });
    Body::from_stream(pieces)
}

/// Where the bytes of a body are written.
pub(crate) struct Sink {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the caller has gone");
        self.pieces.blocking_send(Ok(piece)).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_body_arrives_whole_or_as_an_error() {
        let pieces = [Ok(Bytes::from("ab")), Ok(Bytes::new()), Ok(Bytes::from("c"))];
        let body = Body::from_stream(stream::iter(pieces.map(|piece: io::Result<Bytes>| piece)));
        let read = |mut pieces: Pieces| {
            let mut text = String::new();
            pieces.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read_body(body, read).await.unwrap().unwrap(), "abc");
        let broken = [Ok(Bytes::from("ab")), Err(io::Error::other("gone"))];
        let error = read_body(Body::from_stream(stream::iter(broken)), read).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("broke off"), "{error}");
    }

    #[tokio::test]
    async fn what_is_written_goes_out_and_an_error_breaks_it_off() {
        let whole = written_body(|sink| sink.write_all(&vec![7; 3 * PIECE_BYTES + 1]));
        assert_eq!(to_bytes(whole, usize::MAX).await.unwrap().len(), 3 * PIECE_BYTES + 1);
        let broken = written_body(|sink| {
            sink.write_all(b"some")?;
            Err(io::Error::other("the disk"))
        });
        assert!(to_bytes(broken, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn a_caller_that_goes_ends_the_work() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let body = written_body(move |sink| {
            let outcome = (0..).try_for_each(|_: u64| sink.write_all(&[0; 4096]));
            let _ = told.send(());
            outcome
        });
        drop(body);
        tokio::time::timeout(std::time::Duration::from_secs(30), heard).await.unwrap().unwrap();
    }
}

//! One HTTP/1.1 connection for one call. It is driven by whoever waits for the answer, so no task outlives a call.

use std::future::{Future, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::ClientError;
use crate::stream::Stream;
use crate::user::user_id;

/// The body of a request.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Where a box is reached. A remote box (host and token) will be a second variant.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A socket on this machine.
    Socket(PathBuf),
}

/// What moves bytes, until it has ended.
type Driver = Option<Pin<Box<http1::Connection<TokioIo<Stream>, RequestBody>>>>;

/// A connection that moves only while somebody waits for something through it.
pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

impl Connection {
    /// Connects to a place and says hello.
    pub(crate) async fn open(place: &Place, call: &str) -> Result<Self, ClientError> {
        let Place::Socket(socket) = place;
        let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ClientError::NotRunning { socket: socket.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { socket: socket.clone() },
            _ => transport(call, &error),
        })?;
        // A socket below /tmp could be anybody's: variables must not go to a stranger. Elsewhere root may visit.
        let peer = stream.peer_cred().map_err(|error| transport(call, &error))?.uid();
        let own = user_id();
        let visiting = own == 0 && !socket.starts_with("/tmp");
        if peer != 0 && peer != own && !visiting {
            return Err(ClientError::Stranger { socket: socket.clone(), uid: peer });
        }
        let (sender, driver) = http1::handshake(TokioIo::new(Stream::new(stream)))
            .await
            .map_err(|error| transport(call, &error))?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        call: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = self.sender.send_request(request);
        drive(&mut self.driver, answer).await.map_err(|error| transport(call, &error))
    }

    /// Waits for the next piece of a body; none at its end.
    pub(crate) async fn next_chunk(
        &mut self,
        body: &mut Incoming,
        call: &str,
    ) -> Result<Option<Bytes>, ClientError> {
        loop {
            match drive(&mut self.driver, body.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(transport(call, &error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Waits for a whole body.
    pub(crate) async fn whole_body(
        &mut self,
        mut body: Incoming,
        call: &str,
    ) -> Result<Vec<u8>, ClientError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut body, call).await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

/// Waits for `work` while moving the connection along. Its end is no news here: the work fails or ends with it.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(running) = driver
            && running.as_mut().poll(context).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// Puts a broken connection in words, with what lies below it.
pub(crate) fn transport(call: &str, error: &(dyn std::error::Error + 'static)) -> ClientError {
    let mut reason = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        reason = format!("{reason}: {cause}");
        below = cause.source();
    }
    ClientError::Transport { call: call.to_owned(), reason }
}

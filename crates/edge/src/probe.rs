//! A health probe: one request on one fresh connection, dialled exactly as the edge dials.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use trackbed_core::ports::Probe;
use trackbed_core::route::Address;

use crate::dial::Dialler;
use crate::limits::PROBE_QUOTE_BYTES_MAX;

/// Asks once. Without a path an accepted connection is the answer.
pub(crate) async fn probe(address: &Address, path: Option<&str>, host: &str, limit: Duration) -> Probe {
    let connecting = async {
        let dialler = Dialler::new(address)?;
        dialler.connect().await
    };
    let deadline = tokio::time::Instant::now() + limit;
    let stream = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => stream,
        // A namespace that cannot be entered is no refusal of the app, and the reason helps.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Probe::Refused,
        Ok(Err(error)) => return Probe::Broken { detail: format!("cannot connect: {error}") },
        Err(_) => return Probe::Refused,
    };
    let Some(path) = path else {
        return Probe::Answered { status: 200, detail: String::new() };
    };
    match tokio::time::timeout_at(deadline, ask(stream, path, host)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(detail)) => Probe::Broken { detail },
        Err(_) => {
            Probe::Broken { detail: format!("no answer to GET {path} within {} ms", limit.as_millis()) }
        }
    }
}

async fn ask(stream: TcpStream, path: &str, host: &str) -> Result<Probe, String> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, HeaderValue::from_static("Trackbed-Health"))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("`{path}` cannot be asked for: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| explain(&e))?;
    let mut connection = pin!(connection);
    let mut ended = false;
    let mut exchange = pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| explain(&error))?;
        Ok(Probe::Answered { status: answer.status().as_u16(), detail: detail(answer).await })
    });
    std::future::poll_fn(|cx| {
        ended = ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })
    .await
}

fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed without an answer".into();
    }
    if error.is_parse() {
        return format!("the answer was not HTTP: {error}");
    }
    format!("no answer: {error}")
}

/// Returns where a redirect leads, else the first bytes of the body.
async fn detail(answer: Response<Incoming>) -> String {
    if answer.status().is_redirection()
        && let Some(location) = answer.headers().get(LOCATION)
    {
        return String::from_utf8_lossy(location.as_bytes()).into_owned();
    }
    let mut body = answer.into_body();
    let mut quote = Vec::new();
    while quote.len() < PROBE_QUOTE_BYTES_MAX {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => quote.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(_)) | None => break,
        }
    }
    quote.truncate(PROBE_QUOTE_BYTES_MAX);
    String::from_utf8_lossy(&quote).trim().to_owned()
}

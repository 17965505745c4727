//! Requests and answers as bytes.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trackbed_api as api;

use crate::ClientError;
use crate::connection::{Connection, RequestBody};

/// Makes a request.
pub(crate) fn request(method: Method, path: &str, kind: &str, body: RequestBody) -> Request<RequestBody> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "trackbed")
        .header("content-type", kind)
        .header("connection", "close")
        .body(body)
        .expect("paths are escaped and headers are literals")
}

/// Makes a JSON body.
pub(crate) fn json_body(body: &impl Serialize) -> RequestBody {
    let bytes = serde_json::to_vec(body).expect("wire shapes have text keys only");
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole answer, or what the box refused with.
pub(crate) async fn read_body(
    connection: &mut Connection,
    answer: Response<Incoming>,
    call: &str,
) -> Result<Vec<u8>, ClientError> {
    let status = answer.status();
    let bytes = connection.whole_body(answer.into_body(), call).await?;
    if status.is_success() { Ok(bytes) } else { Err(refusal(status.as_u16(), &bytes, call)) }
}

/// Reads a whole answer as JSON.
pub(crate) async fn read_json<T: DeserializeOwned>(
    connection: &mut Connection,
    answer: Response<Incoming>,
    call: &str,
) -> Result<T, ClientError> {
    let bytes = read_body(connection, answer, call).await?;
    parse(&bytes, call)
}

/// Reads JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], call: &str) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Transport {
        call: call.to_owned(),
        reason: format!("cannot read the answer: {error}"),
    })
}

/// Makes an error of an answer that is not 2xx.
pub(crate) fn refusal(status: u16, bytes: &[u8], call: &str) -> ClientError {
    match serde_json::from_slice::<api::ErrorBody>(bytes) {
        Ok(body) => ClientError::Api(body.error, status),
        Err(_) => {
            let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
            ClientError::Transport { call: call.to_owned(), reason: format!("status {status}: {text}") }
        }
    }
}

/// Escapes everything but what RFC 3986 calls unreserved, so that a value fits in a path segment or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_cannot_change_the_path() {
        assert_eq!(escape("a/b?c=d e%é"), "a%2Fb%3Fc%3Dd%20e%25%C3%A9");
        assert_eq!(escape("/data/app.db"), "%2Fdata%2Fapp.db");
    }

    #[test]
    fn a_refusal_without_our_shape_is_quoted() {
        let error = refusal(502, b"bad gateway", "/v1/box");
        assert!(error.to_string().ends_with("status 502: bad gateway"), "{error}");
    }
}

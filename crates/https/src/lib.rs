//! HTTPS to others: object stores, forges, registries. One client for the whole box: it trusts whom the machine trusts, goes
//! through the proxy that the environment names, and fetches files by their checksum.

mod download;
mod proxy;

use std::error::Error;
use std::time::Duration;

use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use download::{File, download};
pub use proxy::{Proxies, Way};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept; S3 closes them after 20 s or so.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// A pool of connections (HTTP/1.1, TLS 1.2 and 1.3). It has no limit for an answer: whoever asks has one.
pub type Client<B> = legacy::Client<HttpsConnector<Way>, B>;

/// Makes a client. It trusts the certificates of the machine, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
///
/// # Errors
/// When there are none, in words for people.
pub fn client<B>(proxies: Proxies) -> Result<Client<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
        format!("this machine has no certificates to trust ({error}); install `ca-certificates`")
    })?;
    let connector = tls.https_or_http().enable_http1().wrap_connector(Way::new(tcp, proxies));
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_LIMIT)
        .build(connector))
}

/// Says an error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

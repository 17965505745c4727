//! The HTTP client of the object stores.

use std::error::Error;
use std::fmt;
use std::io;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::CertificateError;
use trackbed_https::{Client, Proxies};

/// Makes clients.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = trackbed_https::client(Proxies::of_environment())
            .map_err(|why| object_store::Error::Generic { store: "https", source: why.into() })?;
        Ok(HttpClient::new(Pooled(client)))
    }
}

struct Pooled(Client<HttpRequestBody>);

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pooled")
    }
}

#[async_trait]
impl HttpService for Pooled {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.request(request).await.map_err(|error| {
            let failed = Failed::of(&error);
            let kind = match failed.advice {
                // Trying again helps nothing.
                Some(_) => HttpErrorKind::Unknown,
                None if error.is_connect() => HttpErrorKind::Connect,
                None => HttpErrorKind::Request,
            };
            HttpError::new(kind, failed)
        })?;
        let (parts, body) = answer.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, Failed::of(&error)));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// An error with its causes in one line: what is shown of it higher up is one line, too.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failed {
    text: String,
    /// The way out, where nothing but a person helps.
    pub(crate) advice: Option<&'static str>,
}

impl Failed {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut failed = Failed { text: error.to_string(), advice: advice(error) };
        let mut cause = error.source();
        while let Some(next) = cause {
            failed.text.push_str(": ");
            failed.text.push_str(&next.to_string());
            failed.advice = failed.advice.or_else(|| advice(next));
            cause = next.source();
        }
        failed
    }
}

/// Says what to do about an error of TLS.
fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    // One is wrapped into another, and what is within one is not its source.
    let mut inner: &(dyn Error + 'static) = error;
    while let Some(within) = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        inner = within;
    }
    Some(match inner.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "this machine does not trust who signed the certificate of the endpoint: if it is an authority of your own, \
             put its certificate into /usr/local/share/ca-certificates/NAME.crt and run `update-ca-certificates`, or name \
             it by SSL_CERT_FILE in the environment of `trackbed serve` and `trackbed recover`"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "the certificate of the endpoint is out of date, or the clock of this machine is wrong",
        rustls::Error::InvalidCertificate(_) => {
            "check the host name of the endpoint: the certificate that it shows is not for it"
        }
        rustls::Error::InvalidMessage(_) => {
            "the endpoint does not speak TLS there: is it http:// and not https://, or another port?"
        }
        _ => return None,
    })
}

//! The way to a host: straight, or through a proxy (CONNECT, RFC 9110 §9.3.6).

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// Which proxy stands before which host.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl Proxies {
    /// Reads `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, of which the small letters win, as with curl. They are for `https`
    /// only; what is asked for by `http` is in the network of the box, and reached straight.
    pub fn new(find: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let mut found = [name.to_lowercase(), name.to_owned()].into_iter().filter_map(|name| find(&name));
            found.find(|value| !value.is_empty()).unwrap_or_default()
        };
        let matcher = Matcher::builder()
            .all(value("ALL_PROXY"))
            .https(value("HTTPS_PROXY"))
            .no(value("NO_PROXY"))
            .build();
        Self(Arc::new(matcher))
    }

    /// Reads them of this process.
    pub fn of_environment() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    fn find(&self, to: &Uri) -> Option<Intercept> {
        if to.scheme_str() == Some("https") { self.0.intercept(to) } else { None }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They may hold passwords.
        f.write_str("Proxies")
    }
}

/// Makes connections.
#[derive(Debug, Clone)]
pub struct Way {
    tcp: HttpConnector,
    proxies: Proxies,
}

impl Way {
    pub(crate) fn new(tcp: HttpConnector, proxies: Proxies) -> Self {
        Self { tcp, proxies }
    }
}

type Connected = Result<TokioIo<TcpStream>, Box<dyn Error + Send + Sync>>;

impl Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Connected> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.find(&to) else {
            let straight = self.tcp.call(to);
            return Box::pin(async move { Ok(straight.await?) });
        };
        let tcp = self.tcp.clone();
        Box::pin(async move { through(&proxy, tcp, to).await })
    }
}

async fn through(proxy: &Intercept, tcp: HttpConnector, to: Uri) -> Connected {
    // Without the user and the password.
    let host =
        proxy.uri().authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    let name =
        format!("the proxy {}://{}", proxy.uri().scheme_str().unwrap_or("http"), host.unwrap_or_default());
    if proxy.uri().scheme_str() != Some("http") {
        let why = format!("{name} cannot be used: only a proxy at http:// can (HTTPS_PROXY, ALL_PROXY)");
        return Err(io::Error::other(why).into());
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
    if let Some(password) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(password.clone());
    }
    let asked = tunnel.call(to).await;
    asked.map_err(|error| io::Error::other(format!("{name}: {}", crate::chain(&error))).into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let find =
            |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Proxies::new(find)
    }

    /// Asks for a page through a proxy that gives one answer. Returns the error, what the proxy heard, and the first byte
    /// that came after its answer.
    async fn asked(answer: &'static str, login: &str) -> (String, String, Option<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            (String::from_utf8(heard).unwrap(), stream.read_u8().await.ok())
        };
        let proxies = proxies(&[("HTTPS_PROXY", &format!("http://{login}127.0.0.1:{port}"))]);
        let client = crate::client::<Empty<Bytes>>(proxies).unwrap();
        let asked = client.get(Uri::from_static("https://shop.example/index"));
        let both = async { tokio::join!(asked, proxy) };
        let (asked, (heard, next)) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        let error = asked.unwrap_err();
        (crate::chain(&error), heard, next)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel_and_tls_begins_in_it() {
        let (_, heard, next) = asked("HTTP/1.1 200 go on\r\n\r\n", "user:pass@").await;
        assert!(heard.starts_with("CONNECT shop.example:443 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{heard}");
        assert_eq!(next, Some(22), "a TLS handshake");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_without_its_password() {
        let (error, ..) = asked("HTTP/1.1 407 who are you\r\n\r\n", "user:pass@").await;
        assert!(error.contains("the proxy http://127.0.0.1:"), "{error}");
        assert!(error.contains("authorization required") && !error.contains("pass"), "{error}");
    }

    #[tokio::test]
    async fn a_proxy_of_another_kind_is_refused() {
        let client =
            crate::client::<Empty<Bytes>>(proxies(&[("all_proxy", "socks5://127.0.0.1:9")])).unwrap();
        let error = client.get(Uri::from_static("https://shop.example/")).await.unwrap_err();
        let error = crate::chain(&error);
        assert!(error.contains("socks5://127.0.0.1:9 cannot be used"), "{error}");
    }

    #[test]
    fn some_hosts_are_reached_straight() {
        let proxies = proxies(&[
            ("HTTPS_PROXY", "http://loses:1"),
            ("https_proxy", "http://wins:1"),
            ("NO_PROXY", ".inside.example,10.0.0.0/8"),
        ]);
        let found = |to: &str| Some(proxies.find(&to.parse().unwrap())?.uri().host()?.to_owned());
        assert_eq!(found("https://pypi.org/").as_deref(), Some("wins"));
        for straight in ["https://a.inside.example/", "https://10.1.2.3/", "http://pypi.org/"] {
            assert_eq!(found(straight), None, "{straight}");
        }
    }
}

//! Fetches one file, and takes it only when it is the one that was meant.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{LOCATION, USER_AGENT};
use hyper::{Request, Response};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{Client, Proxies, chain, client};

/// How often an address may lead to another.
const REDIRECTS_MAX: usize = 5;

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Where it is.
    pub address: &'a str,
    /// SHA-256 of its bytes, in small hexadecimal digits.
    pub sha256: &'a str,
    /// Not read any further than this.
    pub max_bytes: u64,
}

/// Fetches a file into `target`, which is of no use after an error. Blocking; call it outside of async code, where blocking
/// is fine.
///
/// # Errors
/// For people, with the address: it cannot be reached, does not answer 200, has not arrived within `limit`, is larger than
/// allowed, or has another checksum.
pub fn download(
    file: &File<'_>,
    proxies: Proxies,
    limit: Duration,
    target: &mut impl Write,
) -> Result<(), String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", file.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| named(&error))?;
    runtime.block_on(async {
        match tokio::time::timeout(limit, fetch(file, proxies, target)).await {
            Ok(fetched) => fetched.map_err(|error| named(&error)),
            Err(_) => Err(named(&format!("it was not here within {} s", limit.as_secs()))),
        }
    })
}

async fn fetch(file: &File<'_>, proxies: Proxies, target: &mut impl Write) -> Result<(), String> {
    let client = client(proxies)?;
    let mut body = ask(&client, file.address).await?.into_body();
    let (mut sum, mut bytes) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("it broke off after {bytes} bytes: {}", chain(&error)))?;
        let Ok(piece) = frame.into_data() else { continue };
        bytes += piece.len() as u64;
        if bytes > file.max_bytes {
            return Err(format!("it has more than {} bytes", file.max_bytes));
        }
        sum.update(&piece);
        target.write_all(&piece).map_err(|error| format!("cannot write it: {error}"))?;
    }
    let found: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != file.sha256 {
        return Err(format!("it has the checksum {found}, expected {}", file.sha256));
    }
    Ok(())
}

/// Asks for it, wherever it has moved to; never from `https` to `http`.
async fn ask(client: &Client<Empty<Bytes>>, address: &str) -> Result<Response<Incoming>, String> {
    let mut url = Url::parse(address).map_err(|error| error.to_string())?;
    for _ in 0..=REDIRECTS_MAX {
        let request = Request::get(url.as_str()).header(USER_AGENT, "trackbed").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = client.request(request).await.map_err(|error| chain(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let Some(place) = place.filter(|_| answer.status().is_redirection()) else {
            return Err(format!("{} answered {}", url.host_str().unwrap_or_default(), answer.status()));
        };
        let next =
            url.join(place).map_err(|error| format!("it leads to `{}`: {error}", place.escape_debug()))?;
        if next.scheme() != "https" && next.scheme() != url.scheme() {
            return Err(format!("it leads to {}://, where anybody could change it", next.scheme()));
        }
        url = next;
    }
    Err(format!("it leads elsewhere more than {REDIRECTS_MAX} times"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// `hello` by `sha256sum`.
    const SUM: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    /// Fetches from a server that gives these answers, one a connection; `{}` in them is its own address.
    fn fetched(answers: &'static [&'static str], limit: Duration) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let own = host.clone();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    heard.push(byte[0]);
                }
                let answer = answer.replace("{}", &own);
                // Whoever has enough of it hangs up.
                let _ = stream.write_all(answer.as_bytes());
                if answer.ends_with("…") {
                    kept.push(stream);
                }
            }
            if !kept.is_empty() {
                std::thread::sleep(Duration::from_secs(5));
            }
        });
        let mut bytes = Vec::new();
        let address = format!("http://{host}/file");
        let file = File { address: &address, sha256: SUM, max_bytes: 10 };
        let done = download(&file, Proxies::new(|_| None), limit, &mut bytes);
        done.map(|()| bytes).map_err(|error| error.replace(&host, "HOST"))
    }

    const LONG: Duration = Duration::from_secs(20);
    const HELLO: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
    const MOVED: &str =
        "HTTP/1.1 302 Found\r\nlocation: /other\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn a_file_is_fetched_wherever_it_has_moved_to() {
        assert_eq!(fetched(&[HELLO], LONG).unwrap(), b"hello");
        assert_eq!(fetched(&[MOVED, MOVED, HELLO], LONG).unwrap(), b"hello");
    }

    #[test]
    fn what_is_not_the_file_is_refused_by_name() {
        for (answers, why) in [
            (
                &["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhallo"][..],
                "has the checksum d3751d33f9cd5049c4af",
            ),
            (&["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello hello hello"], "more than 10 bytes"),
            (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"], "broke off after 3 bytes"),
            (&["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"], "answered 404 Not Found"),
            (&["HTTP/1.1 302 Found\r\nlocation: ftp://x/\r\ncontent-length: 0\r\n\r\n"], "leads to ftp://"),
            (&[MOVED, MOVED, MOVED, MOVED, MOVED, MOVED], "more than 5 times"),
            (&["not http at all\r\n\r\n"], "invalid"),
        ] {
            let error = fetched(answers, LONG).unwrap_err();
            assert!(error.starts_with("http://HOST/file: ") && error.contains(why), "no `{why}` in: {error}");
        }
    }

    #[test]
    fn a_server_that_stops_in_the_middle_is_not_waited_for() {
        let answers = &["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nh…"];
        let error = fetched(answers, Duration::from_secs(1)).unwrap_err();
        assert!(error.ends_with("it was not here within 1 s"), "{error}");
    }
}

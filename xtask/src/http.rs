//! Just enough HTTP to talk to a deployed app as its user would: one request a connection, bodies read as they arrive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest silence of an answer.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Sends a request to `url` (`http://name.localhost:8080/path`), by way of loopback, and returns status and body.
pub fn call(method: &str, url: &str, body: Option<&str>) -> Result<(u16, String)> {
    let mut text = String::new();
    let status = stream(method, url, body, |line| text.push_str(line))?;
    Ok((status, text))
}

/// Sends a request to an address, for any host.
pub fn call_at(
    address: &str,
    method: &str,
    host: &str,
    path: &str,
    body: Option<&str>,
) -> Result<(u16, String)> {
    let mut text = String::new();
    let status = stream_at(address, method, host, path, body, |line| text.push_str(line))?;
    Ok((status, text))
}

/// As [`call`], but hands over each line of the body as soon as it is there.
pub fn stream(method: &str, url: &str, body: Option<&str>, each: impl FnMut(&str)) -> Result<u16> {
    let rest = url.strip_prefix("http://").context("the URL does not begin with http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
    stream_at(&format!("127.0.0.1:{port}"), method, host, &format!("/{path}"), body, each)
}

fn stream_at(
    address: &str,
    method: &str,
    host: &str,
    path: &str,
    body: Option<&str>,
    mut each: impl FnMut(&str),
) -> Result<u16> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(READ_LIMIT))?;
    let body = body.unwrap_or("");
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status: u16 =
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("that was no HTTP answer")?;
    let mut chunked = false;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        chunked |= line.to_lowercase().starts_with("transfer-encoding: chunked");
    }
    if !chunked {
        while {
            line.clear();
            reader.read_line(&mut line)? > 0
        } {
            each(&line);
        }
        return Ok(status);
    }
    let mut text = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Ok(size) = usize::from_str_radix(line.trim(), 16) else {
            bail!("`{}` is no chunk size", line.trim())
        };
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        text.push_str(&String::from_utf8_lossy(&chunk[..size]));
        while let Some(end) = text.find('\n') {
            each(&text.drain(..=end).collect::<String>());
        }
        if size == 0 {
            each(&text);
            return Ok(status);
        }
    }
}

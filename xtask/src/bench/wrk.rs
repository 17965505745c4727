//! The load: Debian's `wrk`, one thread, and what it says.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::peers::{HOST, REST_CPU, pinned};

/// What one run saw.
pub(super) struct Seen {
    pub(super) requests: f64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Socket errors and answers that are not 2xx or 3xx.
    pub(super) errors: f64,
}

/// Sends requests over `connections` for `seconds`.
pub(super) fn run(port: u16, path: &str, connections: u64, seconds: u64) -> Result<Seen> {
    let output = pinned(REST_CPU)
        .args(["wrk", "--latency", "--threads", "1", "--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--timeout", "10s"])
        .args(["--header", &format!("Host: {HOST}")])
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .stdin(Stdio::null())
        .output()
        .context("cannot run wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "wrk failed ({}): {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    parse(&said).with_context(|| format!("wrk said something unexpected: {said}"))
}

fn parse(said: &str) -> Option<Seen> {
    let line_with = |part: &str| said.lines().map(str::trim).find(|line| line.contains(part));
    let percentile = |name: &str| {
        let line = said.lines().map(str::trim).find(|line| line.starts_with(name))?;
        microseconds(line.split_whitespace().nth(1)?)
    };
    // `52340 requests in 2.00s, 12.3MB read`
    let mut total = line_with(" requests in ")?.split_whitespace();
    let requests = total.next()?.parse().ok()?;
    let seconds = microseconds(total.nth(2)?.trim_end_matches(','))? / 1e6;
    let numbers =
        |line: &str| -> f64 { line.split([' ', ',']).filter_map(|word| word.parse::<f64>().ok()).sum() };
    let errors = line_with("Socket errors:").map_or(0.0, numbers);
    let bad = line_with("Non-2xx").and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Some(Seen {
        requests,
        seconds,
        p50_us: percentile("50%")?,
        p99_us: percentile("99%")?,
        errors: errors + bad.unwrap_or(0.0),
    })
}

/// Reads `83.00us`, `1.05ms`, `2.00s` or `1.00m`.
fn microseconds(text: &str) -> Option<f64> {
    let (unit, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)]
        .into_iter()
        .find(|(unit, _)| text.ends_with(unit))?;
    Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_wrk_says_is_read_with_its_errors() {
        let seen = parse(
            "Running 2s test @ http://127.0.0.1:1/small\n  1 threads and 64 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.13ms  200.00us   9.00ms   90.00%\n    Req/Sec    26.00k     1.00k   28.00k    90.00%\n  Latency Distribution\n     50%    1.05ms\n     75%    1.20ms\n     90%    1.40ms\n     99%  980.00us\n  52340 requests in 2.10s, 12.30MB read\n  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 12\nRequests/sec:  26123.11\nTransfer/sec:      6.10MB\n",
        )
        .expect("as wrk says it");
        assert_eq!((seen.requests, seen.seconds, seen.errors), (52340.0, 2.1, 18.0));
        assert_eq!((seen.p50_us, seen.p99_us), (1050.0, 980.0));
    }
}

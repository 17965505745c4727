//! One case on the wire: sent in one of several cuts, read until there is enough, and probed whether the connection is
//! still in step.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout};

use super::judge::{Case, Ending};
use super::recorder::{Recorder, find};

/// How long the edge may take to answer or to close: well above what a busy machine needs, and below its own deadline
/// for a head, which would end everything.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// Silence after which an unfinished message counts as waited for. Too short, it would only look less closely.
const SILENCE: Duration = Duration::from_millis(700);
/// How often is looked whether there is enough.
const TICK: Duration = Duration::from_millis(60);
/// Pause between two parts of a message that is cut at its line ends, so that they arrive apart.
const CUT_PAUSE: Duration = Duration::from_millis(1);
/// Cuts with a pause; the rest of a message with more goes out in one piece.
const CUTS_MAX: usize = 40;

/// How a message is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    /// Between CR and LF, where a parser is most easily confused.
    InsideLineEnds,
    Bytewise,
}

/// What the client saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Final statuses, in order.
    pub(super) statuses: Vec<u16>,
    pub(super) after: After,
}

/// The connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Closed,
    /// A further request got its own answer, so nothing of this one was left over.
    InStep,
    /// A further request got another's answer, or none.
    OutOfStep,
    /// Still open, and nothing refused.
    Open,
}

/// Sends a case and returns what came of it.
pub(super) async fn exchange(
    case: &Case,
    cut: Cut,
    edge: SocketAddr,
    recorder: &Recorder,
) -> std::io::Result<Seen> {
    let stream = TcpStream::connect(edge).await?;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    let parts = parts_of(&case.raw, cut);
    let sending = async {
        for part in parts {
            // The edge may refuse before it has everything.
            if to.write_all(part).await.is_err() {
                break;
            }
            match cut {
                Cut::Whole => {}
                Cut::InsideLineEnds => tokio::time::sleep(CUT_PAUSE).await,
                Cut::Bytewise => tokio::task::yield_now().await,
            }
        }
        to
    };
    let mut bytes = Vec::new();
    let reading = async {
        let mut silence = Duration::ZERO;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let patience = if case.ending == Ending::Incomplete { SILENCE } else { ANSWER_LIMIT };
        while silence < patience && Instant::now() < deadline {
            match read_for(TICK, &mut from, &mut bytes).await {
                Got::Bytes => silence = Duration::ZERO,
                Got::End => return After::Closed,
                Got::Nothing => silence += TICK,
            }
            let statuses = statuses_of(&bytes);
            let refused = statuses.iter().any(|status| *status >= 300) && silence > TICK;
            let served = matches!(case.ending, Ending::Clean | Ending::Either)
                && !case.requests.is_empty()
                && statuses.len() >= case.requests.len()
                && recorder.count() >= case.requests.len();
            // More than there should be: nothing that comes later makes it right, but all of it is this case's.
            let too_many = statuses.len() > case.requests.len() && silence >= SILENCE;
            if refused || served || too_many {
                break;
            }
        }
        After::Open
    };
    let (mut to, mut after) = tokio::join!(sending, reading);
    let statuses = statuses_of(&bytes);
    if after == After::Open && statuses.last().is_some_and(|status| *status >= 300) {
        after = probe(&mut to, &mut from, recorder).await;
    }
    Ok(Seen { statuses, after })
}

enum Got {
    Bytes,
    End,
    Nothing,
}

async fn read_for(limit: Duration, from: &mut OwnedReadHalf, bytes: &mut Vec<u8>) -> Got {
    let mut buffer = vec![0; 16 * 1024];
    match timeout(limit, from.read(&mut buffer)).await {
        Ok(Ok(count)) if count > 0 => {
            bytes.extend_from_slice(&buffer[..count]);
            Got::Bytes
        }
        Ok(_) => Got::End,
        Err(_) => Got::Nothing,
    }
}

/// Sends one more request on a connection that was left open after a refusal.
async fn probe(to: &mut OwnedWriteHalf, from: &mut OwnedReadHalf, recorder: &Recorder) -> After {
    let before = recorder.count();
    if to.write_all(b"GET /probe HTTP/1.1\r\nHost: a.test\r\n\r\n").await.is_err() {
        return After::Closed;
    }
    let mut bytes = Vec::new();
    let deadline = Instant::now() + ANSWER_LIMIT;
    while statuses_of(&bytes).is_empty() && Instant::now() < deadline {
        if matches!(read_for(TICK, from, &mut bytes).await, Got::End) {
            return if bytes.is_empty() { After::Closed } else { After::OutOfStep };
        }
    }
    let own = recorder.count() == before + 1 && recorder.take_back("/probe");
    match statuses_of(&bytes)[..] {
        [200] if own => After::InStep,
        _ => After::OutOfStep,
    }
}

fn parts_of(raw: &[u8], cut: Cut) -> Vec<&[u8]> {
    match cut {
        Cut::Whole => vec![raw],
        Cut::Bytewise => raw.chunks(1).collect(),
        Cut::InsideLineEnds => {
            raw.splitn(CUTS_MAX, |byte| *byte == b'\r').fold(Vec::new(), |mut parts, line| {
                let begin = line.as_ptr() as usize - raw.as_ptr() as usize;
                // With the CR that ends it.
                parts.push(&raw[begin..(begin + line.len() + 1).min(raw.len())]);
                parts
            })
        }
    }
}

/// Reads the final statuses of the answers. The target's have no body; after one of the edge's own nothing is looked for.
fn statuses_of(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(end) = find(bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        bytes = &bytes[end + 4..];
        if status >= 200 {
            statuses.push(status);
        }
        if status >= 300 {
            break;
        }
    }
    statuses
}

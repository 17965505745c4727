//! Sends one case in several cuts and says whether the edge did as the suite wants.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout};

use super::recorder::{Arrived, Record, Recorder, find};

/// How long the edge may take to answer or to close: well above what a busy machine needs.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Silence after which it counts as waiting for more. Shorter than the edge's own deadlines, which would end it anyway.
const SILENCE: Duration = Duration::from_millis(700);
/// How often is looked whether there is enough.
const TICK: Duration = Duration::from_millis(60);
/// Pause between two parts of a message that is cut at its line ends, so that they arrive apart.
const CUT_PAUSE: Duration = Duration::from_millis(1);
/// Cuts with a pause; the rest of a message with more goes out in one piece.
const CUTS_MAX: usize = 40;
/// Longest message that is sent byte by byte.
const BYTEWISE_BYTES_MAX: usize = 4096;

/// What a message is, and so what must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing is wrong with it.
    Clean,
    /// After the whole requests comes something malformed.
    Error,
    /// After the whole requests comes the beginning of another.
    Incomplete,
    /// Refused, or passed on as exactly the request that is expected: the RFC leaves it open.
    Either,
}

/// A request that must arrive.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) raw: Vec<u8>,
    pub(super) ending: Ending,
    pub(super) requests: Vec<Expected>,
    /// The only status that is right for a refusal, when there is only one.
    pub(super) status: Option<u16>,
    /// It is no HTTP/1: closing without a word is an answer too.
    pub(super) silence_will_do: bool,
}

/// What the edge did, seen from the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Agreed,
    /// Refused, though the suite accepts it. Nothing reached the target.
    Stricter(String),
    /// Passed on as well-formed requests, though the suite refuses it.
    Looser(String),
    /// Anything else: smuggled, mangled, not answered, not closed.
    Wrong(String),
}

impl Verdict {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Verdict::Agreed => "agreed",
            Verdict::Stricter(_) => "stricter",
            Verdict::Looser(_) => "looser",
            Verdict::Wrong(_) => "wrong",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Agreed => write!(out, "agreed"),
            Verdict::Stricter(what) | Verdict::Looser(what) | Verdict::Wrong(what) => {
                write!(out, "{}: {what}", self.word())
            }
        }
    }
}

/// How a message is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Whole,
    /// Between CR and LF, where a parser is most easily confused.
    InsideLineEnds,
    Bytewise,
}

/// What the client saw.
#[derive(Debug)]
struct Seen {
    /// Final statuses, in order.
    statuses: Vec<u16>,
    after: After,
}

/// The connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Closed,
    /// A further request got its own answer, so nothing of this one was left over.
    InStep,
    /// A further request got another's answer, or none.
    OutOfStep,
    /// Still open, and nothing refused.
    Open,
}

/// Sends a case in every cut; the worst verdict counts.
pub(super) async fn judge(case: &Case, edge: SocketAddr, recorder: &Recorder) -> Verdict {
    let mut worst = Verdict::Agreed;
    for cut in [Cut::Whole, Cut::InsideLineEnds, Cut::Bytewise] {
        if cut == Cut::Bytewise && case.raw.len() > BYTEWISE_BYTES_MAX {
            continue;
        }
        recorder.take();
        let seen = exchange(case, cut, edge, recorder).await;
        let verdict = match seen {
            Ok(seen) => compare(case, &seen, &recorder.take()),
            Err(error) => Verdict::Wrong(format!("the connection failed: {error}")),
        };
        let verdict = match (verdict, cut) {
            (Verdict::Wrong(what), Cut::InsideLineEnds | Cut::Bytewise) => {
                Verdict::Wrong(format!("{what} (sent {cut:?})"))
            }
            (verdict, _) => verdict,
        };
        match (&worst, &verdict) {
            (_, Verdict::Wrong(_)) => return verdict,
            (Verdict::Agreed, _) => worst = verdict,
            (one, other) if one.word() != other.word() => {
                return Verdict::Wrong(format!("it depends on how the bytes are cut: {one} / {other}"));
            }
            _ => {}
        }
    }
    worst
}

async fn exchange(case: &Case, cut: Cut, edge: SocketAddr, recorder: &Recorder) -> std::io::Result<Seen> {
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
        while silence < SILENCE && Instant::now() < deadline {
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
            if refused || served {
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

fn compare(case: &Case, seen: &Seen, record: &Record) -> Verdict {
    if let Some(what) = record.malformed.first() {
        return Verdict::Wrong(format!("the target got something malformed: {what}"));
    }
    let whole = record.requests.len();
    let good = seen.statuses.iter().take_while(|status| **status == 200).count();
    let refusal = seen.statuses.get(good).copied();
    if whole < good {
        return Verdict::Wrong(format!("{good} answered well, but {whole} arrived"));
    }
    let told = || {
        let targets: Vec<String> =
            record.requests.iter().map(|one| format!("{} {}", one.method, one.target)).collect();
        format!("arrived {targets:?}, answered {:?}, {:?}", seen.statuses, seen.after)
    };
    if let Some(what) = first_difference(&case.requests, &record.requests) {
        return Verdict::Wrong(format!("{what}; {}", told()));
    }
    let safe = matches!(seen.after, After::Closed | After::InStep);
    let refused = match refusal {
        // That would be the answer to anything: such a case tests nothing.
        Some(404) if case.ending != Ending::Clean => {
            return Verdict::Wrong(format!("not routed; {}", told()));
        }
        Some(status) => matches!(status, 400..=499 | 501 | 505) && safe,
        None => case.silence_will_do && seen.after == After::Closed,
    };
    if let (Some(wanted), Some(status), true) = (case.status, refusal, refused)
        && wanted != status
    {
        return Verdict::Wrong(format!("refused with {status} instead of {wanted}"));
    }
    let wanted = case.requests.len();
    match case.ending {
        Ending::Clean if whole == wanted && good == wanted && record.unfinished.is_empty() => Verdict::Agreed,
        Ending::Clean if whole < wanted && refused => Verdict::Stricter(told()),
        Ending::Either if whole == wanted && good == wanted && record.unfinished.is_empty() => {
            Verdict::Agreed
        }
        Ending::Either if whole == 0 && refused => Verdict::Agreed,
        // After a whole request the answer to it may be the last thing said; before, the client must hear why.
        Ending::Error if whole == wanted && (refused || (wanted > 0 && seen.after == After::Closed)) => {
            Verdict::Agreed
        }
        Ending::Error if whole > wanted && whole == good => Verdict::Looser(told()),
        Ending::Error if whole == wanted && seen.after == After::Open => {
            Verdict::Looser(format!("waits for more; {}", told()))
        }
        Ending::Error if whole < wanted && refused => Verdict::Stricter(told()),
        Ending::Incomplete if whole == wanted && good == wanted => Verdict::Agreed,
        Ending::Incomplete if whole < wanted && refused => Verdict::Stricter(told()),
        Ending::Clean | Ending::Either | Ending::Error | Ending::Incomplete => Verdict::Wrong(format!(
            "wanted {:?} after {wanted}; {} {:?}",
            case.ending,
            told(),
            record.unfinished
        )),
    }
}

/// Fields that belong to one connection, and those that the edge sets itself.
const NOT_COMPARED: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

fn first_difference(expected: &[Expected], arrived: &[Arrived]) -> Option<String> {
    for (expected, arrived) in expected.iter().zip(arrived) {
        let target = origin_form(&expected.target);
        if (&expected.method, &target) != (&arrived.method, &origin_form(&arrived.target)) {
            return Some(format!("wanted `{} {target}`", expected.method));
        }
        if expected.body != arrived.body {
            return Some(format!("the body is {:?}", String::from_utf8_lossy(&arrived.body)));
        }
        let named_away = |name: &str| {
            let connection = expected.headers.iter().filter(|(known, _)| known == "connection");
            let mut words = connection.flat_map(|(_, value)| value.split(','));
            words.any(|word| word.trim().eq_ignore_ascii_case(name))
        };
        for (name, value) in &expected.headers {
            let name = name.trim();
            if NOT_COMPARED.contains(&name) || named_away(name) {
                continue;
            }
            let mut found = arrived.headers.iter().filter(|(known, _)| known == name);
            // A list in several fields may have been joined.
            if !found.any(|(_, found)| found == value.trim() || found.contains(value.trim())) {
                return Some(format!("no field `{name}: {value}`"));
            }
        }
    }
    None
}

/// Returns path and query of an absolute target, without a fragment, which is not sent; others as they are.
fn origin_form(target: &str) -> String {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
                Some(at) => format!("/{}", &rest[at..]),
                None => "/".to_owned(),
            }
        }
        _ => target.to_owned(),
    };
    path.split('#').next().unwrap_or_default().to_owned()
}

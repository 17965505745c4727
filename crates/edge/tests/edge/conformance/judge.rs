//! Sends one case in several cuts and says whether the edge did as the suite wants.

use std::fmt;
use std::net::SocketAddr;

use super::exchange::{After, Cut, Seen, exchange};
use super::recorder::{Arrived, Record, Recorder};

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

impl Ending {
    /// What is wanted, for people.
    fn after(self, requests: usize) -> String {
        match self {
            Ending::Clean => format!("{requests} requests served"),
            Ending::Error => format!("a refusal after {requests} requests"),
            Ending::Incomplete => format!("nothing but {requests} requests served"),
            Ending::Either => format!("{requests} requests served, or a refusal"),
        }
    }
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
        let after = match seen.after {
            After::Closed => "closed",
            After::InStep => "left open, in step",
            After::OutOfStep => "left open, out of step",
            After::Open => "left open",
        };
        format!("arrived {targets:?}, answered {:?}, {after}", seen.statuses)
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
        Ending::Error if whole > wanted && good > wanted => Verdict::Looser(told()),
        Ending::Error if whole == wanted && seen.after == After::Open => {
            Verdict::Looser(format!("waits for more; {}", told()))
        }
        Ending::Error if whole < wanted && refused => Verdict::Stricter(told()),
        Ending::Incomplete if whole == wanted && good == wanted => Verdict::Agreed,
        Ending::Incomplete if whole < wanted && refused => Verdict::Stricter(told()),
        Ending::Clean | Ending::Either | Ending::Error | Ending::Incomplete => {
            let unfinished = match &record.unfinished[..] {
                [] => String::new(),
                [(_, bytes), ..] => format!("; the target has an unfinished {bytes:?}"),
            };
            Verdict::Wrong(format!("wanted {}; {}{unfinished}", case.ending.after(wanted), told()))
        }
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

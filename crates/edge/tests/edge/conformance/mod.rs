//! HTTP/1.1 conformance: what a request on the wire becomes behind the edge. Request corpora of other servers, fetched when the
//! tests run, and cases of our own for what a proxy is attacked with. What is malformed must be refused and the
//! connection closed; what is well-formed must arrive as exactly one well-formed request for each, no matter how the
//! bytes are cut into packets.

#![allow(clippy::print_stderr, reason = "said to whoever runs the tests")]

mod exchange;
mod foreign;
mod judge;
mod own;
mod own_bodies;
mod own_heads;
mod recorder;

use std::path::PathBuf;

use crate::support::{TestEdge, serving};
use judge::{Case, Verdict};
use recorder::Recorder;

/// Hosts that the corpora ask for. Those that are no names are no routes either.
const HOSTS: [&str; 19] = [
    "a.test",
    "b.test",
    "a",
    "x",
    "foo",
    "localhost",
    "whatever",
    "victim.com",
    "example.com",
    "www.example.com",
    "evil.example.com",
    "example.org",
    "github.com",
    "hypnotoad.org",
    "127.0.0.1",
    "0.0.0.0",
    "239.255.255.250",
    "[::1]",
    "::1",
];

/// A case of a suite with a verdict that is not "agreed", and why that is right.
pub(crate) struct Deviation {
    pub(crate) suite: &'static str,
    pub(crate) case: &'static str,
    pub(crate) reason: &'static str,
}

/// What came of a suite, for the test and for the report.
struct Outcome {
    rows: Vec<(String, Verdict, Option<&'static str>)>,
}

impl Outcome {
    /// Every case that did not do as its suite wants and has no reason to.
    fn unexplained(&self) -> Vec<String> {
        let wrong = self.rows.iter().filter(|(_, verdict, reason)| match verdict {
            Verdict::Agreed => false,
            Verdict::Stricter(_) | Verdict::Looser(_) => reason.is_none(),
            Verdict::Wrong(_) => true,
        });
        wrong.map(|(name, verdict, _)| format!("{name}: {verdict}")).collect()
    }
}

/// Runs the cases of one suite, one after the other, against an edge of its own, and leaves the rows for the report.
async fn run(
    suite: &str,
    source: &str,
    left_out: usize,
    cases: &[Case],
    deviations: &[Deviation],
) -> Outcome {
    let recorder = Recorder::start().await;
    let edge = TestEdge::start().await;
    let known = HOSTS.iter().filter(|host| host.parse::<trackbed_core::Host>().is_ok());
    let routes: Vec<_> = known.map(|host| (*host, serving(1, recorder.address))).collect();
    edge.apply(&routes).await;
    let mut rows = Vec::new();
    for case in cases {
        let verdict = judge::judge(case, edge.address, &recorder).await;
        let named = deviations.iter().find(|known| known.suite == suite && known.case == case.name);
        rows.push((case.name.clone(), verdict, named.map(|known| known.reason)));
    }
    let needed = |known: &&Deviation| {
        rows.iter().any(|(name, verdict, _)| name == known.case && *verdict != Verdict::Agreed)
    };
    let stale: Vec<_> = deviations.iter().filter(|known| known.suite == suite && !needed(known)).collect();
    let stale: Vec<_> = stale.iter().map(|known| known.case).collect();
    assert!(stale.is_empty(), "{suite}: listed as deviations, but they agree: {stale:?}");
    edge.stop().await;
    let outcome = Outcome { rows };
    leave_rows(suite, source, left_out, &outcome);
    outcome
}

/// Where corpora and rows are kept: below the target folder.
fn kept_in() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance")
}

fn leave_rows(suite: &str, source: &str, left_out: usize, outcome: &Outcome) {
    let rows: Vec<_> = outcome
        .rows
        .iter()
        .map(|(name, verdict, reason)| {
            serde_json::json!({ "case": name, "verdict": verdict.word(), "said": verdict.to_string(), "reason": reason })
        })
        .collect();
    let report = serde_json::json!({ "suite": suite, "source": source, "left_out": left_out, "rows": rows });
    let folder = kept_in();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{suite}.json")), report.to_string()).unwrap();
}

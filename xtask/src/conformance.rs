//! `cargo xtask conformance`: runs the conformance tests of the edge and writes what came of them to `docs/conformance.md`.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::install;
use crate::shell::{self, root, say, target_dir};

const SUITES: [&str; 3] = ["gunicorn", "llhttp", "own"];

/// Runs the suites and writes the report. Fails when a case is neither agreed nor explained.
pub fn run() -> Result<()> {
    install::ensure(&[install::BOX])?;
    let rows = target_dir().join("tmp/conformance");
    for suite in SUITES {
        // Rows of an earlier run would look like this one's.
        let _ = std::fs::remove_file(rows.join(format!("{suite}.json")));
    }
    say("the conformance tests of the edge");
    let arguments = ["test", "--release", "--package", "trackbed-edge", "--test", "edge", "conformance::"];
    let tested = shell::run("cargo", &arguments);
    let mut suites = Vec::new();
    for suite in SUITES {
        let path = rows.join(format!("{suite}.json"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("the suite `{suite}` left no rows; could its corpus not be fetched?"))?;
        suites.push(serde_json::from_str::<Value>(&text)?);
    }
    let path = root().join("docs/conformance.md");
    std::fs::write(&path, report(&suites)?)?;
    println!("{}", table(&suites)?);
    println!("written to {}", path.display());
    if let Err(error) = tested {
        bail!("not every case is agreed or explained: {error:#}");
    }
    Ok(())
}

fn report(suites: &[Value]) -> Result<String> {
    let mut text = String::from(
        "# HTTP/1.1 conformance of the edge

Written by `cargo xtask conformance`; do not edit. Each case is sent to an edge on loopback in one write, cut inside its line
ends, and byte by byte; a recording target behind it says what arrived. *Agreed*: what the suite accepts arrived as exactly
those requests, each well-formed, with method, target, fields and body; what it refuses was answered with 4xx and the
connection was closed or provably in step, and nothing of it reached the target as a request. *Stricter*: refused although the suite accepts
it. *Looser*: passed on, well-formed, although the suite refuses it. *Wrong*: anything else. Left out are cases that
test a setting or a limit of that server, upgrades, and messages that are no requests. The corpora are fetched when
the tests run, pinned by version and digest (`crates/edge/tests/edge/conformance/corpora.py`), with a `Host` added where there is none.

",
    );
    writeln!(text, "{}.\n", install::machine())?;
    text.push_str(&table(suites)?);
    for (title, explained) in
        [("Deviations, each with its reason", true), ("Open: neither agreed nor explained", false)]
    {
        let rows = deviations(suites, explained)?;
        if !rows.is_empty() {
            write!(
                text,
                "\n## {title}\n\n| suite | case | what the edge does | why |\n|---|---|---|---|\n{rows}"
            )?;
        }
    }
    Ok(text)
}

fn table(suites: &[Value]) -> Result<String> {
    let mut text = String::from(
        "| suite | from | cases | agreed | stricter | looser | wrong | unexplained | left out |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for suite in suites {
        let rows = suite["rows"].as_array().context("rows")?;
        let count = |word: &str| rows.iter().filter(|row| row["verdict"] == word).count();
        let open = rows.iter().filter(|row| is_open(row)).count();
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {open} | {} |",
            suite["suite"].as_str().unwrap_or_default(),
            suite["source"].as_str().unwrap_or_default(),
            rows.len(),
            count("agreed"),
            count("stricter"),
            count("looser"),
            count("wrong"),
            suite["left_out"]
        )?;
    }
    Ok(text)
}

/// Whether a case fails the tests: something wrong is never explained away.
fn is_open(row: &Value) -> bool {
    row["verdict"] == "wrong" || (row["verdict"] != "agreed" && row["reason"].is_null())
}

fn deviations(suites: &[Value], explained: bool) -> Result<String> {
    let mut text = String::new();
    for suite in suites {
        for row in suite["rows"].as_array().context("rows")? {
            if row["verdict"] == "agreed" || is_open(row) == explained {
                continue;
            }
            let cell =
                |key: &str| row[key].as_str().unwrap_or_default().replace('|', "\\|").replace('\n', " ");
            // What a target saw may be long, and holds ids that change with each run.
            let said: String =
                cell("said").split("; the target has").next().unwrap_or_default().chars().take(160).collect();
            let (name, why) = (cell("case"), cell("reason"));
            writeln!(text, "| {} | {name} | {said} | {why} |", suite["suite"].as_str().unwrap_or_default())?;
        }
    }
    Ok(text)
}

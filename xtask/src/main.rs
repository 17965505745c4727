//! The project's chores: `cargo xtask demo | test | bench | conformance | floors`.

#![allow(clippy::disallowed_methods, reason = "a chore needs no crash safety")]

mod bench;
mod conformance;
mod demo;
mod floors;
mod http;
mod install;
mod own_box;
mod programs;
mod shell;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask demo [--keep]   deploy examples/assistant to a fresh box and talk to it
cargo xtask test            install what the tests need and run everything
cargo xtask test editions   deploy examples/assistant-rs, which compiles for minutes, and hold it to its contract
cargo xtask bench [NAME]    measure against peers; NAME is `deploy` or `idle` (default: both), or
  edge [--rounds N] [--seconds N]    plain proxying beside nginx and haproxy
  sse [--rounds N] [--streams N] [--seconds N] [--memory-streams N] [--memory-rounds N]
                                     event streams beside nginx and haproxy
  handover [--requests N] [--handovers N]    requests of every kind while releases change
  data [--rounds N] [--pause-rounds N] [--copy-rounds N] [--cycles N]
                                     snapshots and restores of a live volume, and a soak of so many cycles of kills
  build [--rounds N] [--files N] [--docker 0]
                                     installs beside pip and docker build, plans, unchanged deploys, large sources
  editions [--rounds N]              both editions of the example assistant: start, memory, image
cargo xtask conformance     hold the edge against request corpora of other servers; writes docs/conformance.md
cargo xtask floors          check that every import between crates goes down the floors";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["demo"] => demo::run(false),
        ["demo", "--keep"] => demo::run(true),
        ["test"] => test::run(),
        ["test", "editions"] => test::editions(),
        ["bench"] => bench::run(None, &[]),
        ["bench", name, ref options @ ..] => bench::run(Some(name), options),
        ["conformance"] => conformance::run(),
        ["floors"] => floors::check(),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

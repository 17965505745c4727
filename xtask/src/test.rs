//! `cargo xtask test`: everything, in the order in which a failure is cheapest.

use std::time::Instant;

use anyhow::Result;

use crate::shell::{self, is_root, say};
use crate::{floors, install, programs};

/// Deploys the Rust edition of the example and holds it to the contract. It is apart because the build in the sandbox
/// compiles 200 crates, which takes minutes.
pub fn editions() -> Result<()> {
    install::ensure(&[install::BOX, install::TESTS])?;
    say("the binary under test");
    shell::run("cargo", &["build", "--release", "--package", "trackbed"])?;
    say("the Rust edition of the assistant, deployed");
    let only = ["--package", "trackbed-tests", "--test", "assistant", "--", "--ignored", "--nocapture"];
    shell::run("cargo", &[&["test", "--release"], &only[..]].concat())
}

/// Installs what the tests need and runs all of them.
pub fn run() -> Result<()> {
    let began = Instant::now();
    install::ensure(&[install::BOX, install::TESTS])?;
    say("format");
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    say("floors");
    floors::check()?;
    say("lints");
    shell::run(
        "cargo",
        &["clippy", "--release", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    say("the binary under test");
    shell::run("cargo", &["build", "--release", "--package", "trackbed"])?;
    say("tests");
    if !is_root() {
        eprintln!(
            "NOTE: not root: what needs root (isolation level `full`, other users) is not tested in this run"
        );
    }
    programs::run()?;
    eprintln!(
        "\nNOT TESTED here, because it compiles for minutes: the deployed Rust edition of the assistant"
    );
    eprintln!("  cargo xtask test editions");
    eprintln!("\nall tests passed in {} s", began.elapsed().as_secs());
    Ok(())
}

//! Running programs, said aloud.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    target_dir().join("release/trackbed")
}

/// Says what is done next.
pub fn say(text: &str) {
    eprintln!("\n\u{1b}[1m==> {text}\u{1b}[0m");
}

/// Runs a program with our own input and output. Fails when it does.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<()> {
    run_in(&root(), program, arguments)
}

/// Runs a program in a folder.
pub fn run_in(folder: &Path, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<()> {
    let program = program.as_ref();
    let status = Command::new(program).args(arguments).current_dir(folder).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("`{} {}` failed ({status})", program.display(), arguments.join(" "));
    }
    Ok(())
}

/// Runs a program and returns its standard output. Fails when it does, with what it said.
pub fn read(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{} {}` failed ({}): {}", program.display(), arguments.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns whether a program is on the PATH, or where administrators keep theirs.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).any(|candidate| candidate.is_file())
}

/// Returns whether we are root.
pub fn is_root() -> bool {
    read("id", &["-u"]).is_ok_and(|id| id.trim() == "0")
}

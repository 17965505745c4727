//! The test programs of the workspace, one after another. Each has a limit: libtest waits for ever, and a run that hangs says
//! nothing. One that fails does not keep the others from running.
//!
//! There are no doc tests: examples in documentation are words here.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::shell;

/// How long one program may take. The longest takes 3 minutes on two cores.
const LIMIT: Duration = Duration::from_secs(10 * 60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

struct Program {
    package: String,
    target: String,
    folder: PathBuf,
    path: PathBuf,
}

/// Compiles all test programs and runs them.
///
/// # Errors
/// When they do not compile, and with the names of those that failed or took too long.
pub fn run() -> Result<()> {
    let programs = compile()?;
    let mut failed = Vec::new();
    for Program { package, target, folder, path } in &programs {
        eprintln!("\n     Running {package}/{target} ({})", path.display());
        let mut program = Command::new(path);
        program.current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
        let mut program = program.spawn().with_context(|| format!("cannot run {}", path.display()))?;
        match wait(&mut program)? {
            Some(status) if status.success() => {}
            Some(status) => failed.push(format!("{package}/{target}: {}", ending(status))),
            None => failed.push(format!("{package}/{target}: not done after {} s", LIMIT.as_secs())),
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} test programs failed:\n  {}", failed.len(), programs.len(), failed.join("\n  "));
    }
    Ok(())
}

/// Returns the programs in an order that is the same every time: by package, its own tests first.
fn compile() -> Result<Vec<Program>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output =
        cargo.current_dir(shell::root()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let mut programs = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line).context("cargo said what is no JSON")?;
        let (Some(path), Some(true)) = (message["executable"].as_str(), message["profile"]["test"].as_bool())
        else {
            continue;
        };
        let manifest =
            PathBuf::from(message["manifest_path"].as_str().context("an artifact has no manifest")?);
        let folder = manifest.parent().context("a manifest lies in a folder")?.to_owned();
        let package = folder.strip_prefix(shell::root()).unwrap_or(&folder).display().to_string();
        let is_own = message["target"]["kind"][0] != "test";
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let target = if is_own { "src".to_owned() } else { name.to_owned() };
        programs.push((package.clone(), !is_own, Program { package, target, folder, path: path.into() }));
    }
    programs.sort_by(|one, other| (&one.0, one.1, &one.2.target).cmp(&(&other.0, other.1, &other.2.target)));
    Ok(programs.into_iter().map(|(_, _, program)| program).collect())
}

/// Waits for a program; none when it took too long. Then the processes of the machine were shown, and it was ended with those that
/// descend from it. What it had detached, such as an instance, stays.
fn wait(program: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = program.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    eprintln!("\nit takes longer than {} s; the processes of this machine are:", LIMIT.as_secs());
    let shown = shell::read("ps", &["-e", "--forest", "-o", "pid,ppid,etimes,stat,wchan:20,args"]);
    for process in family(program.id()).unwrap_or_default() {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    program.kill()?;
    program.wait()?;
    eprintln!("{}", shown?);
    Ok(None)
}

/// Returns a process and all that descend from it.
fn family(ancestor: u32) -> Result<Vec<i32>> {
    let table = shell::read("ps", &["-e", "-o", "pid=,ppid="])?;
    let pairs: Vec<(i32, i32)> = table
        .lines()
        .filter_map(|line| {
            let (process, parent) = line.trim().split_once(' ')?;
            Some((process.parse().ok()?, parent.trim().parse().ok()?))
        })
        .collect();
    let mut family = vec![i32::try_from(ancestor)?];
    let mut seen = 0;
    while let Some(&parent) = family.get(seen) {
        family.extend(pairs.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        seen += 1;
    }
    Ok(family)
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or(0)),
    }
}

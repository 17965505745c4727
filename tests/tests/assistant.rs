//! The example's own contract, held against both editions of the assistant as they are deployed.

use std::path::Path;
use std::process::Command;

use trackbed_tests::{App, TestBox, assistant, assistant_rs};

fn run(what: &str, command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {text}");
    text
}

/// Makes an environment with what the tests import, in the versions that the example names.
fn environment(folder: &Path, example: &Path) {
    let lines: String = ["requirements.txt", "requirements-dev.txt"]
        .iter()
        .map(|file| std::fs::read_to_string(example.join(file)).expect("the example's requirements"))
        .collect();
    let wanted: Vec<&str> =
        lines.lines().filter(|line| line.starts_with("httpx") || line.starts_with("pytest")).collect();
    assert_eq!(wanted.len(), 2, "{lines}");
    run("a virtual environment", Command::new("python3").args(["-m", "venv"]).arg(folder));
    let mut install = Command::new(folder.join("bin/python"));
    run("pip install", install.args(["-m", "pip", "install", "--quiet", "--no-input"]).args(wanted));
}

/// Deploys an edition to a box of its own and holds it to the contract.
fn keeps_the_contract(app: &App, service: &str) {
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join("examples/assistant");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let town = TestBox::start();
    std::thread::scope(|scope| {
        scope.spawn(|| environment(folder.path(), &example));
        town.up_ok(&app.path());
    });
    let port = town.port();
    let mut tests = Command::new(folder.path().join("bin/python"));
    tests.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]).arg(example.join("tests"));
    // Names below `localhost` are not resolved by every libc: the address, and the name in the Host header.
    tests.env("BASE_URL", format!("http://127.0.0.1:{port}"));
    tests.env("TEST_HOST", format!("{service}.localhost:{port}")).env("PYTHONDONTWRITEBYTECODE", "1");
    let said = run("the example's tests", tests.current_dir(folder.path()));
    eprintln!("{}", said.lines().last().unwrap_or_default());
    assert!(said.contains(" passed") && !said.contains(" failed"), "{said}");
}

#[test]
fn the_deployed_assistant_keeps_the_contract_of_the_example() {
    keeps_the_contract(&assistant(), "assistant");
}

#[test]
#[ignore = "compiles 200 crates in the build's sandbox, for minutes: cargo xtask test editions"]
fn the_deployed_rust_edition_keeps_the_same_contract() {
    keeps_the_contract(&assistant_rs(), "assistant-rs");
}

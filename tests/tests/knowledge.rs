//! The example with ChromaDB: its contract as it is deployed, and that its index and its database agree after a restore.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{TestBox, knowledge, request, wait_for};

/// Snapshots under writes, each restored.
const POINTS: usize = 4;
const SOON: Duration = Duration::from_secs(60);

fn consistency(town: &TestBox) -> Value {
    let answer = town.get("knowledge", "/consistency");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// Puts documents in, one after the other, until it is told to stop. Returns the ids that were acknowledged, in order.
fn write(port: u16, stop: &AtomicBool, told: &std::sync::Mutex<Vec<String>>) {
    let host = format!("knowledge.localhost:{port}");
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let texts =
            [format!("note {number} of {} writers", number * 7919), format!("letter {number} about ships")];
        let body = serde_json::json!({ "texts": texts }).to_string();
        let answer = request(port, &host, "POST", "/documents", &body).expect("the edge answers");
        assert_eq!(answer.status, 201, "{answer:?}");
        let ids: Value = serde_json::from_str(&answer.body).expect("JSON");
        let ids = ids["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        told.lock().expect("no panic").extend(ids);
    }
}

#[test]
fn index_and_database_agree_whenever_a_snapshot_was_taken() {
    let town = TestBox::start();
    town.up_ok(&knowledge().path());
    let port = town.port();
    let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let mut points = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(port, &stop, &told));
        for number in 1..=POINTS {
            wait_for("enough is written", SOON, || {
                told.lock().expect("no panic").len() >= 120 * number || writer.is_finished()
            });
            let acknowledged = told.lock().expect("no panic").len();
            let point = town.snapshot("knowledge");
            assert_eq!(point["consistency"], "instant", "{point:#}");
            points.push((point["id"].as_str().expect("an id").to_owned(), acknowledged));
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().expect("every request is answered");
    });
    let told = told.lock().expect("no panic").clone();
    let now = consistency(&town);
    assert_eq!(
        (&now["consistent"], now["sqlite"].as_u64()),
        (&true.into(), Some(told.len() as u64)),
        "{now:#}"
    );
    for (point, acknowledged) in points {
        let restored = town.restore("knowledge", &point, &["--yes"]);
        assert_eq!(restored.code, 0, "{restored:?}\nserve: {}", town.serve_log());
        let then = consistency(&town);
        assert_eq!(then["consistent"], true, "{point} after {acknowledged}: {then:#}");
        let ids: Value = serde_json::from_str(&town.get("knowledge", "/documents").body).expect("JSON");
        let ids: Vec<&str> =
            ids["ids"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let missing = told[..acknowledged].iter().filter(|id| !ids.contains(&id.as_str())).count();
        assert_eq!(missing, 0, "{missing} of {acknowledged} documents are not in {point}");
        let stranger = ids.iter().find(|id| !told.iter().any(|known| known == *id));
        assert_eq!(stranger, None, "{point} has a document that nobody wrote");
    }
    hold_the_contract(port);
}

/// The example's own tests, against the deployed one.
fn hold_the_contract(port: u16) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/knowledge");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{command:?}: {said}");
        said
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.path()));
    let wanted =
        std::fs::read_to_string(example.join("requirements-dev.txt")).expect("the example's requirements");
    let wanted = wanted.lines().filter(|line| !line.starts_with("-r"));
    let python = folder.path().join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-input"]).args(wanted));
    let mut tests = Command::new(&python);
    tests.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]).arg(example.join("tests"));
    tests.env("BASE_URL", format!("http://127.0.0.1:{port}"));
    tests.env("TEST_HOST", format!("knowledge.localhost:{port}")).env("PYTHONDONTWRITEBYTECODE", "1");
    let said = run(tests.current_dir(folder.path()));
    assert!(said.contains(" passed") && !said.contains(" failed"), "{said}");
}

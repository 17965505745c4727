//! What an edge says of itself, and an edge without a box.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{testbox, wait_for};

/// How long a fresh edge may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Returns the counters of the edge of a data directory; null when it does not answer.
pub fn edge_stats(data_dir: &Path) -> Value {
    ask(data_dir).unwrap_or(Value::Null)
}

fn ask(data_dir: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(data_dir.join("run/edge.sock")).ok()?;
    stream.write_all(b"{\"v\":1,\"op\":\"stats\"}\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let reply: Value = serde_json::from_str(&line).ok()?;
    Some(reply["stats"].clone())
}

/// An edge alone, which has one service `lone.localhost`. Dropping it kills it.
pub struct LoneEdge {
    folder: TempDir,
    process: Child,
}

impl LoneEdge {
    /// Starts an edge whose service is at an address.
    pub fn start(app: SocketAddr) -> LoneEdge {
        let folder = tempfile::Builder::new().prefix("tbx-").tempdir_in("/tmp").expect("a temporary folder");
        let target = json!({ "instance": "ins_0000000000000000", "address": format!("tcp:{app}") });
        let route = json!({ "service": "svc_0000000000000000", "name": "lone", "state": "serving", "target": target });
        let table = json!({ "sequence": 1, "routes": { "lone.localhost": route } });
        std::fs::create_dir_all(folder.path().join("edge")).expect("our own folder");
        std::fs::write(folder.path().join("edge/routes.json"), table.to_string()).expect("our own folder");
        let mut command = Command::new(testbox::binary());
        command.arg("edge").arg(folder.path()).arg("127.0.0.1:0").stdin(Stdio::null());
        let process = command.spawn().expect("the binary under test runs");
        let edge = LoneEdge { folder, process };
        wait_for("the edge answers", START_LIMIT, || edge_stats(edge.folder.path())["sequence"] == 1);
        edge
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        let listen = edge_stats(self.folder.path())["listen"].as_str().map(str::to_owned);
        let address: SocketAddr = listen.expect("it answers").parse().expect("an address");
        address.port()
    }

    /// The most memory that it ever had, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it lives");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak.and_then(|kib| kib.parse::<u64>().ok()).expect("the kernel counts it") << 10
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it lives").count()
    }
}

impl Drop for LoneEdge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

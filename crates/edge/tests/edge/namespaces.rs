//! Targets inside a network namespace. Needs root, `unshare`, `ip` and `python3`.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trackbed_core::ports::{Edge, Probe};
use trackbed_core::route::{Address, Target, UpstreamState};

use crate::support::*;

struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn started(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_target_in_a_namespace_is_reached_and_a_later_process_with_its_number_is_not() {
    let script = "ip link set lo up && exec python3 -m http.server --bind 127.0.0.1 8080";
    let child = Command::new("unshare")
        .args(["-n", "sh", "-c", script])
        .current_dir("/proc/self/fdinfo")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match child {
        Ok(child) if nix::unistd::geteuid().is_root() => Inside(child),
        other => {
            drop(other.map(Inside));
            eprintln!("SKIPPED: dialling into a namespace needs root and unshare");
            return;
        }
    };
    let pid = child.0.id();
    let inside = |started: u64| Target {
        instance: instance(1),
        address: Address(format!("netns:{pid}@{started}:127.0.0.1:8080")),
    };
    let edge = TestEdge::start().await;
    let limit = Duration::from_secs(5);
    // `unshare` enters the namespace and becomes the server under the same number and start time.
    until(|| async {
        let seen = edge.client.probe(&inside(started(pid)), Some("/"), "x", limit).await;
        matches!(seen, Probe::Answered { status: 200, .. })
    })
    .await;
    edge.apply(&[("a.test", UpstreamState::Serving { target: inside(started(pid)) })]).await;
    let mut client = edge.connect().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    assert!(
        tokio::net::TcpStream::connect("127.0.0.1:8080").await.is_err(),
        "the outside has no such server"
    );
    let seen = edge.client.probe(&inside(1), Some("/"), "x", limit).await;
    assert!(matches!(&seen, Probe::Broken { detail } if detail.contains("gone")), "{seen:?}");
}

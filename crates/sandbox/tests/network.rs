//! What an instance reaches, and what reaches it, when it has a network of its own.
#![allow(clippy::unwrap_used, reason = "a test panics when it must")]

mod world;

use std::io::{Read, Write};
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::ports::Engine;
use world::{World, wait_for};

/// Connects to a place and prints what it says.
const DIAL: &str = "import socket, struct, sys\n\
    route = [line.split() for line in open('/proc/net/route')][1:]\n\
    gateway = [socket.inet_ntoa(struct.pack('<I', int(r[2], 16))) for r in route if r[1] == '00000000'][0]\n\
    host = gateway if sys.argv[1] == 'gateway' else sys.argv[1]\n\
    s = socket.create_connection((host, int(sys.argv[2])), 2)\n\
    s.sendall(b'hi'); print('heard', s.recv(100).decode(), flush=True)\n";

fn dialing(world: &World, host: &str, port: u16) -> InstanceSpec {
    let mut spec = world.spec(&format!("exec python3 dial.py {host} {port}"));
    let AppTree::Image { image } = &mut spec.app else { panic!("an image") };
    image.layers.insert(0, world.layer(&[("dial.py", DIAL)]));
    spec
}

const SERVE: &str = "exec python3 -c 'import http.server as h; h.ThreadingHTTPServer((\"0.0.0.0\", 8080), h.SimpleHTTPRequestHandler).serve_forever()'";

#[tokio::test]
async fn apps_reach_the_box_but_not_each_other() {
    let Some(world) = World::full() else { return };
    let server = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, from) = server.accept().unwrap();
        let mut buffer = [0; 2];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(b"box").unwrap();
        (buffer, from.ip().to_string())
    });
    let (exit, log) = world.run(&dialing(&world, "gateway", port)).await;
    assert!(exit.is_success() && log.contains("heard box"), "{exit} {log}");
    let (text, from) = heard.join().unwrap();
    assert!(&text == b"hi" && from.starts_with("10."), "{from}");

    let app = world.spec(SERVE);
    assert_eq!(world.sandbox.free_port().await.unwrap(), 8080);
    world.sandbox.start(&app).await.unwrap();
    wait_for("the app to listen", async || {
        (!world.sandbox.listeners(&app.id).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let listeners = world.sandbox.listeners(&app.id).await.unwrap();
    assert_eq!(listeners, [Listener { port: 8080, loopback_only: false }]);
    let address = world.sandbox.address(&app.id, 8080).await.unwrap().0;
    let (pid, start) = address.strip_prefix("netns:").unwrap().split_once('@').unwrap();
    let start = start.strip_suffix(":127.0.0.1:8080").unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap(), start);
    // The edge's way in: the app's own loopback.
    let dial =
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/hello.txt', timeout=3).read())";
    let inside = std::process::Command::new("nsenter")
        .args([&format!("--net=/proc/{pid}/ns/net"), "/usr/bin/python3", "-c", dial])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&inside.stdout).contains("hello"), "{inside:?}");
    let spec = std::fs::read_to_string(world.data.join("instances").join(app.id.as_str()).join("spec.json"));
    let spec: serde_json::Value = serde_json::from_str(&spec.unwrap()).unwrap();
    assert_eq!(spec["env"], serde_json::json!([]), "secrets stay on disk");
    let address = spec["link"]["address"].as_str().unwrap().to_owned();
    // From the box the app answers there, from another app it does not.
    assert!(std::net::TcpStream::connect((address.as_str(), 8080)).is_ok());
    let (exit, log) = world.run(&dialing(&world, &address, 8080)).await;
    assert!(!exit.is_success() && !log.contains("heard"), "{exit} {log}");
    world.sandbox.stop(&app.id, Duration::from_secs(5)).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn two_boxes_live_side_by_side() {
    let (Some(one), Some(two)) = (World::full(), World::full()) else { return };
    let (app, other) = (one.spec(SERVE), two.spec("sleep 1000"));
    one.sandbox.start(&app).await.unwrap();
    two.sandbox.start(&other).await.unwrap();
    two.sandbox.reconcile(&|_| false).unwrap();
    assert!(two.sandbox.list().await.unwrap().is_empty());
    assert_eq!(one.sandbox.inspect(&app.id).await.unwrap().unwrap().state, InstanceState::Running);
    let path = one.data.join("instances").join(app.id.as_str()).join("spec.json");
    let spec: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    wait_for("the app to listen", async || {
        (!one.sandbox.listeners(&app.id).await.unwrap().is_empty()).then_some(())
    })
    .await;
    let (exit, log) = two.run(&dialing(&two, spec["link"]["address"].as_str().unwrap(), 8080)).await;
    assert!(!exit.is_success() && !log.contains("heard"), "{exit} {log}");
    two.close().await;
    assert_eq!(one.sandbox.inspect(&app.id).await.unwrap().unwrap().state, InstanceState::Running);
    one.close().await;
}

#[tokio::test]
async fn an_app_on_loopback_alone_is_told_so() {
    let Some(world) = World::full() else { return };
    let app = world.spec(&SERVE.replace("0.0.0.0", "127.0.0.1"));
    world.sandbox.start(&app).await.unwrap();
    wait_for("loopback", async || {
        (world.sandbox.listeners(&app.id).await.unwrap() == [Listener { port: 8080, loopback_only: true }])
            .then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn an_interpreter_in_a_home_directory_is_reachable() {
    let Some(world) = World::full() else { return };
    let python = "/root/.pyenv/versions/3.12.1";
    let mut app = world.spec(&format!("{python}/bin/python3 -c 'import os, ssl, sqlite3, sys; print(os.getuid(), sys.version)'; ls /root/.pyenv; touch {python}/x"));
    let AppTree::Image { image } = &mut app.app else { panic!("an image") };
    image.host_paths.push(python.into());
    let (_, log) = world.run(&app).await;
    assert!(log.starts_with("10001 3.12.1"), "{log}");
    assert!(log.contains("\nversions\n") && log.contains("Read-only file system"), "{log}");
    world.close().await;
}

//! What every level must do about the data of apps: links into volumes, files outside them, standing still, no network.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test panics when it must"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use trackbed_core::instance::*;
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::Engine;

use crate::world::{World, refused, wait_for};

pub async fn check(level: IsolationLevel) {
    let world = match level {
        IsolationLevel::Full => World::full(),
        _ => Some(World::new(level)),
    };
    let Some(world) = world else { return };
    files_outside_the_volumes_are_found(&world).await;
    links_lead_into_volumes(&world).await;
    links_to_elsewhere_are_refused(&world).await;
    an_app_stands_still(&world).await;
    match level <= IsolationLevel::Userns {
        true => an_offline_app_reaches_only_itself(&world).await,
        false => {
            let app = InstanceSpec { offline: true, ..world.spec("true") };
            let message = refused(world.sandbox.start(&app).await);
            assert!(message.contains("without network") && message.contains(level.as_str()), "{message}");
        }
    }
    world.close().await;
}

/// Where volumes can be at this level.
fn mount(world: &World) -> &'static str {
    if world.level <= IsolationLevel::Userns { "/data" } else { "/app/data" }
}

fn with_layers(world: &World, command: &str, layers: &[&[(&str, &str)]]) -> InstanceSpec {
    let mut app = InstanceSpec { volumes: vec![world.volume(mount(world))], ..world.spec(command) };
    let AppTree::Image { image } = &mut app.app else { panic!("an image") };
    image.layers = layers.iter().map(|files| world.layer(files)).collect();
    app
}

const LITTER: &str = r#"
import os, sqlite3, sys
with sqlite3.connect("ba.db") as db:
    db.execute("create table t (x)")
os.makedirs("new/folder", exist_ok=True)
open("new/folder/big", "wb").write(b"x" * 50000)
open("sub/file", "a").write("more")
open("sub/other", "r+").close()
os.makedirs("__pycache__")
open("__pycache__/main.pyc", "w").write("x")
open("late.pyc", "w").write("x")
os.remove("hello.txt")
os.symlink("/etc/passwd", "link")
os.symlink("/usr", "usr")
os.mkfifo("fifo")
open(sys.argv[1] + "/kept", "w").write("x" * 90000)
print("up", flush=True)
"#;

async fn files_outside_the_volumes_are_found(world: &World) {
    let data = if world.level <= IsolationLevel::Userns { "/data" } else { "data" };
    let layers: [&[(&str, &str)]; 2] = [
        &[("litter.py", LITTER), ("same", "upper")],
        &[("hello.txt", "hello"), ("sub/file", "old"), ("sub/other", "old"), ("same", "lower layer")],
    ];
    let app = with_layers(world, &format!("python3 litter.py {data} && exec sleep 1000"), &layers);
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    for _ in 0..2 {
        let found = world.sandbox.stray_files(&app.id, 10).await.unwrap();
        let names: Vec<_> = found.iter().map(|file| (file.path.as_str(), file.is_database)).collect();
        assert_eq!(names, [("/app/ba.db", true), ("/app/new/folder/big", false), ("/app/sub/file", false)]);
        assert_eq!((found[1].size_bytes, found[2].size_bytes), (50_000, 7));
        assert!(std::fs::read(&found[0].host_path).unwrap().starts_with(b"SQLite format 3\0"));
        assert_eq!(world.sandbox.stray_files(&app.id, 1).await.unwrap(), found[..1]);
        // Once more when it has ended.
        world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
    }
    world.sandbox.remove(&app.id).await.unwrap();
    let message = world.sandbox.stray_files(&app.id, 1).await.unwrap_err().message;
    assert!(message.contains("unknown"), "{message}");
}

const COUNT: &str = r#"
import os, sqlite3
for name in ["x.db", "deep/er/y.db"]:
    with sqlite3.connect(name) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table if not exists t (x)")
        db.execute("insert into t values (1)")
        print(name, db.execute("select count(*) from t").fetchone()[0], os.path.islink(name))
open("dir/file", "a").write("x")
print("dir", os.path.islink("dir"), len(open("dir/file").read()))
open("deep/beside", "w").write("the folder of a link is the app's own")
"#;

async fn links_lead_into_volumes(world: &World) {
    let at = mount(world);
    let layers: [&[(&str, &str)]; 1] =
        [&[("count.py", COUNT), ("x.db", "not a database"), ("deep/old", "1"), ("dir/hidden", "1")]];
    let mut app = with_layers(world, "exec python3 count.py", &layers);
    let link = |from: &str, to: &str| AppLink { at: from.to_owned(), to: format!("{at}/{to}") };
    app.links = vec![link("/app/x.db", "x.db"), link("/app/deep/er/y.db", "y.db"), link("/app/dir", "sub")];
    let volume = std::path::PathBuf::from(&app.volumes[0].host_path);
    std::fs::create_dir(volume.join("sub")).unwrap();
    for round in 1..3 {
        let app = InstanceSpec {
            id: trackbed_core::InstanceId::from_random(trackbed_stdx::random::bytes()),
            ..app.clone()
        };
        let (exit, log) = world.run(&app).await;
        let expected = format!("x.db {round} True\ndeep/er/y.db {round} True\ndir True {round}\n");
        assert_eq!(log, expected, "{exit}");
        assert!(exit.is_success(), "{exit}");
        let strays = world.sandbox.stray_files(&app.id, 10).await.unwrap();
        let names: Vec<_> = strays.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["/app/deep/beside"], "what a link leads to is no stray");
    }
    assert!(std::fs::read(volume.join("y.db")).unwrap().starts_with(b"SQLite format 3\0"));
    let AppTree::Image { image } = &app.app else { panic!("an image") };
    let layer = world.data.join(&image.layers[0].path);
    assert_eq!(std::fs::read_to_string(layer.join("x.db")).unwrap(), "not a database");
    assert!(layer.join("dir/hidden").exists(), "a layer never changes");
}

async fn links_to_elsewhere_are_refused(world: &World) {
    let at = mount(world);
    let inside = format!("{at}/x");
    for (from, to, why) in [
        ("/app/x", "/etc/x", "into one of the volumes"),
        ("/app/x", at, "into one of the volumes"),
        ("/app/x", &format!("{at}/../x"), "into one of the volumes"),
        ("/app/x", &format!("{at}x/x"), "into one of the volumes"),
        ("/app", &inside, "below /app"),
        ("/application/x", &inside, "below /app"),
        ("app/x", &inside, "below /app"),
        ("/app/../etc/x", &inside, "below /app"),
        ("/app/a//x", &inside, "below /app"),
        ("/etc/x", &inside, "below /app"),
        ("/app/hello.txt/x", &inside, "is not a directory"),
    ] {
        let mut app = with_layers(world, "true", &[&[("hello.txt", "hello")]]);
        app.links = vec![AppLink { at: from.to_owned(), to: to.to_owned() }];
        let message = refused(world.sandbox.start(&app).await);
        assert!(message.contains(why) && message.contains(from), "{from} {to}: {message}");
    }
    let mut app = with_layers(world, "true", &[&[]]);
    let link = |at: &str| AppLink { at: at.to_owned(), to: inside.clone() };
    app.links = vec![link("/app/a"), link("/app/a/b")];
    assert!(refused(world.sandbox.start(&app).await).contains("another link is in its way"));
    app.volumes = vec![world.volume("/app/vol"), app.volumes.remove(0)];
    app.links = vec![link("/app/vol/x")];
    assert!(refused(world.sandbox.start(&app).await).contains("a volume is mounted there"));
}

async fn an_app_stands_still(world: &World) {
    let data = if world.level <= IsolationLevel::Userns { "/data" } else { "data" };
    let command = format!("(while :; do echo x >> {data}/x; done) & echo up; wait");
    let app = with_layers(world, &command, &[&[]]);
    let file = std::path::Path::new(&app.volumes[0].host_path).join("x");
    let size = || std::fs::metadata(&file).map_or(0, |data| data.len());
    let grows = async || {
        let before = size();
        wait_for("the app to write", async || (size() > before).then_some(())).await;
    };
    world.sandbox.start(&app).await.unwrap();
    grows().await;
    for _ in 0..3 {
        let frozen = world.sandbox.freeze(&app.id, Duration::from_secs(20)).await.unwrap();
        let before = size();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(size(), before);
        frozen.thaw().await.unwrap();
        grows().await;
    }
    let frozen = world.sandbox.freeze(&app.id, Duration::from_secs(20)).await.unwrap();
    world.sandbox.stop(&app.id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.ended(&app.id).await, Exit::Signal { signal: libc::SIGTERM });
    frozen.thaw().await.expect_err("it was let go");
    // Frozen, and its shim is killed.
    let app =
        InstanceSpec { id: trackbed_core::InstanceId::from_random(trackbed_stdx::random::bytes()), ..app };
    world.sandbox.start(&app).await.unwrap();
    grows().await;
    let frozen = world.sandbox.freeze(&app.id, Duration::from_secs(20)).await.unwrap();
    let pids = world.pids(&app.id).await;
    crate::world::kill(pids[0]);
    for pid in pids {
        let path = format!("/proc/{pid}");
        wait_for("the processes to go", async || (!crate::world::exists(&path)).then_some(())).await;
    }
    frozen.thaw().await.expect_err("its shim was killed");
    assert_eq!(world.ended(&app.id).await, Exit::Lost);
}

const ALONE: &str = r#"
import socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
print([line.split(":")[0].strip() for line in open("/proc/net/dev")][2:], flush=True)
for host in sys.argv[2:]:
    try:
        socket.create_connection((host, int(sys.argv[1])), 2)
        print("reached", host, flush=True)
    except OSError as error:
        pass
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"healthy " + self.path.encode() + b" " + b"x" * 100000)
server = HTTPServer(("127.0.0.1", PORT), Handler)
print("up", flush=True)
server.serve_forever()
"#;

async fn an_offline_app_reaches_only_itself(world: &World) {
    let outside = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let there = outside.local_addr().unwrap().port();
    let port = world.sandbox.free_port().await.unwrap();
    let script = ALONE.replace("PORT", &port.to_string());
    // The box by its loopback, by its bridge, and by the address that it calls the world from.
    let far = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = far.connect("192.0.2.1:9").and_then(|()| far.local_addr()).map(|at| at.ip().to_string());
    let command = format!("exec python3 alone.py {there} 127.0.0.1 {}", own.unwrap_or_default());
    let mut app = with_layers(world, &command, &[&[("alone.py", script.as_str())]]);
    (app.offline, app.port) = (true, Some(port));
    world.sandbox.start(&app).await.unwrap();
    world.until_logged(&app.id, "up").await;
    assert_eq!(world.log(&app.id).await, "['lo']\nup\n");
    let listeners = world.sandbox.listeners(&app.id).await.unwrap();
    assert_eq!(listeners, [Listener { port, loopback_only: true }]);
    let address = world.sandbox.address(&app.id, port).await.unwrap().0;
    let mut stream = wait_for("a connection", async || dial(&address).ok()).await;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK") && text.contains("healthy /health"), "{text:.200}");
    assert!(text.len() > 100_000, "all of it comes through");
    world.sandbox.stop(&app.id, Duration::ZERO).await.unwrap();
    assert!(trackbed_stdx::files::try_lock(app.volumes[0].lock_path.as_ref()).unwrap().is_some());
}

/// Connects as the edge does: on a thread that enters the namespace and ends.
fn dial(address: &str) -> std::io::Result<TcpStream> {
    let (at, pid) = match address.strip_prefix("netns:") {
        None => (address.strip_prefix("tcp:").unwrap().to_owned(), None),
        Some(rest) => {
            let (process, at) = rest.split_once(':').unwrap();
            (at.to_owned(), Some(process.split_once('@').unwrap().0.to_owned()))
        }
    };
    let entering = std::thread::spawn(move || {
        if let Some(pid) = pid {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
        }
        assert!(at.starts_with(&Ipv4Addr::LOCALHOST.to_string()));
        TcpStream::connect(at)
    });
    entering.join().unwrap()
}

//! The platform itself is upgraded, or loses its edge, while apps are in use.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use trackbed_tests::{App, Connection, TestBox, Traffic, User, request, wait_for};

/// From a change to its effect.
const EFFECT: Duration = Duration::from_secs(20);

/// A numbered event stream of the plain app that goes on by confirmation.
struct Lockstep {
    connection: Connection,
    text: String,
}

impl Lockstep {
    fn open(town: &TestBox, service: &str, count: usize) -> Lockstep {
        let port = town.port();
        let host = format!("{service}.localhost:{port}");
        let path = format!("/lockstep?{count}");
        let connection = Connection::send(port, &host, "GET", &path, "", b"").expect("the edge answers");
        let mut stream = Lockstep { connection, text: String::new() };
        stream.read_to("\r\n\r\n");
        stream
    }

    fn read_to(&mut self, end: &str) {
        while !self.text.contains(end) {
            let read = self.connection.read_once().expect("the stream goes on");
            assert!(!read.is_empty(), "the stream ended after {:?}", self.text);
            self.text.push_str(&read);
        }
    }

    /// Lets the app send the next event and reads it.
    fn next(&mut self, town: &TestBox, service: &str, number: usize) {
        assert_eq!(town.get(service, "/confirm").body, "go on");
        self.read_to(&format!("data: {number}\n\n"));
    }
}

/// How many replaced edges still finish what is open.
fn draining(town: &TestBox) -> Option<u64> {
    town.json(&["status", "--json"])["box"]["edge"]["draining"].as_u64()
}

#[test]
fn a_replaced_binary_and_a_restarted_serve_upgrade_the_edge_and_no_request_fails() {
    let mut town = TestBox::prepare(User::Own, &[], &[]);
    town.install(b"");
    town.start_serve();
    town.up_ok(&App::plain("upgraded").path());
    let port = town.port();
    let mut stream = Lockstep::open(&town, "upgraded", 4);
    stream.next(&town, "upgraded", 0);

    let traffic = Traffic::bodies(port, "upgraded", 4, Duration::from_millis(2));
    for (number, build) in ["one build on", "two builds on"].into_iter().enumerate() {
        let before = town.edge_pid();
        town.install(build.as_bytes());
        assert_eq!(town.stop_serve(), 0);
        town.start_serve();
        wait_for("the edge is replaced", EFFECT, || town.edge_pid() != before);
        stream.next(&town, "upgraded", number + 1);
    }
    // The first edge has the stream; the second had only short requests.
    wait_for("one edge is left beside the newest", EFFECT, || draining(&town) == Some(1));

    // The same program under a new inode is no other program.
    let before = town.edge_pid();
    town.install(b"two builds on");
    assert_eq!(town.stop_serve(), 0);
    town.start_serve();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(town.edge_pid(), before, "an upgrade to itself");

    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.sent > 100, "only {} requests", tally.sent);
    assert_eq!(town.port(), port);
    stream.next(&town, "upgraded", 3);
    stream.read_to("0\r\n\r\n");
    drop(stream);
    wait_for("the first edge ends with its stream", EFFECT, || draining(&town) == Some(0));
}

#[test]
fn a_site_is_served_through_an_upgrade_and_a_download_in_the_middle_is_finished() {
    let mut town = TestBox::prepare(User::Own, &[], &[]);
    town.install(b"");
    town.start_serve();
    let app = App::empty("pages");
    // Far more than sockets hold.
    let large: String = (0..4_000_000).map(|number| format!("{number:08}")).collect();
    app.write("index.html", "one").write("large.txt", &large);
    town.up_ok(&app.path());
    let (port, host) = (town.port(), format!("pages.localhost:{}", town.port()));
    let mut download = Connection::send(port, &host, "GET", "/large.txt", "", b"").expect("the edge answers");
    let mut text = download.read_once().expect("the beginning");

    let before = town.edge_pid();
    town.install(b"one build on");
    assert_eq!(town.stop_serve(), 0);
    assert_eq!(request(port, &host, "GET", "/", "").expect("the edge goes on").body, "one");
    town.start_serve();
    wait_for("the edge is replaced", EFFECT, || town.edge_pid() != before);
    assert_eq!(town.get("pages", "/").body, "one");
    town.up_ok(&app.write("index.html", "two").write("large.txt", "small").path());
    assert_eq!(town.get("pages", "/large.txt").body, "small");
    assert_eq!(draining(&town), Some(1));

    while !text.ends_with(&large[large.len() - 8..]) {
        let read = download.read_once().expect("the download goes on");
        assert!(!read.is_empty(), "it ended after {} bytes", text.len());
        text.push_str(&read);
    }
    assert!(text.split_once("\r\n\r\n").is_some_and(|(_, body)| body == large), "not the file");
    drop(download);
    wait_for("the first edge ends with its download", EFFECT, || draining(&town) == Some(0));
}

#[test]
fn an_edge_killed_while_requests_are_parked_comes_back_parked_and_doubles_no_write() {
    let town = TestBox::start();
    let app = App::plain_with_volume("parked");
    town.up_ok(&app.path());
    let port = town.port();
    let host = format!("parked.localhost:{port}");
    let old = town.living_instances();
    let slow = std::fs::read_to_string(app.path().join("app.py")).expect("the plain app");
    // Long enough that the edge is killed and back before it is ready.
    app.write("app.py", format!("import time\ntime.sleep(8)\n{slow}"));

    std::thread::scope(|scope| {
        let deploy = scope.spawn(|| town.up(&app.path(), &[]));
        wait_for("the old release has stopped", EFFECT, || {
            let living = town.living_instances();
            !living.is_empty() && living.iter().all(|instance| !old.contains(instance))
        });
        let lost = scope.spawn(|| request(port, &host, "POST", "/notes", "parked when the edge died"));
        let edge = town.edge_pid();
        town.kill_pid(edge);
        wait_for("there is another edge", EFFECT, || {
            let status = town.json(&["status", "--json"]);
            status["box"]["edge"]["pid"].as_u64().is_some_and(|pid| pid != edge)
        });
        let host = &host;
        let late: Vec<_> = (0..10)
            .map(|number| {
                scope.spawn(move || request(port, host, "POST", "/notes", &format!("note {number}")))
            })
            .collect();
        for answer in late {
            let answer = answer.join().expect("a client does not panic").expect("the new edge answers");
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        // What waited in the edge that died may be lost, but its client knows.
        let lost = lost.join().expect("a client does not panic");
        let up = deploy.join().expect("the command does not panic");
        assert_eq!((up.code, up.text("status")), (0, "success"), "{:#}", up.last);
        let notes = town.get("parked", "/notes").body;
        for number in 0..10 {
            assert_eq!(notes.matches(&format!("\"note {number}\"")).count(), 1, "{notes}");
        }
        let answered = lost.is_ok_and(|answer| answer.status == 201);
        assert_eq!(notes.matches("parked when the edge died").count(), usize::from(answered), "{notes}");
        assert_eq!(town.get("parked", "/two-at-once").body, "False");
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "files that are read once, by the next command")]
fn the_units_are_such_as_systemd_takes_and_nothing_is_installed_without_it() {
    let town = TestBox::prepare(User::Own, &[], &[]);
    let printed = town.trackbed(&["install", "--print", "--in-place", "--domain", "apps.example.com"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut units = Vec::new();
    for unit in printed.stdout.split("# /etc/systemd/system/").skip(1) {
        let (name, text) = unit.split_once('\n').expect("a name and a text");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("our own folder");
        units.push(path);
    }
    assert_eq!(units.len(), 3, "{}", printed.stdout);
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output() {
        Err(_) => eprintln!("NOT TESTED (needs systemd-analyze): the printed units"),
        Ok(verdict) => {
            let said = String::from_utf8_lossy(&verdict.stderr);
            let ours: Vec<_> = said.lines().filter(|line| line.contains("trackbed")).collect();
            assert_eq!(ours, Vec::<&str>::new());
        }
    }
    if Path::new("/run/systemd/system").exists() {
        eprintln!("NOT TESTED (needs a machine without systemd): the refusal");
        return;
    }
    let refused = town.trackbed(&["install"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("trackbed serve"), "{refused:?}");
}

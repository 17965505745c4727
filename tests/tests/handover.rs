//! Handovers as callers and owners see them: what is found before the old release is touched, who waits and for how
//! long, who holds a volume, and what becomes of streams.

use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, Connection, TestBox, Traffic, wait_for};

const SOON: Duration = Duration::from_secs(20);

fn set(town: &TestBox, service: &str, variables: &[&str]) {
    let set = town.trackbed(&[&["variables", "set", "--service", service], variables].concat());
    assert_eq!(set.code, 0, "{set:?}");
}

fn newest(town: &TestBox, service: &str) -> Value {
    town.json(&["deployments", "--service", service, "--json"])[0].clone()
}

/// The volume of the plain app, with further settings under `[deploy]`.
fn settings(app: &App, deploy: &str) {
    app.write(
        "trackbed.toml",
        format!("[[volumes]]\nname = \"data\"\nmount = \"/data\"\n[deploy]\n{deploy}\n"),
    );
}

#[test]
fn what_cannot_start_is_found_before_the_old_release_is_touched() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    let before = town.service("shop")["instance"]["id"].clone();
    let fails = |command: &str, words: &[&str], hints: &[&str]| {
        town.up_fails(&app.path(), &["--start", command], "check", words).hints(hints);
        assert_eq!(town.service("shop")["instance"]["id"], before, "{command}: the old release was touched");
    };
    fails("gunicornn app:app", &["`gunicornn`", "neither in the image nor on the box"], &["dependencies"]);
    fails("python -m nosuchserver app", &["no `nosuchserver`"], &[]);
    fails("python aap.py", &["`aap.py`", "modules there: app"], &[".railwayignore"]);
    fails("cd backend && python app.py", &["folder `backend`"], &["cd"]);
    fails("python app.py ${STRIPE_KEY:?}", &["requires $STRIPE_KEY"], &["variables set STRIPE_KEY="]);
    app.write("broken.py", "import app\nif True print(1)\n");
    fails(
        "python broken.py",
        &["broken.py:2 is not valid Python", "`if True print(1)`"],
        &["mend broken.py:2"],
    );
    app.write(
        "lost.py",
        "import json, nosuchpackage.part\ntry:\n    import maybe\nexcept ImportError:\n    pass\n",
    );
    fails("python lost.py", &["lost.py:1 imports `nosuchpackage`"], &["add `nosuchpackage`"]);
    // Nothing of the app runs: its folder is not there either.
    app.write("noisy.py", "open('/data/touched', 'w')\nimport nosuchpackage\n");
    fails("python noisy.py", &["noisy.py:2"], &[]);
    let look = town.trackbed(&["run", "--service", "shop", "--", "ls", "/data"]);
    assert!(!look.stdout.contains("touched"), "{look:?}");
    town.assert_serves_on("shop");

    let good = town.up_ok(app.version("two").path().as_path());
    let said =
        good.events.iter().filter_map(|event| event["message"].as_str()).collect::<Vec<_>>().join("\n");
    assert!(said.contains("pre-flight: Python 3") && said.contains("app.py found"), "{said}");
    let odd = town.up(&app.path(), &["--start", "python app.py $NOT_SET"]);
    assert!(odd.warnings().contains("$NOT_SET, which is not set"), "{}", odd.warnings());
}

#[test]
fn what_callers_saw_of_a_handover_is_shown() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    set(&town, "shop", &["START_DELAY=0.5"]);
    town.up_ok(&app.path());
    let traffic = Traffic::notes(town.port(), "shop", 2, Duration::from_millis(20));
    let path = app.version("two").path().to_string_lossy().into_owned();
    let up = town.trackbed(&["up", &path]);
    assert_eq!(up.code, 0, "{up:?}");
    assert!(
        up.stderr.contains("callers waited at most") && up.stderr.contains("none refused"),
        "{}",
        up.stderr
    );
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    let deployment = newest(&town, "shop");
    assert_eq!((&deployment["handover"], &deployment["pause"]["refused"]), (&"held".into(), &0.into()));
    let table = town.trackbed(&["deployments", "--service", "shop"]).stdout;
    assert!(table.contains("CALLERS WAITED"), "{table}");
    // One that it cannot be seen in: nobody was parked before.
    let status = town.trackbed(&["status", "--service", "shop"]).stdout;
    assert!(status.contains("last deployment: "), "{status}");
    let json = town.up(&app.version("three").path(), &[]);
    assert!(json.last["pause"]["longest_ms"].is_u64(), "{:#}", json.last);
}

#[test]
fn a_release_that_is_never_healthy_costs_callers_a_wait_and_nothing_else() {
    let town = TestBox::start();
    let app = App::plain("shop");
    settings(&app, "holdSeconds = 3");
    town.up_ok(&app.path());
    let traffic = Traffic::notes(town.port(), "shop", 3, Duration::from_millis(20));
    set(&town, "shop", &["MODE=deaf"]);
    let up = town.up(app.version("two").path().as_path(), &[]);
    assert_eq!((up.code, up.text("stage")), (1, "health"), "{:#}", up.last);
    assert!(up.text("reason").contains("the hold window of 3 s was over"), "{:#}", up.last);
    up.hints(&["holdSeconds = 7"]);
    assert!(up.last["pause"]["refused"] == 0, "{:#}", up.last);
    wait_for("the old release serves", SOON, || town.service("shop")["state"] == "running");
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(town.get("shop", "/version").body, "one");
    let kept: Vec<String> = serde_json::from_str(&town.get("shop", "/notes").body).expect("JSON");
    assert!(tally.acknowledged.iter().all(|note| kept.contains(note)), "an acknowledged note is lost");
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
}

#[test]
fn a_grandchild_that_keeps_the_volume_open_is_gone_before_the_next_release_starts() {
    let town = TestBox::start();
    let app = App::plain("shop");
    settings(&app, "stopGraceSeconds = 1");
    set(&town, "shop", &["MODE=grandchild"]);
    town.up_ok(&app.path());
    let pids = |town: &TestBox| town.service("shop")["pids"].as_array().map_or(0, Vec::len);
    assert!(pids(&town) >= 3, "supervisor, app and grandchild: {:#}", town.service("shop"));
    for version in ["two", "three"] {
        town.up_ok(app.version(version).path().as_path());
        assert_eq!(town.get("shop", "/version").body, version);
        // The grandchild has the witness's own lock: had it lived, the new release would have seen it.
        assert_eq!(town.get("shop", "/two-at-once").body, "False");
    }
}

#[test]
fn two_releases_write_at_once_only_where_the_owner_says_so() {
    let town = TestBox::start();
    let app = App::plain("shop");
    settings(&app, "handover = \"overlap\"");
    let up = town.up_fails(&app.path(), &[], "plan", &["two releases write"]);
    up.hints(&["shared = true"]);
    settings(&app, "drainingSeconds = 20");
    town.up_ok(&app.path());
    let holder = |town: &TestBox| town.json(&["volume", "list", "--service", "shop", "--json"])[0].clone();
    let first = holder(&town);
    assert_eq!(first["held_by"], town.service("shop")["instance"]["id"]);
    assert_eq!((&first["holders"][0]["release"], &first["fence"]), (&"v1".into(), &1.into()), "{first:#}");
    town.up_ok(app.version("two").path().as_path());
    let second = holder(&town);
    assert_eq!((&second["holders"][0]["release"], &second["fence"]), (&"v2".into(), &2.into()), "{second:#}");
    assert_eq!(second["holders"][0]["deployment"], newest(&town, "shop")["id"]);
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    let list = town.trackbed(&["volume", "list", "--service", "shop"]).stdout;
    assert!(list.contains("FENCE") && list.contains("v2 (ins_"), "{list}");

    settings(&app, "drainingSeconds = 20\nshared = true");
    let shared = town.up_ok(app.version("three").path().as_path());
    assert!(shared.warnings().contains("two releases write to the volume at once"), "{}", shared.warnings());
    assert_eq!(newest(&town, "shop")["handover"], "held", "the release before holds it alone");
    assert_eq!(town.get("shop", "/two-at-once").body, "False");
    // An open stream keeps the old one beside the new one.
    let port = town.port();
    let host = format!("shop.localhost:{port}");
    let mut stream =
        Connection::send(port, &host, "GET", "/events?100000", "", b"").expect("the edge answers");
    stream.read_once().expect("the stream begins");
    let traffic = Traffic::notes(port, "shop", 2, Duration::from_millis(20));
    town.up_ok(app.version("four").path().as_path());
    assert_eq!(newest(&town, "shop")["handover"], "overlap");
    let both = holder(&town);
    assert_eq!(both["holders"].as_array().map(Vec::len), Some(2), "{both:#}");
    assert_eq!(both["holders"][0]["shared"], true);
    assert_eq!(town.get("shop", "/two-at-once").body, "True", "the apps see each other");
    drop(stream);
    wait_for("the old release is retired", SOON, || town.living_instances().len() == 1);
    let tally = traffic.end();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(holder(&town)["holders"].as_array().map(Vec::len), Some(1));
    // And back to one writer: who wants it alone waits until the sharer is gone.
    settings(&app, "");
    town.up_ok(app.version("five").path().as_path());
    assert_eq!(newest(&town, "shop")["handover"], "held");
    let kept: Vec<String> = serde_json::from_str(&town.get("shop", "/notes").body).expect("JSON");
    assert!(tally.acknowledged.iter().all(|note| kept.contains(note)), "an acknowledged note is lost");
    town.trackbed(&["down", "--service", "shop"]);
    wait_for("nobody holds it", SOON, || holder(&town)["held_by"].is_null());
}

#[test]
fn a_drain_limit_of_zero_ends_streams_at_once() {
    let town = TestBox::start();
    let app = App::plain("shop");
    settings(&app, "drainingSeconds = 0");
    town.up_ok(&app.path());
    let port = town.port();
    let host = format!("shop.localhost:{port}");
    let mut stream =
        Connection::send(port, &host, "GET", "/events?100000", "", b"").expect("the edge answers");
    stream.read_once().expect("the stream begins");
    wait_for("the stream is counted", SOON, || town.service("shop")["instance"]["streams"] == 1);
    let status = town.trackbed(&["status", "--service", "shop"]).stdout;
    assert!(status.contains(", 1 stream (oldest "), "{status}");
    town.up_ok(app.version("two").path().as_path());
    let mut text = String::new();
    wait_for("the stream ends whole, with a hint for when to come back", SOON, || {
        text.push_str(&stream.read_once().expect("the connection stays open"));
        text.ends_with("0\r\n\r\n")
    });
    assert!(text.contains("retry:"), "{text}");
    let said = town.json(&["deployments", "--service", "shop", "--json"])[0].clone();
    assert_eq!((&said["status"], &said["pause"]["refused"]), (&"success".into(), &0.into()), "{said:#}");
}

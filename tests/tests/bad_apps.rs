//! Apps that misbehave: what they do is told apart and said, the old release serves on, and a later good deploy mends it.

use std::time::Duration;

use trackbed_tests::{App, TestBox, Up, wait_for};

/// Above every backoff and start that is waited for here.
const SOON: Duration = Duration::from_secs(20);

/// Deploys what `up_good` made, with other variables, and expects a failure of its health gate.
fn up_fails_with(town: &TestBox, app: &App, variables: &[&str], words: &[&str]) -> Up {
    let names: Vec<&str> =
        variables.iter().filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect();
    set(town, "shop", variables);
    let up = town.up_fails(&app.path(), &[], "health", words);
    let unset = town.trackbed(&[&["variables", "unset", "--service", "shop"], names.as_slice()].concat());
    assert_eq!(unset.code, 0, "{unset:?}");
    town.assert_serves_on("shop");
    up
}

fn set(town: &TestBox, service: &str, variables: &[&str]) {
    let set = town.trackbed(&[&["variables", "set", "--service", service], variables].concat());
    assert_eq!(set.code, 0, "{set:?}");
}

#[test]
fn an_app_that_ends_at_once_is_quoted_and_the_old_release_serves_on() {
    let town = TestBox::start();
    let app = town.up_good("shop");

    let up = up_fails_with(&town, &app, &["MODE=exit"], &["exited with code 3 before it was healthy"]);
    assert!(up.quoted().contains("cannot go on: the moon is in the wrong house"), "{:#}", up.last);
    assert!(up.quoted().contains("starting one in mode exit"), "{:#}", up.last);

    up_fails_with(&town, &app, &["MODE=exit", "EXIT_CODE=0"], &["exited with code 0"]).hints(&["foreground"]);
    up_fails_with(&town, &app, &["MODE=fork"], &["exited with code 0"]).hints(&["foreground", "&"]);

    let start = |command: &str, words: &[&str]| {
        let up = town.up_fails(&app.path(), &["--start", command], "health", words);
        town.assert_serves_on("shop");
        up
    };
    // Behind another command, where nobody can tell beforehand.
    start("test -e app.py || exit; gunicornn app:app", &["code 127", "not found"]).hints(&["requirements"]);
    start("python -c 'import nosuchmodule'", &["No module named 'nosuchmodule'"])
        .hints(&["add `nosuchmodule`"]);
    start("python -c 'import os; os.environ[\"STRIPE_KEY\"]'", &["KeyError: 'STRIPE_KEY'"])
        .hints(&["variables set STRIPE_KEY="]);
    start("kill -SEGV $$", &["signal 11"]);
}

#[test]
fn an_app_that_eats_its_memory_is_reported_as_memory_and_restarted_when_it_was_live() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    let settings = "[[volumes]]\nname = \"data\"\nmount = \"/data\"\n[limits]\nmemory = \"64MB\"\n";
    app.write("trackbed.toml", settings);
    if town.service("shop")["isolation"]["level"] != "full" {
        eprintln!("NOT TESTED (no control groups here): memory limits");
        return;
    }
    let up = up_fails_with(&town, &app, &["MODE=eat"], &["memory"]);
    assert!(!up.text("reason").contains("exited with code"), "{:#}", up.last);
    up.hints(&["[limits] memory"]);

    town.up_ok(&app.path());
    let before = town.service("shop")["instance"]["id"].clone();
    let port = town.port();
    // The connection breaks, or the edge answers 502: both are fair.
    let _ = trackbed_tests::get(port, &format!("shop.localhost:{port}"), "/eat");
    wait_for("it serves again", SOON, || {
        let service = town.service("shop");
        service["state"] == "running" && service["instance"]["id"] != before
    });
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
    let log = town.trackbed(&["logs", "--service", "shop"]);
    assert!(log.stdout.contains("memory"), "the log says why it was restarted: {}", log.stdout);
}

#[test]
fn an_app_that_ignores_sigterm_is_ended_after_its_grace() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    app.write(
        "trackbed.toml",
        "[[volumes]]\nname = \"data\"\nmount = \"/data\"\n[deploy]\nstopGraceSeconds = 1\n",
    );
    set(&town, "shop", &["MODE=stubborn"]);
    town.up_ok(&app.path());
    town.up_ok(app.version("two").path().as_path());
    assert_eq!(town.get("shop", "/version").body, "two");
    let down = town.trackbed(&["down", "--service", "shop"]);
    assert_eq!((down.code, town.service("shop")["pids"].as_array().map(Vec::len)), (0, Some(0)), "{down:?}");
}

#[test]
fn a_flooded_log_neither_blocks_the_app_nor_fills_the_disk() {
    let town = TestBox::start();
    let app = App::plain("noisy");
    town.up_ok(&app.path());
    // 200,000 lines of 200 bytes: 40 MB.
    assert_eq!(town.get("noisy", "/flood?200000").body, "flooded");
    assert_eq!(town.get("noisy", "/version").body, "one");
    let log = town.trackbed(&["logs", "--service", "noisy", "-n", "50"]);
    assert_eq!((log.code, log.stdout.lines().count()), (0, 50), "{}", log.stderr);
    let instances = size_of(&town.data_dir().join("instances"));
    assert!(instances < 48 << 20, "the logs take {} MB", instances >> 20);
}

fn size_of(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of(&entry.path()),
            Ok(_) => entry.metadata().map_or(0, |metadata| metadata.len()),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn an_app_that_crashes_while_it_serves_is_started_again() {
    let town = TestBox::start();
    let app = town.up_good("shop");
    let before = town.service("shop")["instance"]["id"].clone();
    let port = town.port();
    let _ = trackbed_tests::get(port, &format!("shop.localhost:{port}"), "/crash");
    wait_for("it serves again", SOON, || {
        let service = town.service("shop");
        service["state"] == "running" && service["instance"]["id"] != before
    });
    town.assert_serves_on("shop");
    assert_eq!(town.service("shop")["instance"]["restarts"], 1);

    // A policy of NEVER leaves it down, and says why.
    let policy = |policy: &str| {
        app.write(
            "railway.json",
            format!(
                "{{\"deploy\": {{\"startCommand\": \"python app.py\", \"healthcheckPath\": \"/health\", \
                 \"restartPolicyType\": \"{policy}\", \"restartPolicyMaxRetries\": 1}}}}"
            ),
        );
        town.up_ok(&app.path());
    };
    policy("NEVER");
    let _ = trackbed_tests::get(port, &format!("shop.localhost:{port}"), "/crash");
    town.wait_state("shop", "crashed", SOON);
    let detail = town.service("shop")["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("exited with code 9") && detail.contains("restart policy"), "{detail}");
    let page = town.get("shop", "/version");
    assert!(page.status == 503 && page.body.contains("crashed"), "{page:?}");

    // A good deploy mends it, and ALWAYS restarts after a clean end, too.
    policy("ALWAYS");
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
    let live = town.service("shop");
    let worker = live["pids"].as_array().and_then(|pids| pids.last()).and_then(serde_json::Value::as_u64);
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(worker.expect("a pid")).expect("a pid")),
        nix::sys::signal::Signal::SIGTERM,
    );
    wait_for("it serves again", SOON, || {
        let service = town.service("shop");
        service["state"] == "running" && service["instance"]["id"] != live["instance"]["id"]
    });
}

#[test]
fn an_app_that_crashes_again_and_again_is_given_up_with_the_reason_until_a_good_deploy() {
    let town = TestBox::start();
    let app = App::plain_with_volume("shop");
    // Starts well until its data says otherwise.
    app.write(
        "start.sh",
        "test -e /data/broken && { echo the data is broken >&2; exit 7; }; exec python app.py\n",
    );
    app.write(
        "railway.json",
        "{\"deploy\": {\"startCommand\": \"sh start.sh\", \"healthcheckPath\": \"/health\", \"restartPolicyMaxRetries\": 2}}",
    );
    town.up_ok(&app.path());
    let port = town.port();
    let touched = town.trackbed(&["run", "--service", "shop", "--", "touch", "/data/broken"]);
    assert_eq!(touched.code, 0, "{touched:?}");
    let _ = trackbed_tests::get(port, &format!("shop.localhost:{port}"), "/crash");
    town.wait_state("shop", "crashed", SOON);
    let detail = town.service("shop")["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("exited with code 7") && detail.contains("2 restarts"), "{detail}");
    let log = town.trackbed(&["logs", "--service", "shop"]);
    assert!(log.stdout.contains("the data is broken"), "{log:?}");
    let said = town.trackbed(&["status"]);
    assert!(said.stdout.contains("crashed") && said.stdout.contains("exited with code 7"), "{said:?}");

    app.write("start.sh", "rm -f /data/broken; exec python app.py\n").version("two");
    town.up_ok(&app.path());
    assert_eq!(town.get("shop", "/version").body, "two");
    assert_eq!(town.service("shop")["detail"], serde_json::Value::Null);
}

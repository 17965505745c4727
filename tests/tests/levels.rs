//! Every isolation level deploys, and says what it lacks; what is seen of a running service: logs, limits, `run`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use trackbed_tests::{App, TestBox, User, assistant, is_root, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// Deploys at a level and checks what every level must do.
fn serves(town: &TestBox, level: &str) {
    let status = town.json(&["status", "--json"]);
    assert_eq!(status["box"]["isolation"]["level"], level, "{:#}", status["box"]);
    let app = App::plain("level");
    town.up_ok(&app.path());
    assert_eq!(town.get("level", "/version").body, "one");
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("level", "/version").body, "two");
    let service = town.service("level");
    assert_eq!(service["isolation"]["level"], level);
    let missing = service["isolation"]["missing"].as_array().expect("a list");
    match level {
        "full" => {}
        _ => assert!(
            !missing.is_empty()
                && missing.iter().all(|text| text.as_str().is_some_and(|text| text.len() > 10))
        ),
    }
    let said = town.trackbed(&["run", "--service", "level", "--", "sh", "-c", "echo here; exit 3"]);
    assert_eq!((said.code, said.stdout.as_str()), (3, "here\n"), "{said:?}");
    let shim = service["pids"][0].as_u64().expect("a supervisor");
    town.kill_pid(shim);
    wait_for("it comes back", PATIENCE, || {
        town.get("level", "/version").status == 200 && town.service("level")["pids"][0] != shim
    });
}

/// Deploys with a volume and checks that its data outlives a redeploy.
fn keeps(town: &TestBox, mount: &str) {
    let app = App::plain("keeps");
    town.up_ok(&app.with_volume(mount).path());
    assert_eq!(town.request("keeps", "POST", "/notes", "kept").status, 201);
    town.up_ok(&app.version("two").path());
    assert_eq!(town.get("keeps", "/notes").body, "[\"kept\"]");
    assert_eq!(town.get("keeps", "/two-at-once").body, "False");
}

/// A build needs mounts. A level without them says so before anybody tries, and refuses in plain words.
fn refuses(level: &str) {
    let town = TestBox::start_with(User::Own, &[], &["--isolation", level]);
    let isolation = town.json(&["status", "--json"])["box"]["isolation"].clone();
    assert_eq!(isolation["level"], level);
    assert!(isolation["missing"].to_string().contains("nothing is built"), "{isolation:#}");
    let refused = town.up(&App::plain("hopeful").path(), &[]);
    assert_eq!((refused.code, refused.text("status")), (1, "failed"), "{:#}", refused.last);
    assert_eq!(refused.text("stage"), "build");
    assert!(refused.text("reason").contains("without mounts"), "{:#}", refused.last);
    assert!(refused.text("hint").contains("user namespaces"), "{:#}", refused.last);
    assert_eq!(town.living_instances().len(), 0);
}

/// As `su` without a dash leaves it on Debian.
#[test]
fn root_gets_full_isolation_without_sbin_in_its_path() {
    if !is_root("level full") {
        return;
    }
    let town = TestBox::start_with(User::Own, &[("PATH", "/usr/local/bin:/usr/bin:/bin")], &[]);
    let isolation = town.json(&["status", "--json"])["box"]["isolation"].clone();
    assert_eq!(isolation["level"], "full", "{isolation:#}");
}

/// What was made before `nft` failed is gone at the end, which the box itself looks at.
#[test]
fn a_network_that_cannot_be_made_is_told_and_leaves_nothing() {
    if !is_root("a network without rules") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nft = folder.path().join("nft");
    std::os::unix::fs::symlink("/bin/false", nft).expect("a link");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.path().display());
    let town = TestBox::start_with(User::Own, &[("PATH", &path)], &[]);
    let isolation = town.json(&["status", "--json"])["box"]["isolation"].clone();
    assert!(isolation["missing"].to_string().contains("own network: nft refused"), "{isolation:#}");
}

#[test]
fn root_gets_full_isolation() {
    if !is_root("level full") {
        return;
    }
    let town = TestBox::start();
    serves(&town, "full");
    keeps(&town, "/data");
}

#[test]
fn root_may_ask_for_user_namespaces() {
    let town = TestBox::start_with(User::Own, &[], &["--isolation", "userns"]);
    serves(&town, "userns");
    keeps(&town, "/data");
}

#[test]
fn an_ordinary_user_gets_user_namespaces() {
    if !is_root("an ordinary user, made by root") {
        return;
    }
    let town = TestBox::start_with(User::Ordinary, &[], &[]);
    serves(&town, "userns");
    keeps(&town, "/data");
}

#[test]
fn landlock_says_that_it_cannot_build() {
    refuses("landlock");
}

#[test]
fn plain_says_that_it_cannot_build() {
    refuses("plain");
}

#[test]
fn an_unknown_level_is_refused() {
    let mut town = TestBox::prepare(User::Own, &[], &["--isolation", "titanium"]);
    town.spawn_serve();
    assert_eq!(town.wait_serve(), 2);
    let said = town.serve_log();
    assert!(said.contains("titanium") && said.contains("userns"), "{said}");
    let _ = std::fs::remove_dir_all(town.data_dir());
}

#[test]
fn an_ordinary_user_deploys_the_assistant_and_keeps_its_conversation() {
    if !is_root("an ordinary user, made by root") {
        return;
    }
    let town = TestBox::start_with(User::Ordinary, &[], &[]);
    let app = assistant();
    town.up_ok(&app.path());
    let health = town.get("assistant", "/health");
    assert_eq!((health.status, health.body.contains("\"database\":\"ok\"")), (200, true), "{health:?}");
    let made = town.request("assistant", "POST", "/threads", r#"{"title": "A talk"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let made: Value = serde_json::from_str(&made.body).expect("JSON");
    let path = format!("/threads/{}", made["id"]);
    let chat = town.request("assistant", "POST", &format!("{path}/chat"), r#"{"message": "Remember me"}"#);
    assert!(chat.body.matches("data:").count() >= 10, "{chat:?}");
    let before = town.get("assistant", &path).body;
    assert!(before.contains("Remember me"), "{before}");
    app.write("NEWS.md", "another source");
    town.up_ok(&app.path());
    assert_eq!(town.get("assistant", &path).body, before);
}

#[test]
fn what_an_app_says_while_serve_is_away_is_in_its_log() {
    let mut town = TestBox::start();
    town.up_ok(&App::plain("talker").path());
    let (port, say) = (town.port(), |town: &TestBox, word: &str| {
        assert_eq!(town.get("talker", &format!("/say?{word}")).status, 200);
    });
    say(&town, "before");
    town.kill_serve();
    let said = trackbed_tests::get(port, &format!("talker.localhost:{port}"), "/say?meanwhile");
    assert_eq!(said.expect("the edge answers").status, 200);
    town.start_serve();
    say(&town, "after");
    wait_for("the log is whole", PATIENCE, || {
        let log = town.trackbed(&["logs", "--service", "talker", "--json"]).stdout;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let texts: Vec<String> = lines.filter_map(|line| Some(line["text"].as_str()?.to_owned())).collect();
        let own: Vec<&str> = texts.iter().map(String::as_str).collect();
        // The first line names the port, which differs between levels.
        own.len() == 4 && own[0].starts_with("starting one") && own[1..] == ["before", "meanwhile", "after"]
    });
}

#[test]
fn limits_are_shown_in_the_plan_and_hold() {
    if !is_root("control groups") {
        return;
    }
    let town = TestBox::start();
    let app = App::plain("limited");
    app.write("trackbed.toml", "[limits]\nmemory = \"96MB\"\ncpu = 0.5\n");
    let path = app.path().to_string_lossy().into_owned();
    let plan = town.trackbed(&["plan", &path]);
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.stdout.contains("limits.memory") && plan.stdout.contains("limits.cpu"), "{plan:?}");
    assert!(plan.stdout.contains("trackbed.toml"), "{plan:?}");
    town.up_ok(&app.path());
    let memory = town.service("limited")["instance"]["memory_bytes"].as_u64().expect("a figure");
    assert!(memory > 1 << 20 && memory < 96 << 20, "{memory}");
    let missing = town.service("limited")["isolation"]["missing"].to_string();
    if missing.contains("memory limit") || missing.contains("cpu limit") {
        eprintln!("NOT TESTED (no control groups here): that the limits hold: {missing}");
        return;
    }
    // Two busy seconds of CPU at half a CPU take at least three of the clock.
    let busy = "import time\nwhile time.process_time() < 2: pass";
    let began = Instant::now();
    let ran = town.trackbed(&["run", "--service", "limited", "--", "python3", "-c", busy]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    let eat = "x = bytearray(256 << 20)";
    let ate = town.trackbed(&["run", "--service", "limited", "--", "python3", "-c", eat]);
    assert_ne!(ate.code, 0, "{ate:?}");
    wait_for("the service is back, should the kernel have chosen it", PATIENCE, || {
        town.get("limited", "/version").status == 200
    });
}

#[test]
fn a_command_runs_where_the_app_runs() {
    let town = TestBox::start();
    town.up_ok(&App::plain("shell").with_volume("/data").path());
    assert_eq!(town.request("shell", "POST", "/notes", "kept").status, 201);
    let run = |command: &str| town.trackbed(&["run", "--service", "shell", "--", "sh", "-c", command]);
    let said = run("echo out; echo err >&2; ls /data; pwd; echo $TRACKBED_SERVICE; exit 7");
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.stdout.contains("out\n") && said.stdout.contains("app.db\n"), "{said:?}");
    assert!(said.stdout.contains("/app\n") && said.stdout.contains("shell\n"), "{said:?}");
    assert!(said.stderr.contains("err\n") && !said.stdout.contains("err"), "{said:?}");
    let who = |text: &str| -> String { text.trim().to_owned() };
    let app: Value = serde_json::from_str(&town.get("shell", "/who").body).expect("JSON");
    assert_eq!(who(&run("id -u").stdout), app["uid"].to_string());
    let many = run("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done");
    assert_eq!(many.stdout.lines().count(), 5000, "{}", many.stderr);
    let missing = town.trackbed(&["run", "--service", "shell", "--", "no-such-program"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[test]
fn a_command_ends_when_its_caller_goes_away() {
    let town = TestBox::start();
    town.up_ok(&App::plain("leash").path());
    let mut command = town.command();
    command.args(["run", "--service", "leash", "--", "sh", "-c", "echo up; sleep 4242 & wait"]);
    let mut caller =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary under test runs");
    let sleeper = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(b"sleep\x004242\0")).count()
    };
    wait_for("the command runs", PATIENCE, || sleeper() == 1);
    caller.kill().expect("our child");
    caller.wait().expect("our child");
    wait_for("the command has ended", PATIENCE, || sleeper() == 0);
    assert_eq!(town.get("leash", "/version").body, "one");
    assert!(Path::new(&format!("/proc/{}", town.serve_pid())).exists());
}

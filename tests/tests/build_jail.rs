//! What a build may do to the box and to others: take its turn, and nothing beyond its limits. What it is refused is said.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use trackbed_tests::{App, TestBox, User, wait_for};

/// Above the start of an installer and a build of nothing.
const SOON: Duration = Duration::from_secs(60);

fn building(name: &str, command: &str) -> App {
    let app = App::plain(name);
    let settings = format!(
        "{{\"build\": {{\"buildCommand\": {command:?}}}, \
         \"deploy\": {{\"startCommand\": \"python app.py\", \"healthcheckPath\": \"/health\"}}}}"
    );
    app.write("railway.json", settings);
    app
}

#[test]
fn a_second_build_waits_for_the_first_and_says_so() {
    let town = TestBox::start();
    let (slow, quick) = (building("slow", "sleep 1000"), building("quick", "true"));
    let mut first = town.spawn(&["up", &slow.path().to_string_lossy()]);
    wait_for("the first build runs", SOON, || {
        town.trackbed(&["logs", "--build", "--service", "slow"]).stdout.contains("build command: sleep 1000")
    });
    let mut second = town.spawn(&["up", &quick.path().to_string_lossy(), "--json"]);
    let mut said = BufReader::new(second.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let waits = said.find(|line| line.contains("waits for its turn"));
    assert!(waits.is_some_and(|line| line.contains("`slow` came before")));
    let cancelled = town.trackbed(&["cancel", "--service", "slow"]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    let last = said.last().expect("it ends");
    assert!(last.contains("\"status\":\"success\""), "{last}");
    assert_eq!(second.wait().expect("our child").code(), Some(0));
    assert_eq!(first.wait().expect("our child").code(), Some(1));
    assert_eq!(town.get("quick", "/version").body, "one");
}

#[test]
fn builds_run_at_once_when_the_owner_says_so() {
    let town = TestBox::start_with(User::Own, &[], &["--builds", "2"]);
    let (slow, quick) = (building("slow", "sleep 1000"), building("quick", "true"));
    let mut first = town.spawn(&["up", &slow.path().to_string_lossy()]);
    wait_for("the first build runs", SOON, || {
        town.trackbed(&["logs", "--build", "--service", "slow"]).stdout.contains("build command: sleep 1000")
    });
    town.up_ok(&quick.path());
    assert_eq!(town.trackbed(&["cancel", "--service", "slow"]).code, 0);
    first.wait().expect("our child");
}

#[test]
fn a_build_that_eats_memory_or_processes_is_told_its_limit_and_the_old_release_serves_on() {
    let town = TestBox::start_with(User::Own, &[], &["--build-memory", "256MiB"]);
    let app = town.up_good("shop");
    let missing = town.service("shop")["isolation"]["missing"].to_string();
    if missing.contains("memory limit") {
        eprintln!("NOT TESTED (no control groups here): the memory limit of builds");
    } else {
        let eats = building("shop", "echo before; python3 -c \"b'x' * (600 << 20)\"");
        town.up_fails(&eats.path(), &[], "build", &["more than 256 MB of memory", "before"])
            .hints(&["--build-memory"]);
        town.assert_serves_on("shop");
    }
    if missing.contains("process limit") {
        eprintln!("NOT TESTED (no control groups, no own count here): the process limit of builds");
        return;
    }

    let bomb = building("shop", "while :; do sleep 1000 & done");
    town.up_fails(&bomb.path(), &[], "build", &["more than 1024 processes"]).hints(&["starts itself again"]);
    town.assert_serves_on("shop");
    town.up_ok(&app.path());
}

/// A package whose build, which an install runs, looks around. It needs no index.
const SPY: &str = r#"
import os
seen = []
for path in ["/etc/shadow", "/root/.ssh/id_rsa", "@KEY@"]:
    try:
        seen.append(open(path).read())
    except OSError as error:
        print("denied:", error, flush=True)
print("variables:", " ".join(sorted(os.environ)), flush=True)
assert seen, "nothing to steal: cannot read @KEY@"
"#;

#[test]
fn an_install_script_that_reads_the_host_is_denied_and_named() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let key = town.data_dir().join("key");
    assert!(key.is_file(), "there is a key to steal");
    app.write("requirements.txt", "./spy\n")
        .write(
            "spy/pyproject.toml",
            "[project]\nname = \"spy\"\nversion = \"1\"\n\
             [build-system]\nrequires = []\nbuild-backend = \"spy\"\nbackend-path = [\".\"]\n",
        )
        .write("spy/spy.py", SPY.replace("@KEY@", &key.to_string_lossy()));
    let set = town.trackbed(&["variables", "set", "--service", "shop", "DATABASE_URL=secret"]);
    let named = set.code == 0;
    let up = town.up_fails(&app.path(), &[], "build", &["nothing to steal: cannot read"]);
    assert!(up.text("reason").contains("denied: ") || up.quoted().contains("denied: "), "{:#}", up.last);
    let log = town.trackbed(&["logs", "--build", "--service", "shop"]).stdout;
    assert!(log.contains("'/etc/shadow'") && log.contains(&*key.to_string_lossy()), "{log}");
    // An install has no business with the service's variables.
    assert!(named && !log.contains("DATABASE_URL"), "{log}");
}

#[test]
fn the_size_of_an_image_is_told_and_what_of_it_is_shared() {
    let town = TestBox::start();
    let app = App::plain("shop");
    let told = |up: &trackbed_tests::Up| {
        let notes = up.events.iter().filter_map(|event| event["message"].as_str());
        notes.filter(|note| note.starts_with("image: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = town.up_ok(&app.path());
    assert!(matches!(told(&first).as_slice(), [note] if !note.contains("shared")), "{:?}", told(&first));
    let second = town.up_ok(app.version("two").path().as_path());
    assert!(told(&second)[0].ends_with("of it shared with v1"), "{:?}", told(&second));
    let list = town.json(&["deployments", "--json", "--service", "shop"]);
    assert!(list[0]["image_bytes"].as_u64() > Some(0), "{list:#}");
    assert_eq!(second.last["image_bytes"], list[0]["image_bytes"]);
}

#[test]
fn an_unchanged_folder_is_told_to_be_live_and_not_deployed() {
    let town = TestBox::start();
    let app = App::plain("shop");
    town.up_ok(&app.path());
    let folder = app.path().to_string_lossy().into_owned();
    let deployments =
        || town.json(&["deployments", "--json", "--service", "shop"]).as_array().map_or(0, Vec::len);
    let again = town.trackbed(&["up", &folder]);
    assert!(again.code == 0 && again.stderr.contains("already live: v1 of shop"), "{again:?}");
    assert_eq!(deployments(), 1);
    // A volume, a variable, a change, a service that was stopped, a flag: each is something to deploy.
    let add = town.trackbed(&["volume", "add", "data", "/data", "--service", "shop"]);
    assert_eq!(add.code, 0, "{add:?}");
    assert!(!town.trackbed(&["up", &folder]).stderr.contains("already live"));
    let again = town.trackbed(&["up", &folder]);
    assert!(again.stderr.contains("already live: v2 of shop"), "{again:?}");
    let set = town.trackbed(&["variables", "set", "--service", "shop", "A=b"]);
    assert_eq!(set.code, 0, "{set:?}");
    assert!(!town.trackbed(&["up", &folder]).stderr.contains("already live"));
    app.version("two");
    assert!(!town.trackbed(&["up", &folder]).stderr.contains("already live"));
    assert_eq!(town.trackbed(&["down", "--service", "shop"]).code, 0);
    assert!(!town.trackbed(&["up", &folder]).stderr.contains("already live"));
    assert_eq!(deployments(), 5);
    let mut nothing = String::new();
    let mut stdout = town.spawn(&["up", &folder, "--anew"]);
    stdout.stdout.take().expect("piped").read_to_string(&mut nothing).expect("text");
    assert_eq!((stdout.wait().expect("our child").code(), deployments()), (Some(0), 6));
}

//! Two that want the same at once, and commands that come at the wrong time.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;
use trackbed_tests::{App, TestBox, User, wait_for};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn of_two_deploys_at_once_the_newest_is_live_and_both_end() {
    let town = TestBox::start();
    let _one = town.up_good("shop");
    let (two, three) = (App::plain_with_volume("shop"), App::plain_with_volume("shop"));
    two.version("two");
    three.version("three");
    let ups = std::thread::scope(|scope| {
        let ups = [&two, &three].map(|app| {
            scope.spawn({
                let town = &town;
                move || town.up(&app.path(), &[])
            })
        });
        ups.map(|up| up.join().expect("no panic"))
    });
    let ups = ups.map(|up| (up.code, up.last));
    for (code, last) in &ups {
        let status = last["status"].as_str().unwrap_or_default();
        assert!(matches!((code, status), (0, "success") | (1, "superseded")), "{code} {last:#}");
    }
    let all = town.json(&["deployments", "--json", "--service", "shop"]);
    let all = all.as_array().expect("a list").clone();
    let live: Vec<&Value> = all.iter().filter(|deployment| deployment["live"] == true).collect();
    assert_eq!((all.len(), live.len()), (3, 1), "{all:#?}");
    assert_eq!(live[0]["id"], all[0]["id"], "the newest is live: {all:#?}");
    assert_eq!(live[0]["status"], "success");
    let newest = ups.iter().position(|(_, last)| last["deployment"] == all[0]["id"]).expect("one of the two");
    assert_eq!(town.get("shop", "/version").body, ["two", "three"][newest]);
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
}

#[test]
fn two_services_are_deployed_at_once_and_a_deploy_overtakes_one_that_waits_for_health() {
    let town = TestBox::start();
    let (one, two) = (App::plain("north"), App::plain("south"));
    std::thread::scope(|scope| {
        for app in [&one, &two] {
            let town = &town;
            scope.spawn(move || town.up_ok(&app.path()));
        }
    });
    assert_eq!(
        (town.get("north", "/version").body, town.get("south", "/version").body),
        ("one".into(), "one".into())
    );

    // A deployment that waits for its health does not hold up the next one for its whole timeout.
    let set = |pair: &str| town.trackbed(&["variables", "set", pair, "--service", "north"]).code;
    assert_eq!(set("HEALTH_STATUS=500"), 0);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| town.up(&one.version("two").path(), &["--health-timeout", "60"]));
        wait_for("it waits for health", SOON, || town.service("north")["deploying"]["step"] == "health");
        assert_eq!(set("HEALTH_STATUS=200"), 0);
        let better = App::plain("north");
        let began = std::time::Instant::now();
        town.up_ok(better.version("three").path().as_path());
        assert!(began.elapsed() < Duration::from_secs(30), "held up for {:?}", began.elapsed());
        let stuck = stuck.join().expect("no panic");
        assert_eq!((stuck.code, stuck.text("status")), (1, "superseded"), "{:#}", stuck.last);
        let newest = town.service("north")["last_deployment"]["id"].clone();
        assert_eq!(stuck.last["superseded_by"], newest, "{:#}", stuck.last);
    });
    assert_eq!(town.get("north", "/version").body, "three");
}

#[test]
fn a_second_serve_on_the_same_folder_is_refused_with_the_first_ones_process() {
    let mut town = TestBox::start();
    let app = App::plain("shop");
    town.up_ok(&app.path());
    let pid = std::fs::read_to_string(town.data_dir().join("lock")).expect("the lock").trim().to_owned();
    let said = town.trackbed(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(said.code, 1, "{said:?}");
    let talk = &said.stderr;
    assert!(talk.contains("already runs on") && talk.contains(&format!("process {pid}")), "{talk}");
    assert_eq!(town.get("shop", "/version").body, "one");
    assert_eq!(town.stop_serve(), 0);
    town.start_serve();
    assert_eq!(town.get("shop", "/version").body, "one");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let town = TestBox::prepare(User::Own, &[], &[]);
    let said = town.trackbed(&["serve", "--listen", &address]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains(&address) && said.stderr.contains("another process has this port"),
        "{}",
        said.stderr
    );
    let said = town.trackbed(&["serve", "--listen", "nonsense"]);
    assert!(said.code != 0 && said.stderr.contains("nonsense"), "{said:?}");
}

#[test]
fn a_stopped_service_says_so_and_comes_back() {
    let town = TestBox::start();
    let _app = town.up_good("shop");
    let down = town.trackbed(&["down", "--service", "shop"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!(town.service("shop")["state"], "stopped");
    let page = town.get("shop", "/version");
    assert!(page.status == 503 && page.body.contains("shop") && page.body.contains("stopped"), "{page:?}");
    let run = town.trackbed(&["run", "--service", "shop", "--", "true"]);
    assert!(
        run.code == 1 && run.stderr.contains("no running instance") && run.stderr.contains("hint:"),
        "{run:?}"
    );
    let restart = town.trackbed(&["restart", "--service", "shop"]);
    assert_eq!(restart.code, 0, "{restart:?}");
    town.assert_serves_on("shop");
}

#[test]
fn a_rollback_brings_back_code_and_variables_and_keeps_the_data() {
    let town = TestBox::start();
    let set =
        |pair: &str| assert_eq!(town.trackbed(&["variables", "set", pair, "--service", "shop"]).code, 0);
    set("COLOUR=red");
    let app = town.up_good("shop");
    set("COLOUR=blue");
    town.up_ok(app.version("two").path().as_path());
    let colour = || -> Value {
        serde_json::from_str::<Value>(&town.get("shop", "/env").body).expect("JSON")["COLOUR"].clone()
    };
    assert_eq!(colour(), "blue");
    let said = town.trackbed(&["rollback", "v1", "--json", "--service", "shop"]);
    let back: Value = serde_json::from_str(said.stdout.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(
        (&back["status"], &back["release"]),
        (&Value::from("success"), &Value::from("v1")),
        "{back:#}"
    );
    assert_eq!((town.get("shop", "/version").body.as_str(), colour()), ("one", Value::from("red")));
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
}

#[test]
fn what_does_not_exist_is_named_and_json_ends_with_stage_reason_and_hint() {
    let town = TestBox::start();
    let said = town.trackbed(&["logs"]);
    assert!(
        said.code == 1 && said.stderr.contains("no service yet") && said.stderr.contains("trackbed up"),
        "{said:?}"
    );
    let app = App::plain("shop");
    town.up_ok(&app.path());
    for (arguments, words) in [
        (&["restart", "--service", "shoq"][..], &["no service shoq", "shop"][..]),
        (&["logs", "--service", "shoq"], &["no service shoq"]),
        (&["rollback", "v7", "--service", "shop"], &["`shop` has no release v7"]),
        (&["rollback", "--service", "shop"], &["no release before v1"]),
        (
            &["logs", "--deployment", "dep_2222222222222222"],
            &["there is no deployment `dep_2222222222222222`"],
        ),
        (&["logs", "--deployment", "nonsense"], &["nonsense"]),
    ] {
        let said = town.trackbed(arguments);
        assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
        for word in words {
            assert!(said.stderr.contains(word), "{arguments:?}, no `{word}`: {}", said.stderr);
        }
    }
    let said = town.trackbed(&["rollback", "v7", "--json", "--service", "shop"]);
    let last: Value = serde_json::from_str(said.stdout.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((said.code, &last["status"]), (1, &Value::from("failed")), "{last:#}");
    for key in ["stage", "reason", "hint", "service", "deployment", "url"] {
        assert!(last.get(key).is_some(), "no `{key}`: {last:#}");
    }
    assert!(
        last["stage"].is_string() && last["reason"].as_str().is_some_and(|text| text.contains("v7")),
        "{last:#}"
    );
}

#[test]
fn a_box_that_is_stopped_as_a_whole_comes_back_with_what_ran_and_counts_no_crash() {
    let mut town = TestBox::start();
    let app = App::plain_with_volume("shop");
    app.write(
        "railway.json",
        r#"{"deploy": {"startCommand": "exec python app.py", "healthcheckPath": "/health", "restartPolicyType": "NEVER"}}"#,
    );
    town.up_ok(&app.path());
    assert_eq!(town.request("shop", "POST", "/notes", "kept").status, 201);
    // At once after the switch: nothing of the deployment may be left that names the old instance.
    town.up_ok(&app.path());
    assert_eq!(town.trackbed(&["down", "--all"]).code, 0);
    town.wait_serve();
    town.start_serve();
    town.wait_state("shop", "running", std::time::Duration::from_secs(20));
    assert_eq!(town.service("shop")["instance"]["restarts"], 0);
    assert_eq!(town.get("shop", "/notes").body, r#"["kept"]"#);
}

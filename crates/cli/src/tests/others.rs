//! The other commands against a box that is not real.

use serde_json::{Value, json};

use super::fake::{Answer, FakeBox};
use super::service;

fn not_found() -> Answer {
    let error = json!({ "code": "not_found", "message": "there is no such service", "hint": null });
    (404, json!({ "error": error }).to_string())
}

/// A box with one service `web`, and answers to further calls.
fn web_box(more: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> FakeBox {
    FakeBox::start(move |line, _| match (line, more(line)) {
        (_, Some(body)) => (200, body.to_string()),
        ("GET /v1/services", None) => (200, json!([service("web", "web")]).to_string()),
        _ => not_found(),
    })
}

#[tokio::test]
async fn the_only_service_stands_in_aloud() {
    let fake = web_box(|line| {
        let page = json!({ "lines": [{ "at": 0, "stream": "out", "text": "hi", "instance": "i" }],
                           "next": "c", "ended": false });
        (line == "GET /v1/services/web/web/logs?tail=200").then_some(page)
    });
    let ran = fake.run(&["logs"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "1970-01-01T00:00:00.000Z hi\n"), "{}", ran.talk);
    assert_eq!(ran.talk, "using web, the only service of the box\n");
}

#[tokio::test]
async fn variables_are_never_set_by_guess() {
    let fake = web_box(|_| None);
    let ran = fake.run(&["variables", "set", "A=1"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(fake.asked().last().unwrap().line, "PATCH /v1/services/demo/demo/variables");
}

#[tokio::test]
async fn a_service_that_a_typo_would_make_is_told_and_unset_makes_none() {
    let fake = web_box(|line| match line {
        "PATCH /v1/services/stdap/stdap/variables" => Some(json!([])),
        "GET /v1/services/web/web/variables?show=false" => {
            Some(json!([{ "name": "A", "value": null, "shared": true, "updated_at": 0 }]))
        }
        _ => None,
    });
    let ran = fake.run(&["variables", "set", "X=1", "-s", "stdap"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.talk.starts_with("service stdap is new; it is made now\nset X of stdap"), "{}", ran.talk);
    let ran = fake.run(&["variables", "unset", "X", "-s", "stdap"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.talk.starts_with("error: there is no service stdap\nhint: the box has: web"), "{}", ran.talk);
    let ran = fake.run(&["variables", "unset", "A", "X", "-s", "web"]).await;
    assert_eq!(ran.code, 1);
    let text = "error: there is no variable A, X of web; nothing was removed\n\
                hint: A is shared by project web: add --shared\n";
    assert_eq!(ran.talk, text);
    assert_eq!(fake.asked().iter().filter(|asked| asked.line.starts_with("PATCH")).count(), 1);
}

#[tokio::test]
async fn a_name_of_several_projects_makes_no_third_service() {
    let fake = FakeBox::start(|line, _| match line {
        "GET /v1/services" => (200, json!([service("one", "api"), service("two", "api")]).to_string()),
        _ => not_found(),
    });
    for line in [&["variables", "set", "A=1", "-s", "api"][..], &["volume", "add", "d", "/d", "-s", "api"]] {
        let ran = fake.run(line).await;
        assert!(ran.code == 1 && ran.talk.contains("several projects have a service api"), "{}", ran.talk);
        assert_eq!(fake.asked().last().unwrap().line, "GET /v1/services");
    }
}

#[tokio::test]
async fn set_sends_values_byte_for_byte_and_never_prints_them() {
    let fake = web_box(|line| line.starts_with("PATCH").then(|| json!([])));
    let ran = fake.run(&["variables", "set", "--service", "web", "A= s3cret=\n", "B="]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, ""));
    assert_eq!(ran.talk, "set A, B of web; takes effect with the next deploy: trackbed redeploy\n");
    let change = json!({ "set": { "A": " s3cret=\n", "B": "" }, "unset": [], "shared": false });
    assert_eq!(fake.asked().last().unwrap().json(), change);
}

#[tokio::test]
async fn import_sets_all_or_nothing() {
    let fake = web_box(|line| line.starts_with("PATCH").then(|| json!([])));
    assert_eq!(fake.run(&["variables", "import", ".env"]).await.code, 0);
    assert_eq!(fake.asked().last().unwrap().json()["set"], json!({ "A": "1" }));
    let before = fake.asked().len();
    let ran = fake.run(&["variables", "import", "main.py"]).await;
    assert!(ran.code == 1 && ran.talk.contains("main.py: line 1: there is no `=`"), "{}", ran.talk);
    assert_eq!(fake.asked().len(), before);
}

#[tokio::test]
async fn values_are_listed_only_when_asked_for() {
    let fake = web_box(|line| {
        let variable = json!([{ "name": "KEY", "value": "s3cret", "shared": true, "updated_at": 0 }]);
        line.contains("/variables?show=").then_some(variable)
    });
    let hidden = fake.run(&["variables"]).await.result;
    assert!(hidden.contains("••••") && !hidden.contains("s3cret"), "{hidden}");
    assert!(!fake.run(&["variables", "--json"]).await.result.contains("s3cret"));
    assert!(fake.run(&["variables", "list", "--show"]).await.result.contains("s3cret"));
}

#[tokio::test]
async fn run_exits_with_the_code_of_the_command() {
    let fake = FakeBox::start(|line, asked| match line {
        "GET /v1/services" => (200, json!([service("web", "web")]).to_string()),
        "POST /v1/services/web/web/run" => {
            assert_eq!(asked.json()["command"], json!(["sh", "-c", "exit 3"]));
            let lines = [
                r#"{"type":"line","stream":"out","text":"a"}"#,
                r#"{"type":"line","stream":"err","text":"b"}"#,
                r#"{"type":"exit","code":3,"message":null}"#,
            ];
            (200, lines.join("\n"))
        }
        _ => not_found(),
    });
    let ran = fake.run(&["run", "-s", "web", "--", "sh", "-c", "exit 3"]).await;
    assert_eq!((ran.code, ran.result.as_str(), ran.talk.as_str()), (3, "a\n", "b\n"));
}

#[tokio::test]
async fn a_run_that_is_cut_is_a_failure() {
    let fake = web_box(|line| {
        line.starts_with("POST").then(|| json!({ "type": "line", "stream": "out", "text": "a" }))
    });
    let ran = fake.run(&["run", "true"]).await;
    assert!(ran.code == 1 && ran.talk.contains("hung up"), "{}", ran.talk);
}

#[tokio::test]
async fn no_box_means_a_refusal_with_the_way_out() {
    let fake = FakeBox::absent();
    for line in [&["status"][..], &["logs"], &["variables", "set", "A=1"], &["down"], &["run", "true"]] {
        let ran = fake.run(line).await;
        assert_eq!((ran.code, ran.result.as_str()), (1, ""), "{line:?}");
        assert!(ran.talk.contains("no box is running") && ran.talk.contains("trackbed up"), "{}", ran.talk);
    }
    // What is wanted is so already.
    assert_eq!(fake.run(&["down", "--all"]).await.code, 0);
}

#[tokio::test]
async fn status_has_every_field_that_scripts_need() {
    let fake = web_box(|line| {
        let info = json!({
            "version": "0.1.0", "data_dir": "/d", "domain": "localhost", "pid": 7, "resident_bytes": 20_000_000,
            "edge": null, "isolation": { "level": "plain", "missing": ["user namespaces: forbidden"] },
        });
        (line == "GET /v1/box").then_some(info)
    });
    let ran = fake.run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&ran.result).unwrap();
    let web = status["services"][0].as_object().unwrap();
    for field in [
        "name",
        "release",
        "version",
        "state",
        "isolation_level",
        "pids",
        "url",
        "volumes",
        "last_restore_point",
        "last_proof",
    ] {
        assert!(web.contains_key(field), "no {field}");
    }
    let text = fake.run(&["status"]).await.result;
    assert!(text.contains("missing: user namespaces: forbidden") && text.contains("web  running"), "{text}");
}

#[tokio::test]
async fn status_of_one_service_that_crashed_has_no_figures() {
    let fake = FakeBox::start(|line, _| {
        let instance = |restarts: u32| {
            json!({ "id": "i", "port": 1, "started_at": 0, "restarts": restarts, "memory_bytes": 0,
                    "cpu_seconds": 0.0, "in_flight": 0, "streams": 0, "requests": 0 })
        };
        let isolation = json!({ "level": "full", "missing": [] });
        let mut services = json!([service("web", "web"), service("shop", "api")]);
        services[0]["state"] = json!("crashed");
        services[0]["instance"] = instance(5);
        services[1]["instance"] = instance(1);
        match line {
            "GET /v1/box" => {
                let info = json!({ "version": "0", "data_dir": "/d", "domain": "d", "pid": 1,
                                   "resident_bytes": 1, "edge": null, "isolation": isolation });
                (200, info.to_string())
            }
            "GET /v1/services" => (200, services.to_string()),
            _ => not_found(),
        }
    });
    let text = fake.run(&["status", "-s", "web"]).await.result;
    assert_eq!(text, "web  crashed\n  http://web.localhost:8080\n");
    let text = fake.run(&["status", "-p", "shop"]).await.result;
    assert!(text.starts_with("shop/api  running") && text.contains(", restarted once\n"), "{text}");
    let ran = fake.run(&["status", "-s", "wbe"]).await;
    assert_eq!(
        (ran.code, ran.talk.as_str()),
        (1, "error: there is no service wbe\nhint: the box has: web, shop/api\n")
    );
}

/// A deployment of `web`, as the box lists it.
fn tried(number: i64, release: Option<&str>, failure: &Value) -> Value {
    json!({
        "id": format!("dep_{number}"), "project": "web", "service": "web", "kind": "up", "step": "plan",
        "status": if release.is_some() { "success" } else { "failed" }, "release": release, "handover": null,
        "failure": failure, "live": release == Some("v1"), "url": "http://web.localhost:8080",
        "created_at": number, "finished_at": number,
    })
}

#[tokio::test]
async fn a_deployment_that_was_never_built_names_the_build_before() {
    let fake = web_box(|line| {
        let failure = json!({ "stage": "plan", "reason": "no app\nfound", "hint": null, "log_tail": [] });
        let (old, new) = (tried(1, Some("v1"), &Value::Null), tried(2, None, &failure));
        match line {
            "GET /v1/services/web/web/deployments?limit=50" => Some(json!([new, old])),
            "GET /v1/deployments/dep_2" => Some(new),
            "GET /v1/deployments/dep_2/log?from=0" => {
                Some(json!({ "lines": [], "next": "0", "ended": true }))
            }
            _ => None,
        }
    });
    let ran = fake.run(&["logs", "--build", "-s", "web"]).await;
    let text = "error: dep_2 was not built: failed at plan: no app\n\
                hint: the build before: trackbed logs --build --deployment dep_1\n";
    assert_eq!((ran.code, ran.result.as_str(), ran.talk.as_str()), (1, "", text));
}

#[tokio::test]
async fn what_is_empty_is_said() {
    let fake = web_box(|line| match line {
        "GET /v1/services/web/web/logs?tail=200" => Some(json!({ "lines": [], "next": "0", "ended": false })),
        "GET /v1/services/web/web/deployments?limit=20" => Some(json!([])),
        "GET /v1/services/web/web/volumes/data/files?path=%2F" => Some(json!([])),
        _ => None,
    });
    for (line, said) in [
        (&["logs", "-s", "web"][..], "web has written nothing yet\n"),
        (&["deployments", "-s", "web"], "web was never deployed; deploy it: trackbed up\n"),
        (&["volume", "files", "data", "-s", "web"], "/ of volume data is empty\n"),
    ] {
        let ran = fake.run(line).await;
        assert_eq!((ran.code, ran.result.as_str(), ran.talk.as_str()), (0, "", said), "{line:?}");
    }
}

#[tokio::test]
async fn after_a_rollback_one_deployment_is_live() {
    let fake = web_box(|line| {
        let rows =
            [3, 2, 1].map(|number| tried(number, Some(if number == 2 { "v2" } else { "v1" }), &Value::Null));
        (line == "GET /v1/services/web/web/deployments?limit=20").then(|| json!(rows))
    });
    let text = fake.run(&["deployments", "-s", "web"]).await.result;
    let live: Vec<_> = text.lines().filter(|line| line.ends_with("live")).collect();
    assert!(live.len() == 1 && live[0].starts_with("dep_3"), "{text}");
}

#[tokio::test]
async fn plan_shows_every_setting_with_its_place() {
    let fake = FakeBox::start(|line, asked| match line {
        "GET /v1/box" => {
            let isolation = json!({ "level": "full", "missing": [] });
            let info = json!({ "version": "0", "data_dir": "/d", "domain": "d", "pid": 1, "resident_bytes": 1,
                               "edge": null, "isolation": isolation });
            (200, info.to_string())
        }
        "POST /v1/sources" => (200, json!({ "digest": "abc" }).to_string()),
        "POST /v1/plans" => {
            assert_eq!(asked.json()["source"], "abc");
            let setting =
                json!({ "key": "deploy.startCommand", "value": "python main.py", "place": "Procfile:1" });
            let warning = json!({ "file": "railway.json", "line": 3, "message": "unknown key" });
            let plan = json!({ "provider": "python", "summary": "python 3.12", "settings": [setting],
                               "warnings": [warning] });
            (200, plan.to_string())
        }
        _ => not_found(),
    });
    let ran = fake.run(&["plan"]).await;
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert!(ran.result.contains("deploy.startCommand  python main.py  Procfile:1"), "{}", ran.result);
    assert!(ran.result.contains("warning: railway.json:3: unknown key"), "{}", ran.result);
}

#[tokio::test]
async fn down_waits_until_the_service_has_stopped() {
    let fake = web_box(|line| {
        let mut service = serde_json::to_value(service("web", "web")).unwrap();
        match line {
            "POST /v1/services/web/web/stop" => {}
            "GET /v1/services/web/web" => service["state"] = json!("stopped"),
            _ => return None,
        }
        Some(service)
    });
    let ran = fake.run(&["down", "-s", "web"]).await;
    assert_eq!((ran.code, ran.talk.contains("web is stopped")), (0, true), "{}", ran.talk);
}

fn cancelled(status: &str) -> Value {
    json!({ "id": "dep_1", "project": "web", "service": "web", "kind": "up", "status": status, "step": "build",
            "release": null, "handover": null, "failure": null, "live": false, "url": "http://web.localhost",
            "created_at": 0, "finished_at": null })
}

#[tokio::test]
async fn cancel_waits_until_it_is_undone_and_says_what_serves() {
    let fake = web_box(|line| match line {
        "POST /v1/services/web/web/cancel" | "POST /v1/deployments/dep_1/cancel" => {
            Some(cancelled("building"))
        }
        "GET /v1/deployments/dep_1/events?after=0" => Some(
            json!({ "events": [{ "sequence": 4, "at": 0, "step": "build", "kind": "note", "message": "x" }],
                         "deployment": cancelled("building") }),
        ),
        "GET /v1/deployments/dep_1/events?after=4" => {
            Some(json!({ "events": [], "deployment": cancelled("cancelled") }))
        }
        "GET /v1/services/web/web" => {
            let mut service = serde_json::to_value(service("web", "web")).unwrap();
            service["release"] =
                json!({ "version": 1, "provider": "python", "source": "s", "created_at": 0 });
            Some(service)
        }
        _ => None,
    });
    for line in [&["cancel", "web"][..], &["cancel", "-s", "web"], &["cancel", "--deployment", "dep_1"]] {
        let ran = fake.run(line).await;
        assert_eq!(ran.code, 0, "{}", ran.talk);
        assert_eq!(
            ran.talk,
            "✓ dep_1 of web is cancelled; it was at build\n\
             the previous release v1 keeps serving at http://web.localhost:8080\n"
        );
    }
    let last = fake.run(&["cancel", "web", "--json"]).await.json_lines().pop().unwrap();
    assert_eq!((&last["status"], &last["deployment"]), (&json!("cancelled"), &json!("dep_1")));
}

#[tokio::test]
async fn a_refused_cancel_says_what_to_do() {
    let fake = FakeBox::start(|line, _| match line {
        "GET /v1/services" => (200, json!([service("web", "web")]).to_string()),
        "POST /v1/services/web/web/cancel" => {
            let error = json!({ "code": "conflict", "message": "it is live", "hint": "trackbed rollback" });
            (409, json!({ "error": error }).to_string())
        }
        _ => not_found(),
    });
    let ran = fake.run(&["cancel", "web", "--json"]).await;
    assert_eq!((ran.code, ran.json_lines()[0]["hint"].as_str()), (1, Some("trackbed rollback")));
    assert!(ran.talk.contains("hint: trackbed rollback"), "{}", ran.talk);
}

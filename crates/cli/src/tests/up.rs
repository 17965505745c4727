//! `up` from the folder to the last line, against a box that is not real.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::fake::{Answer, Asked, Buffer, FakeBox};
use super::service;
use crate::output::Output;

fn deployment(status: &str, failure: &Value) -> Value {
    json!({
        "id": "dep_1", "project": "demo", "service": "demo", "kind": "up", "status": status, "step": "health",
        "release": "v2", "handover": "overlap", "failure": failure, "live": status == "success",
        "url": "http://demo.localhost:8080", "created_at": 1000, "finished_at": 3500,
    })
}

fn event(sequence: u64, at: i64, step: &str, kind: &str, message: &str) -> Value {
    json!({ "sequence": sequence, "at": at, "step": step, "kind": kind, "message": message })
}

/// A box where a deployment builds and then ends like this.
fn ends(status: &'static str, failure: &Value) -> impl Fn(&str, &Asked) -> Answer + Send + Sync + 'static {
    let failure = failure.clone();
    move |line, _| {
        let body = match line {
            "GET /v1/box" => box_info(),
            "POST /v1/sources" => json!({ "digest": "sha256:abc" }),
            "POST /v1/deployments" => deployment("queued", &Value::Null),
            "GET /v1/deployments/dep_1/events?after=0" => json!({
                "events": [event(1, 1000, "build", "started", "")],
                "deployment": deployment("building", &Value::Null),
            }),
            "GET /v1/deployments/dep_1/events?after=1" => json!({
                "events": [
                    event(2, 2200, "build", "done", ""),
                    event(3, 2300, "plan", "warning", "railway.json:3: unknown key"),
                    event(4, 2500, "health", "started", ""),
                ],
                "deployment": deployment(status, &failure),
            }),
            "GET /v1/deployments/dep_1/log?from=0" => json!({
                "lines": [{ "at": 1500, "stream": "out", "text": "installing fastapi", "instance": null }],
                "next": "1", "ended": true,
            }),
            "GET /v1/deployments/dep_1/log?from=1" => json!({ "lines": [], "next": "1", "ended": true }),
            line if line.contains("source=") => json!({ "release": null }),
            "GET /v1/services/demo/demo" => {
                let mut service = serde_json::to_value(service("demo", "demo")).unwrap();
                service["release"] =
                    json!({ "version": 1, "provider": "python", "source": "s", "created_at": 0 });
                service
            }
            other => panic!("nobody should ask {other}"),
        };
        (if line.starts_with("POST /v1/dep") { 202 } else { 200 }, body.to_string())
    }
}

pub(super) fn box_info() -> Value {
    json!({
        "version": "0.1.0", "data_dir": "/d", "domain": "localhost", "pid": 7, "resident_bytes": 20_000_000,
        "edge": { "pid": 8, "listen": "127.0.0.1:8080", "resident_bytes": 9_000_000 },
        "isolation": { "level": "userns", "missing": ["cgroups: not delegated"] },
    })
}

fn crash() -> Value {
    json!({
        "stage": "health", "reason": "GET /health never answered 200", "hint": "listen on $PORT",
        "log_tail": ["Traceback", "KeyError: 'ENVIRONMENT'"],
    })
}

#[tokio::test]
async fn success_prints_the_url_as_the_only_result() {
    let fake = FakeBox::start(ends("success", &Value::Null));
    let ran = fake.run(&["up"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "http://demo.localhost:8080\n"), "{}", ran.talk);
    for line in [
        "deploying demo (2 files)",
        "… build",
        "✓ build 1.2 s",
        "! railway.json:3",
        "✓ v2 of demo is live after 2.5 s",
    ] {
        assert!(ran.talk.contains(line), "no `{line}` in:\n{}", ran.talk);
    }
    assert_eq!(ran.talk.matches("  | installing fastapi").count(), 1, "{}", ran.talk);
}

/// A box where this source is live already.
fn is_live(line: &str, asked: &Asked) -> Answer {
    let otherwise = ends("success", &Value::Null);
    match line {
        line if line.contains("source=") => (200, json!({ "release": "v7" }).to_string()),
        line => otherwise(line, asked),
    }
}

#[tokio::test]
async fn what_is_live_already_is_not_deployed_unless_somebody_insists() {
    let deploys = |fake: &FakeBox| fake.asked().iter().any(|asked| asked.line == "POST /v1/deployments");
    let fake = FakeBox::start(is_live);
    let ran = fake.run(&["up"]).await;
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert!(ran.talk.contains("already live: v7 of demo"), "{}", ran.talk);
    assert!(ran.result.starts_with("http://"), "{}", ran.result);
    let ran = fake.run(&["up", "--json"]).await;
    let last = &ran.json_lines()[0];
    assert_eq!((&last["status"], &last["unchanged"]), (&json!("success"), &json!(true)), "{last:#}");
    assert!(!deploys(&fake));
    for insists in [&["up", "--anew"][..], &["up", "--start", "python main.py"], &["up", "--detach"]] {
        let fake = FakeBox::start(is_live);
        assert_eq!(fake.run(insists).await.code, 0);
        assert!(deploys(&fake), "{insists:?}");
    }
}

#[tokio::test]
async fn the_source_arrives_whole_and_flags_become_settings() {
    let fake = FakeBox::start(ends("success", &Value::Null));
    fake.run(&[
        "up",
        "--start",
        "python main.py",
        "--health-path",
        "/h",
        "--health-timeout",
        "9",
        "--allow-data-outside",
    ])
    .await;
    let asked = fake.asked();
    let source = asked.iter().find(|asked| asked.line == "POST /v1/sources").unwrap();
    let mut archive = tar::Archive::new(source.body.as_slice());
    let paths: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(paths, [".env", "main.py"]);
    let request = asked.iter().find(|asked| asked.line == "POST /v1/deployments").unwrap().json();
    let expected = json!({
        "project": "demo", "service": "demo", "kind": "up", "source": "sha256:abc", "version": null,
        "with_data": false, "overrides": [["deploy.startCommand", "python main.py"], ["deploy.healthcheckPath", "/h"],
                      ["deploy.healthcheckTimeout", "9"], ["deploy.allowDataOutside", "true"]],
        "commit": null, "delivery": null,
    });
    assert_eq!(request, expected);
}

#[tokio::test]
async fn failure_quotes_the_app_and_says_what_serves() {
    let fake = FakeBox::start(ends("failed", &crash()));
    let ran = fake.run(&["up"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (1, ""));
    let end = "✗ failed at health: GET /health never answered 200\n  | Traceback\n  | KeyError: 'ENVIRONMENT'\n\
               hint: listen on $PORT\nthe previous release v1 keeps serving at http://demo.localhost:8080\n";
    assert!(ran.talk.ends_with(end), "{}", ran.talk);
}

#[tokio::test]
async fn a_reason_of_several_lines_is_told_as_lines_and_once() {
    let failure = json!({
        "stage": "build", "reason": "requirements.txt:2: installing failed:\n  × No solution\n  ╰─▶ Because\n",
        "hint": null, "log_tail": ["Using Python 3.11", "  × No solution", "  ╰─▶ Because"],
    });
    let fake = FakeBox::start(ends("failed", &failure));
    let ran = fake.run(&["up"]).await;
    let end = "✗ failed at build: requirements.txt:2: installing failed:\n    × No solution\n    ╰─▶ Because\n  \
               | Using Python 3.11\nthe previous release v1 keeps serving at http://demo.localhost:8080\n";
    assert!(ran.talk.ends_with(end), "{}", ran.talk);
}

#[tokio::test]
async fn a_deployment_that_down_ended_says_nothing_of_what_serves() {
    let failure = json!({ "stage": "build", "reason": "the service was stopped before this deployment was live",
                          "hint": null, "log_tail": [] });
    let fake = FakeBox::start(ends("failed", &failure));
    let ran = fake.run(&["up"]).await;
    assert!(ran.talk.ends_with("was stopped before this deployment was live\n"), "{}", ran.talk);
}

#[tokio::test]
async fn json_is_one_object_per_event_and_a_last_one_with_the_status() {
    let fake = FakeBox::start(ends("failed", &crash()));
    let ran = fake.run(&["up", "--json"]).await;
    let lines = ran.json_lines();
    assert_eq!((ran.code, lines.len(), ran.talk.as_str()), (1, 5, ""));
    assert_eq!(lines[1], event(2, 2200, "build", "done", ""));
    let expected = json!({
        "status": "failed", "service": "demo", "project": "demo", "deployment": "dep_1", "release": "v2",
        "image_bytes": null, "url": "http://demo.localhost:8080", "stage": "health", "reason": "GET /health never answered 200",
        "hint": "listen on $PORT", "log_tail": ["Traceback", "KeyError: 'ENVIRONMENT'"],
    });
    assert_eq!(lines[4], expected);

    let fake = FakeBox::start(ends("success", &Value::Null));
    let ran = fake.run(&["up", "--json"]).await;
    let last = ran.json_lines().pop().unwrap();
    assert_eq!((ran.code, &last["status"], &last["stage"]), (0, &json!("success"), &Value::Null));
}

#[tokio::test]
async fn superseded_is_no_success() {
    let fake = FakeBox::start(ends("superseded", &Value::Null));
    let ran = fake.run(&["up"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.talk.contains("✗ superseded"), "{}", ran.talk);
}

#[tokio::test]
async fn cancelled_is_no_success_and_says_what_serves() {
    let fake = FakeBox::start(ends("cancelled", &Value::Null));
    let ran = fake.run(&["up"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.talk.contains("✗ cancelled at health"), "{}", ran.talk);
    assert!(ran.talk.contains("the previous release v1 keeps serving"), "{}", ran.talk);
}

#[tokio::test]
async fn detach_prints_the_id_and_does_not_follow() {
    let fake = FakeBox::start(ends("success", &Value::Null));
    let ran = fake.run(&["up", "--detach"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "dep_1\n"));
    assert!(!fake.asked().iter().any(|asked| asked.line.contains("events")));
}

#[tokio::test]
async fn a_bad_folder_uploads_nothing_and_ends_json_all_the_same() {
    let fake = FakeBox::start(ends("success", &Value::Null));
    let ran = fake.run(&["up", "missing", "--service", "demo", "--json"]).await;
    assert_eq!(ran.code, 1);
    let last = ran.json_lines().pop().unwrap();
    assert_eq!((&last["status"], &last["stage"]), (&json!("failed"), &json!("source")));
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_refusal_of_the_box_is_told_with_its_hint() {
    let fake = FakeBox::start(|line, _| match line {
        "GET /v1/box" => (200, box_info().to_string()),
        _ => {
            let error = json!({ "code": "invalid_source", "message": "no app found", "hint": "add main.py" });
            (422, json!({ "error": error }).to_string())
        }
    });
    let ran = fake.run(&["up"]).await;
    assert_eq!(ran.code, 1);
    let end = "error: cannot upload the source: no app found\nhint: add main.py\n";
    assert!(ran.talk.ends_with(end), "{}", ran.talk);
}

#[tokio::test]
async fn a_box_that_cannot_start_is_told_with_its_log() {
    // The program that is started is this test program, which does not know `serve --data-dir`.
    let fake = FakeBox::absent();
    let ran = fake.run(&["up"]).await;
    assert_eq!(ran.code, 1);
    for part in
        ["no box is running; starting one", "  | ", "error: cannot start a box: it ended with", "serve.log"]
    {
        assert!(ran.talk.contains(part), "no `{part}` in:\n{}", ran.talk);
    }
}

#[tokio::test]
async fn a_refused_request_ends_json_all_the_same() {
    let fake = FakeBox::start(|line, _| match line {
        "GET /v1/box" => (200, box_info().to_string()),
        "POST /v1/sources" => (200, json!({ "digest": "sha256:abc" }).to_string()),
        _ => {
            let error = json!({ "code": "conflict", "message": "the disk is full", "hint": "free some" });
            (409, json!({ "error": error }).to_string())
        }
    });
    let ran = fake.run(&["up", "--json"]).await;
    let last = ran.json_lines().pop().unwrap();
    assert_eq!((ran.code, &last["status"], &last["stage"]), (1, &json!("failed"), &json!("request")));
    assert_eq!((&last["reason"], &last["hint"]), (&json!("the disk is full"), &json!("free some")));
}

/// A pipe whose reader went away.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_went_away_ends_quietly() {
    let fake = FakeBox::start(ends("success", &Value::Null));
    let talk = Buffer::default();
    let code = fake.run_into(&["up", "--json"], Output::to(Gone, talk.clone())).await;
    assert_eq!((code.0, talk.text().as_str()), (0, ""));
}

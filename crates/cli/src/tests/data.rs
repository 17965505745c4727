//! Volumes and restore points against a box that is not real.

use serde_json::{Value, json};

use super::fake::{Answer, Asked, FakeBox};
use super::service;

const BASE: &str = "/v1/services/web/web";

pub(super) fn refusal(status: u16, code: &str, message: &str, hint: Option<&str>) -> Answer {
    (status, json!({ "error": { "code": code, "message": message, "hint": hint } }).to_string())
}

/// A box with a service `web` that has a volume `data`, and answers to further calls below the service.
pub(super) fn web(more: impl Fn(&str, &Asked) -> Option<Answer> + Send + Sync + 'static) -> FakeBox {
    FakeBox::start(move |line, asked| {
        let below = line.replacen(BASE, "", 1);
        if let Some(answer) = more(&below, asked) {
            return answer;
        }
        match below.as_str() {
            "GET /v1/services" => ok(&json!([service("web", "web")])),
            "GET /volumes" => ok(&json!([volume("data")])),
            _ => refusal(404, "not_found", &format!("service `web` has no {below}"), None),
        }
    })
}

pub(super) fn ok(body: &Value) -> Answer {
    (200, body.to_string())
}

pub(super) fn now() -> i64 {
    trackbed_stdx::clock::now_ms()
}

fn volume(name: &str) -> Value {
    json!({
        "name": name, "id": "vol_1", "mount": format!("/{name}"), "used_bytes": 120_000_000, "free_bytes": 48_000_000_000u64,
        "held_by": "ins_1", "fence": 3, "limit_bytes": 5_000_000_000u64, "schedules": ["hourly", "daily"],
        "holders": [{ "instance": "ins_1", "release": "v3", "deployment": "dep_3", "shared": false }],
        "databases": [{ "path": "app.db", "journal_mode": "wal", "sqlite_version": "3.40.1", "size_bytes": 119_000_000 }],
        "restore_points": 12, "last_restore_point": now() - 5 * 60_000, "last_proven": now() - 7_200_000,
        "last_proof": now() - 3_600_000, "warnings": ["the last restore point that is proven restorable is 2 days old"],
    })
}

fn point(id: &str) -> Value {
    json!({
        "id": id, "volume": "data", "taken_at": now() - 7_200_000, "why": "deployment", "deployment": "dep_3",
        "schedules": [], "release": "v2", "consistency": "instant", "pause_ms": 12, "files": 14, "bytes": 120_000_000,
        "stored_bytes": 1_200_000, "databases": ["app.db"], "skipped": [], "proof": null,
    })
}

fn proven(id: &str, reason: Option<&str>) -> Value {
    let mut point = point(id);
    point["proof"] = json!({ "at": now(), "took_ms": 2100, "proven": reason.is_none(), "databases": 1, "rows": 1234,
                             "reason": reason });
    point
}

fn difference(id: &str) -> Value {
    json!({
        "point": point(id), "added": 1, "changed": 2, "missing": 1, "paths": ["+ uploads/b.pdf", "~ app.db"],
        "tables": [{ "database": "app.db", "table": "messages", "rows_now": 52, "rows_then": 40 }],
    })
}

fn deployment(kind: &str, status: &str) -> Value {
    json!({
        "id": "dep_4", "project": "web", "service": "web", "kind": kind, "status": status, "step": "retire",
        "release": "v2", "handover": "held", "failure": null, "live": true, "url": "http://web.localhost:8080",
        "created_at": 0, "finished_at": 1500, "pins": [{ "volume": "data", "point": "rp_pin", "taken": true,
        "pause_ms": 0, "bytes": 120_000_000, "stored_bytes": 4000 }],
        "restores": [{ "volume": "data", "point": "rp_old" }],
        "replaced": [{ "volume": "data", "added": 1, "changed": 2, "missing": 1, "paths": [], "kept_in": "rp_pin",
        "tables": [{ "database": "app.db", "table": "messages", "rows_now": 52, "rows_then": 40 }] }],
    })
}

/// Answers the questions of whoever follows the deployment to its end.
fn followed(line: &str, kind: &str) -> Option<Answer> {
    match line {
        "GET /v1/deployments/dep_4/events?after=0" => Some(ok(&json!({
            "events": [{ "sequence": 1, "at": 0, "step": "stage", "kind": "note",
                         "message": "volume data: 12 rows newer than rp_old will be set aside" }],
            "deployment": deployment(kind, "success"),
        }))),
        "GET /v1/deployments/dep_4/log?from=0" => {
            Some(ok(&json!({ "lines": [], "next": "0", "ended": true })))
        }
        _ => None,
    }
}

#[tokio::test]
async fn list_shows_size_databases_points_and_the_age_of_the_last_proof() {
    let fake = web(|_, _| None);
    let ran = fake.run(&["volume", "list"]).await;
    let text = "\
NAME  MOUNT  USED    LIMIT   FREE   SCHEDULE      POINTS  LAST POINT  LAST PROVEN  FENCE  HELD BY
data  /data  120 MB  5.0 GB  48 GB  hourly,daily  12      5 min ago   2 h ago      3      v3 (ins_1, dep_3)

DATABASE     JOURNAL  SQLITE  SIZE
data:app.db  wal      3.40.1  119 MB
";
    assert_eq!((ran.code, ran.result.as_str()), (0, text), "{}", ran.talk);
    let warning = "warning: volume data: the last restore point that is proven restorable is 2 days old\n";
    assert!(ran.talk.ends_with(warning), "{}", ran.talk);
    let told: Value = serde_json::from_str(&fake.run(&["volume", "list", "--json"]).await.result).unwrap();
    assert_eq!(told[0]["databases"][0]["sqlite_version"], "3.40.1");
}

#[tokio::test]
async fn removed_volumes_are_listed_with_the_time_that_is_left() {
    let fake = web(|line, _| {
        let mut gone = volume("old");
        gone["removed_at"] = json!(now() - 60_000);
        gone["kept_until"] = json!(now() + 47 * 3_600_000 + 60_000);
        (line == "GET /volumes?removed=true").then(|| ok(&json!([gone])))
    });
    let ran = fake.run(&["volume", "list", "--removed"]).await;
    assert!(
        ran.result
            .starts_with("NAME  MOUNT  USED    REMOVED    KEPT FOR\nold   /old   120 MB  1 min ago  47 h\n"),
        "{}",
        ran.result
    );
}

#[tokio::test]
async fn a_snapshot_prints_its_id_alone_and_tells_pause_and_bytes() {
    let fake = web(|line, asked| {
        (line == "POST /points").then(|| {
            assert_eq!(asked.json()["volume"], "data");
            ok(&json!([point("rp_new")]))
        })
    });
    let ran = fake.run(&["volume", "snapshot", "data", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "rp_new\n"));
    assert_eq!(
        ran.talk,
        "volume data: 120 MB in 14 files, 1.2 MB added on disk; the app stood still for 12 ms\n"
    );
}

#[tokio::test]
async fn points_say_why_they_were_taken_and_whether_they_are_proven() {
    let fake = web(|line, _| {
        let mut tick = proven("rp_3", None);
        tick["why"] = json!("schedule");
        tick["schedules"] = json!(["hourly", "daily"]);
        let broken = proven("rp_2", Some("chunk 12ab is damaged"));
        (line == "GET /volumes/data/points").then(|| ok(&json!([tick, broken, point("rp_1")])))
    });
    let ran = fake.run(&["volume", "points", "data", "-s", "web"]).await;
    let text = "\
POINT  WHEN     WHY           RELEASE  FILES  SIZE    ADDED   PAUSE  PROVEN
rp_3   2 h ago  hourly,daily  v2       14     120 MB  1.2 MB  12 ms  just now
rp_2   2 h ago  before dep_3  v2       14     120 MB  1.2 MB  12 ms  BROKEN: chunk 12ab is damaged
rp_1   2 h ago  before dep_3  v2       14     120 MB  1.2 MB  12 ms  not yet
";
    assert_eq!((ran.code, ran.result.as_str()), (0, text), "{}", ran.talk);
}

#[tokio::test]
async fn verify_fails_on_a_broken_point_and_says_why() {
    let fake = web(|line, asked| match (line, asked) {
        ("POST /volumes/data/drills", asked) if asked.json()["point"] == "rp_bad" => {
            Some(ok(&proven("rp_bad", Some("chunk 12ab is damaged"))))
        }
        ("POST /volumes/data/drills", _) => Some(ok(&proven("rp_good", None))),
        _ => None,
    });
    let ran = fake.run(&["volume", "verify", "data", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "rp_good is proven restorable\n"));
    assert!(
        ran.talk.ends_with("✓ every byte of 14 files, 1 database with 1234 rows, in 2.1 s\n"),
        "{}",
        ran.talk
    );
    let ran = fake.run(&["volume", "verify", "data", "rp_bad", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (1, ""));
    assert!(
        ran.talk.contains(
            "error: restore point rp_bad cannot be restored as it was: chunk 12ab is damaged\nhint: "
        ),
        "{}",
        ran.talk
    );
    let ran = fake.run(&["volume", "verify", "data", "rp_bad", "-s", "web", "--json"]).await;
    assert_eq!((ran.code, ran.result.contains("\"proven\": false")), (1, true));
}

#[tokio::test]
async fn a_dry_run_shows_files_and_rows_and_changes_nothing() {
    let fake =
        web(|line, _| (line == "GET /volumes/data/difference?at=rp_old").then(|| ok(&difference("rp_old"))));
    let line = ["volume", "restore", "data", "--at", "rp_old", "--dry-run", "-s", "web"];
    let ran = fake.run(&line).await;
    let text = "\
volume data, back to rp_old: 12 rows and 3 files newer, set aside; 1 file brought back
  DATABASE  TABLE     ROWS NOW  ROWS THEN
  app.db    messages  52        40
  + uploads/b.pdf
  ~ app.db
  … and 2 more files
";
    assert_eq!((ran.code, ran.result.as_str()), (0, text), "{}", ran.talk);
    let json = fake.run(&[&line[..], &["--json"]].concat()).await;
    let told: Value = serde_json::from_str(&json.result).unwrap();
    assert_eq!((&told["point"]["id"], &told["tables"][0]["rows_now"]), (&json!("rp_old"), &json!(52)));
    assert!(fake.asked().iter().all(|asked| asked.line.starts_with("GET")));
}

#[tokio::test]
async fn a_restore_is_followed_and_says_what_is_kept_where() {
    let fake = web(|line, asked| match line {
        "POST /volumes/data/restore" => {
            let at: i64 = asked.json()["at"].as_str().unwrap().parse().unwrap();
            assert!((now() - at - 7_200_000).abs() < 60_000, "{at}");
            Some((202, deployment("restore", "queued").to_string()))
        }
        _ => followed(line, "restore"),
    });
    let ran = fake.run(&["volume", "restore", "data", "--at", "2h ago", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "http://web.localhost:8080\n"), "{}", ran.talk);
    let end = "· volume data: 12 rows newer than rp_old will be set aside\n\
               ✓ v2 of web is live after 1.5 s\n\
               volume data: 12 rows and 3 files newer than rp_old set aside, kept in rp_pin; to have it back: trackbed \
               volume restore data --at rp_pin\n";
    assert!(ran.talk.ends_with(end), "{}", ran.talk);
    let line = ["volume", "restore", "data", "--at", "2h ago", "-s", "web", "--json"];
    let last = fake.run(&line).await.json_lines().pop().unwrap();
    assert_eq!((&last["status"], &last["replaced"][0]["kept_in"]), (&json!("success"), &json!("rp_pin")));
}

#[tokio::test]
async fn a_restore_to_a_new_volume_leaves_the_old_one_alone() {
    let fake = web(|line, asked| {
        (line == "POST /volumes/data/clones").then(|| {
            assert_eq!(asked.json(), json!({ "name": "copy", "mount": null, "at": "proven" }));
            ok(&volume("copy"))
        })
    });
    let ran = fake.run(&["volume", "restore", "data", "--at", "proven", "--to", "copy", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, "copy\n"));
    assert!(ran.talk.contains("volume copy has the data of data, 120 MB"), "{}", ran.talk);
}

#[tokio::test]
async fn a_rollback_takes_the_data_back_only_when_it_is_told_to() {
    let fake = web(|line, asked| match line {
        "POST /v1/deployments" => {
            let mut answer = deployment("rollback", "queued");
            answer["restores"] = json!([]);
            assert_eq!(asked.json()["version"], json!(2));
            Some((202, answer.to_string()))
        }
        "GET /rollback?version=2" => Some(ok(&json!({ "release": "v2", "volumes": [difference("rp_old")] }))),
        _ => followed(line, "rollback"),
    });
    fake.run(&["rollback", "v2", "-s", "web"]).await;
    let sent = |fake: &FakeBox| {
        let asked = fake.asked();
        asked.iter().rev().find(|asked| asked.line == "POST /v1/deployments").map(Asked::json)
    };
    assert_eq!(sent(&fake).unwrap()["with_data"], json!(false));
    let ran = fake.run(&["rollback", "v2", "--with-data", "-s", "web"]).await;
    assert_eq!(sent(&fake).unwrap()["with_data"], json!(true));
    assert!(
        ran.talk.contains("12 rows and 3 files newer than rp_old set aside, kept in rp_pin"),
        "{}",
        ran.talk
    );
    let before = fake.asked().len();
    let ran = fake.run(&["rollback", "v2", "--with-data", "--dry-run", "-s", "web"]).await;
    assert!(
        ran.code == 0 && ran.result.starts_with("volume data, back to rp_old: 12 rows"),
        "{}",
        ran.result
    );
    assert!(fake.asked()[before..].iter().all(|asked| asked.line.starts_with("GET")));
}

#[tokio::test]
async fn what_a_failure_did_with_the_data_is_told_and_in_the_json() {
    let fake = web(|line, _| {
        let mut failed = deployment("restore", "failed");
        failed["failure"] = json!({ "stage": "health", "reason": "no answer", "hint": null, "log_tail": [] });
        failed["data_undone"] = json!("volume data is as it was before the release started (rp_pin)");
        failed["replaced"] = json!([]);
        match line {
            "POST /volumes/data/restore" => Some((202, failed.to_string())),
            "GET /v1/deployments/dep_4/events?after=0" => {
                Some(ok(&json!({ "events": [], "deployment": failed })))
            }
            "GET /deployments?limit=20" => Some(ok(&json!([failed]))),
            _ => followed(line, "restore"),
        }
    });
    let ran = fake.run(&["volume", "restore", "data", "--at", "rp_old", "-s", "web"]).await;
    assert_eq!(ran.code, 1);
    let text =
        "✗ failed at health: no answer\ndata: volume data is as it was before the release started (rp_pin)\n";
    assert!(ran.talk.contains(text), "{}", ran.talk);
    let line = ["volume", "restore", "data", "--at", "rp_old", "-s", "web", "--json"];
    let last = fake.run(&line).await.json_lines().pop().unwrap();
    assert!(last["data_undone"].as_str().unwrap().contains("rp_pin") && last["pins"][0]["point"] == "rp_pin");
    let list = fake.run(&["deployments", "-s", "web"]).await.result;
    assert!(list.contains("DATA BEFORE") && list.contains("rp_pin"), "{list}");
}

#[tokio::test]
async fn schedules_and_limits_are_set_and_taken_away() {
    let fake = web(|line, asked| {
        (line == "PATCH /volumes/data").then(|| {
            let mut changed = volume("data");
            if let Some(schedules) = asked.json().get("schedules").filter(|given| !given.is_null()) {
                changed["schedules"] = schedules.clone();
            }
            if asked.json()["limit_bytes"] == 0 {
                changed["limit_bytes"] = Value::Null;
            }
            ok(&changed)
        })
    });
    let talk = async |line: &[&str]| fake.run(&[line, &["-s", "web"]].concat()).await.talk;
    let weekly = talk(&["volume", "schedule", "data", "daily,weekly"]).await;
    assert_eq!(weekly, "volume data: restore points are taken daily, weekly, and before every deployment\n");
    assert!(talk(&["volume", "schedule", "data", "none"]).await.contains("only before deployments"));
    assert_eq!(talk(&["volume", "limit", "data", "5GB"]).await, "volume data: 5.0 GB, 120 MB used\n");
    assert!(talk(&["volume", "limit", "data", "none"]).await.contains("no limit of its own"));
    let sent: Vec<_> = fake.asked().iter().filter(|asked| !asked.body.is_empty()).map(Asked::json).collect();
    assert_eq!(sent[1], json!({ "schedules": [], "limit_bytes": null }));
    assert_eq!(sent[2]["limit_bytes"], json!(5_000_000_000u64));
}

#[tokio::test]
async fn a_removed_volume_names_the_way_back() {
    let fake = web(|line, _| {
        let mut gone = volume("data");
        gone["kept_until"] = json!(now() + 48 * 3_600_000 + 1000);
        match line {
            "DELETE /volumes/data" => Some(ok(&gone)),
            "POST /volumes/data/undelete" => Some(ok(&volume("data"))),
            _ => None,
        }
    });
    let ran = fake.run(&["volume", "remove", "data", "-s", "web"]).await;
    let text = "volume data of web is removed; its data is kept for 48 h: trackbed volume undelete data\n";
    assert_eq!((ran.code, ran.talk.as_str()), (0, text));
    assert_eq!(fake.run(&["volume", "undelete", "data", "-s", "web"]).await.code, 0);
}

#[tokio::test]
async fn adopting_is_a_deployment_to_follow() {
    let fake = web(|line, asked| match line {
        "POST /adoptions" => {
            assert_eq!(asked.json(), json!({ "paths": ["/app/app.db", "jobs.db"], "volume": "data" }));
            Some((202, deployment("restart", "queued").to_string()))
        }
        _ => followed(line, "restart"),
    });
    let ran = fake.run(&["volume", "adopt", "/app/app.db", "jobs.db", "--volume", "data", "-s", "web"]).await;
    assert_eq!(ran.code, 0, "{}", ran.talk);
}

#[tokio::test]
async fn all_databases_are_adopted_by_one_word_and_a_word_is_needed() {
    let fake = web(|line, asked| match line {
        "POST /adoptions" => {
            assert_eq!(asked.json(), json!({ "paths": [], "volume": null }));
            Some((202, deployment("restart", "queued").to_string()))
        }
        _ => followed(line, "restart"),
    });
    assert_eq!(fake.run(&["volume", "adopt", "--all", "-s", "web"]).await.code, 0);
    let wordless = crate::args::parse_from(["trackbed", "volume", "adopt"].map(Into::into));
    assert!(wordless.is_err_and(|error| error.exit_code() == 2));
}

#[tokio::test]
async fn a_restore_point_is_removed_once_that_is_agreed() {
    let fake = web(|line, _| (line == "DELETE /volumes/data/points/rp_1").then(|| ok(&point("rp_1"))));
    let ran = fake.run(&["volume", "forget", "data", "rp_1", "-y", "-s", "web"]).await;
    assert_eq!((ran.code, ran.talk.as_str()), (0, "restore point rp_1 of volume data is removed\n"));
}

#[tokio::test]
async fn files_go_out_and_in_byte_for_byte() {
    let fake = web(|line, asked| match line {
        "GET /volumes/data/file?path=uploads%2Fa.bin" => Some((200, "\u{1}two\r\n".to_owned())),
        "PUT /volumes/data/file?path=%2Fmain.py" => {
            assert_eq!(asked.body, b"print(1)\n");
            Some(ok(&json!({ "path": "main.py", "kind": "file", "size_bytes": 9, "modified_at": 0 })))
        }
        _ => None,
    });
    let folder = fake.app.path().join("demo");
    let ran = fake.run(&["volume", "get", "data", "uploads/a.bin", "-s", "web"]).await;
    assert_eq!((ran.code, ran.result.as_str()), (0, ""), "{}", ran.talk);
    assert_eq!(std::fs::read(folder.join("a.bin")).unwrap(), b"\x01two\r\n");
    let ran = fake.run(&["volume", "get", "data", "uploads/a.bin", "-s", "web"]).await;
    assert!(
        ran.code == 1 && ran.talk.contains("is there already\nhint: replace it by --force"),
        "{}",
        ran.talk
    );
    assert_eq!(
        fake.run(&["volume", "get", "data", "uploads/a.bin", "-", "-s", "web"]).await.result,
        "\u{1}two\r\n"
    );
    let ran = fake.run(&["volume", "put", "data", "main.py", "-s", "web"]).await;
    assert_eq!((ran.code, ran.talk.as_str()), (0, "9 B into volume data: main.py\n"));
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no half file is left behind: {left:?}");
}

#[tokio::test]
async fn a_database_that_is_copied_raw_is_warned_of() {
    let fake = web(|line, _| {
        line.starts_with("GET /volumes/data/file").then(|| (200, "SQLite format 3\0…".to_owned()))
    });
    let ran = fake.run(&["volume", "get", "data", "app.db", "-s", "web"]).await;
    assert!(ran.code == 0 && ran.talk.contains("! it is a SQLite database"), "{}", ran.talk);
}

#[tokio::test]
async fn usage_names_the_largest_first() {
    let fake = web(|line, _| {
        (line == "GET /volumes/data/usage?path=%2F").then(|| {
            ok(&json!({ "used_bytes": 3_000_000, "files": 12, "free_bytes": 9_000_000_000u64, "limit_bytes": 5_000_000,
                        "entries": [{ "path": "uploads", "kind": "dir", "used_bytes": 2_000_000, "files": 11 },
                                    { "path": "app.db", "kind": "file", "used_bytes": 1_000_000, "files": 1 }] }))
        })
    });
    let ran = fake.run(&["volume", "usage", "data", "-s", "web"]).await;
    assert_eq!(ran.result, "2.0 MB  11 files  uploads/\n1.0 MB            app.db\n");
    assert_eq!(ran.talk, "3.0 MB of 5.0 MB in 12 files; 9.0 GB free on the disk\n");
}

#[tokio::test]
async fn what_the_box_refuses_is_told_with_the_way_out() {
    let fake = web(|line, _| {
        Some(match line {
            "GET /volumes/nope/points" => {
                refusal(404, "not_found", "service `web` has no volume `nope`", None)
            }
            "POST /volumes/data/restore" => {
                refusal(409, "conflict", "restore point `rp_x` is of volume `other`, not of `data`", None)
            }
            "POST /volumes/data/clones" => refusal(
                409,
                "conflict",
                "the service already has a volume `data`, mounted at /data",
                Some("choose another name, or another --mount"),
            ),
            "GET /volumes/data/file?path=..%2Fkey" => {
                refusal(400, "invalid_request", "`../key` leaves the volume", None)
            }
            "GET /volumes/data/files?path=..%2F.." => {
                refusal(400, "invalid_request", "`../..` leaves the volume", None)
            }
            "PUT /volumes/data/file?path=uploads" => {
                refusal(400, "invalid_request", "`uploads` is a folder; name the file in it", None)
            }
            "POST /adoptions" => refusal(400, "invalid_request", "`/etc/x` cannot be adopted", None),
            "POST /volumes/data/queries" => {
                refusal(400, "invalid_request", "app.db: it took longer than 20 s", None)
            }
            _ => return None,
        })
    });
    for (line, said) in [
        (&["volume", "points", "nope"][..], "error: service `web` has no volume `nope`\n"),
        (&["volume", "restore", "data", "--at", "rp_x"], "is of volume `other`, not of `data`"),
        (&["volume", "clone", "data", "data"], "hint: choose another name, or another --mount"),
        (&["volume", "get", "data", "../key"], "leaves the volume"),
        (&["volume", "files", "data", "../.."], "leaves the volume"),
        (&["volume", "put", "data", "main.py", "uploads"], "is a folder; name the file in it"),
        (
            &["volume", "put", "data", "/dev/null"],
            "is neither a file nor a folder\nhint: only files and folders",
        ),
        (&["volume", "put", "data", "missing"], "cannot read missing"),
        (&["volume", "adopt", "/etc/x"], "cannot be adopted"),
        (&["db", "nope:app.db", "-c", "SELECT 1"], "has no volume `nope`\nhint: it has: data:app.db"),
        (&["db", "data:app.db", "-c", "SELECT 1"], "error: app.db: it took longer than 20 s"),
        (&["db", "data:app.db", "--write", "-c", "DELETE FROM t"], "hint: say so by --yes"),
    ] {
        let ran = fake.run(&[line, &["-s", "web"]].concat()).await;
        assert!(ran.code == 1 && ran.talk.contains(said), "{line:?} said:\n{}", ran.talk);
        assert_eq!(ran.result, "", "{line:?}");
    }
    let line = ["volume", "restore", "data", "--at", "rp_x", "-s", "web", "--json"];
    let last = fake.run(&line).await.json_lines().pop().unwrap();
    assert_eq!((&last["status"], &last["stage"]), (&json!("failed"), &json!("request")));
}

#[tokio::test]
async fn status_has_a_line_about_the_data_of_each_service() {
    let fake = web(|line, _| {
        let mut with = serde_json::to_value(service("web", "web")).unwrap();
        with["volumes"] = json!([volume("data")]);
        with["warnings"] = json!(["volume `data`: no restore point is proven restorable"]);
        with["last_restore_point"] = json!(now() - 300_000);
        let mut known = with.clone();
        known["last_proven"] = json!(now() - 7_200_000);
        let mut bare = with.clone();
        bare["volumes"][0]["last_restore_point"] = Value::Null;
        bare["last_restore_point"] = Value::Null;
        let isolation = json!({ "level": "full", "missing": [] });
        let info = json!({ "version": "0", "data_dir": "/d", "domain": "d", "pid": 1, "resident_bytes": 1, "edge": null,
                           "isolation": isolation });
        match line {
            "GET /v1/box" => Some(ok(&info)),
            "GET /v1/services" => Some(ok(&json!([with, known, bare]))),
            _ => None,
        }
    });
    let text = fake.run(&["status", "-s", "web"]).await.result;
    for line in [
        "  ! volume `data`: no restore point is proven restorable\n",
        "  volume data at /data: 120 MB of 5.0 GB used, 48 GB free\n",
        "  data: restore point 5 min ago, none is proven restorable yet\n",
        "  data: restore point 5 min ago, proven restorable: 2 h ago\n",
        "  data: no restore point yet of data\n",
    ] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    let told: Value = serde_json::from_str(&fake.run(&["status", "--json"]).await.result).unwrap();
    for key in ["volumes", "last_restore_point", "last_proven", "last_proof"] {
        assert!(told["services"][1].get(key).is_some(), "no {key}");
    }
}

//! Databases and the console against a box that is not real.

use serde_json::{Value, json};

use super::data::{now, ok, refusal, web};
use super::fake::Asked;

fn answer(point: &str, rows: &Value, changed: Option<u64>) -> Value {
    json!({ "point": point, "taken_at": now(), "columns": ["id", "text"], "rows": rows, "truncated": false,
            "changed": changed, "took_ms": 3 })
}

#[tokio::test]
async fn databases_are_listed_with_tables_and_rows() {
    let fake = web(|line, _| {
        let database = |path: &str, tables: Value, unreadable: Option<&str>| {
            json!({ "volume": "data", "path": path, "journal_mode": "wal", "sqlite_version": "3.40.1", "tables": tables,
                    "unreadable": unreadable, "point": "rp_now", "taken_at": now() })
        };
        (line == "GET /databases").then(|| {
            let tables = json!([{ "name": "sqlite_schema", "rows": 2 }, { "name": "messages", "rows": 52 },
                                { "name": "users", "rows": 3 }]);
            ok(&json!([
                database("app.db", tables, None),
                database("empty.db", json!([]), None),
                database("secret.db", json!([]), Some("it is encrypted")),
            ]))
        })
    });
    let ran = fake.run(&["db", "-s", "web"]).await;
    let text = "\
DATABASE        JOURNAL  SQLITE  TABLE     ROWS
data:app.db     wal      3.40.1  messages  52
data:app.db     wal      3.40.1  users     3
data:empty.db   wal      3.40.1  -         no tables
data:secret.db  wal      3.40.1  -         not readable: it is encrypted
";
    assert_eq!((ran.code, ran.result.as_str()), (0, text));
    assert_eq!(ran.talk, "as of just now: rp_now\n");
}

#[tokio::test]
async fn statements_of_a_console_read_one_and_the_same_point() {
    let fake = web(|line, asked| {
        (line == "POST /volumes/data/queries").then(|| {
            assert_eq!(
                (&asked.json()["write"], &asked.json()["database"]),
                (&json!(false), &json!("app.db"))
            );
            ok(&answer("rp_now", &json!([[1, "a"], [2, null]]), None))
        })
    });
    let input = "-- what is there\nSELECT *\nFROM t; SELECT ';';\n.quit\nSELECT 3;\n";
    let ran = fake.run_with(&["db", "/data/app.db", "-s", "web"], input).await;
    assert_eq!(
        (ran.code, ran.result.as_str()),
        (0, "id  text\n1   a\n2   NULL\nid  text\n1   a\n2   NULL\n")
    );
    assert!(
        ran.talk.starts_with("reading restore point rp_now, taken just now\n2 rows, 0.0 s\n"),
        "{}",
        ran.talk
    );
    let sent: Vec<_> = fake.asked().iter().filter(|asked| !asked.body.is_empty()).map(Asked::json).collect();
    let told: Vec<_> = sent.iter().map(|sent| (sent["sql"].as_str().unwrap(), &sent["point"])).collect();
    assert_eq!(
        told,
        [("-- what is there\nSELECT *\nFROM t", &Value::Null), ("SELECT ';'", &json!("rp_now"))]
    );
}

#[tokio::test]
async fn a_statement_without_an_end_runs_and_a_failure_ends_what_is_piped_in() {
    let fake = web(|line, asked| {
        (line == "POST /volumes/data/queries").then(|| match asked.json()["sql"].as_str() {
            Some("SELECT 1") => ok(&answer("rp_now", &json!([]), None)),
            _ => refusal(400, "invalid_request", "app.db: this console only reads", None),
        })
    });
    assert_eq!(fake.run_with(&["db", "app.db", "-s", "web"], "SELECT 1").await.code, 0);
    let before = fake.asked().len();
    let ran = fake.run_with(&["db", "app.db", "-s", "web"], "DELETE FROM t;\nSELECT 1;\n").await;
    assert!(ran.code == 1 && ran.talk.contains("error: app.db: this console only reads"), "{}", ran.talk);
    let asked = fake.asked().split_off(before);
    assert_eq!(asked.iter().filter(|asked| asked.line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_write_needs_a_yes_and_names_the_point_from_before() {
    let fake = web(|line, asked| {
        (line == "POST /volumes/data/queries").then(|| {
            assert_eq!(asked.json()["write"], json!(true));
            let mut answer = answer("rp_before", &json!([]), Some(3));
            answer["columns"] = json!([]);
            ok(&answer)
        })
    });
    let line = ["db", "data:app.db", "--write", "--yes", "-c", "DELETE FROM t; DELETE FROM u", "-s", "web"];
    let ran = fake.run(&line).await;
    let text =
        "the data from before is restore point rp_before\n3 rows changed, 0.0 s\n3 rows changed, 0.0 s\n";
    assert_eq!((ran.code, ran.result.as_str(), ran.talk.as_str()), (0, "", text));
    let last = fake.asked().pop().unwrap().json();
    assert_eq!((&last["sql"], &last["point"]), (&json!("DELETE FROM u"), &json!("rp_before")));
    let json = fake.run(&[&line[..], &["--json"]].concat()).await.json_lines();
    assert_eq!((json.len(), &json[0]["changed"]), (2, &json!(3)));
}

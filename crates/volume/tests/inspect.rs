//! The look into databases: what it tells apart, what it survives, and that nothing is left of it.
#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use trackbed_volume::inspect::{Inspected, Inspector, LookError, Priority, QueryLimits, QueryMode, Value};

fn inspector() -> Inspector {
    Inspector::by(env!("CARGO_BIN_EXE_volume-look-into"))
}

async fn content(folder: &Path) -> Vec<Inspected> {
    inspector().content(folder, &[], Priority::Normal).await.unwrap()
}

fn database(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("app.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

/// The content of one database that is made of SQL.
async fn of(sql: &str) -> Inspected {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path(), sql);
    let mut found = content(folder.path()).await;
    assert_eq!(found.len(), 1);
    let found = found.remove(0);
    assert!(found.damage.is_empty() && !found.is_limited, "{found:?}");
    found
}

fn table<'a>(found: &'a Inspected, name: &str) -> (u64, &'a str) {
    let table = found.content.tables.iter().find(|table| table.name == name);
    let table = table.unwrap_or_else(|| panic!("{name} is not in {found:?}"));
    (table.rows, &table.digest)
}

/// Copies the files of a folder as a crash would leave them.
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn equal_rows_are_equal_whatever_their_order_and_different_ones_differ() {
    const MAKE: &str = "CREATE TABLE t(a, b); INSERT INTO t VALUES";
    let base = of(&format!("{MAKE} (1,'x'),(2,'y'),(NULL, x'00');")).await;
    let same =
        of(&format!("{MAKE} (NULL, x'00'),(9,'gone'),(2,'y'),(1,'x'); DELETE FROM t WHERE a=9; VACUUM;"))
            .await;
    assert_eq!(table(&base, "t"), table(&same, "t"));
    assert_eq!(table(&base, "t").0, 3);
    for other in [
        "(1,'y'),(2,'x'),(NULL, x'00')",
        "('1','x'),(2,'y'),(NULL, x'00')",
        "(1,x'78'),(2,'y'),(NULL, x'00')",
        "(1.5,'x'),(2,'y'),(NULL, x'00')",
        "(1,'x'),(2,'y'),(NULL, NULL)",
        "(1,'x'),(2,'y'),(NULL, '')",
        "('x',1),(2,'y'),(NULL, x'00')",
        "(1,'x'),(1,'x'),(2,'y'),(NULL, x'00')",
    ] {
        let other_found = of(&format!("{MAKE} {other};")).await;
        assert_ne!(table(&base, "t").1, table(&other_found, "t").1, "{other}");
    }
}

#[tokio::test]
async fn the_schema_counts_and_so_does_the_number_of_the_last_migration() {
    let base = of("CREATE TABLE t(a); CREATE INDEX i ON t(a);").await;
    let same = of("CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1); ANALYZE;").await;
    assert_eq!(table(&base, "sqlite_schema"), table(&same, "sqlite_schema"));
    for other in ["CREATE TABLE t(a);", "CREATE TABLE t(a); CREATE INDEX i ON t(a); PRAGMA user_version=7;"] {
        assert_ne!(table(&base, "sqlite_schema").1, table(&of(other).await, "sqlite_schema").1, "{other}");
    }
}

#[tokio::test]
async fn every_kind_of_table_is_read() {
    let found =
        of("CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES('a',1),('b',2);
         CREATE TABLE g(a INT, s AS (a*2) STORED, v AS (a*3) VIRTUAL); INSERT INTO g(a) VALUES(4);
         CREATE TABLE \"odd \"\" name\"(\"a \"\" b\"); INSERT INTO \"odd \"\" name\" VALUES(1);
         CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO seq VALUES(5);
         CREATE TABLE latin(t); INSERT INTO latin VALUES(CAST(x'ff41' AS TEXT));
         CREATE TABLE strict_one(n INTEGER) STRICT; INSERT INTO strict_one VALUES(3);
         CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('some words');
         CREATE VIRTUAL TABLE r USING rtree(id, lo, hi); INSERT INTO r VALUES(1, 2, 3);
         CREATE VIEW boom AS SELECT randomblob(1000000000);
         CREATE TRIGGER tr AFTER INSERT ON w BEGIN SELECT RAISE(ABORT, 'no'); END;")
        .await;
    assert_eq!(found.content.unreadable, None);
    for (name, rows) in
        [("w", 2), ("g", 1), ("odd \" name", 1), ("sqlite_sequence", 1), ("latin", 1), ("strict_one", 1)]
    {
        assert_eq!(table(&found, name).0, rows, "{name}");
    }
    assert_eq!(table(&found, "f_content").0, 1);
    assert_eq!(table(&found, "r_rowid").0, 1);
    assert!(found.content.tables.iter().all(|table| table.name != "f" && table.name != "boom"));
    assert_eq!(found.content.sqlite_version.as_deref(), Some(rusqlite::version()));
    assert_eq!(found.content.journal_mode, "delete");
}

/// What only the app's own library can do must not hide the rest.
#[tokio::test]
async fn a_missing_module_function_or_collation_does_not_fail_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), "CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE TABLE u(b);");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(
        "PRAGMA writable_schema=ON;
         INSERT INTO sqlite_schema VALUES('table','vec','vec',0,'CREATE VIRTUAL TABLE vec USING vec0(x)');
         UPDATE sqlite_schema SET sql='CREATE TABLE u(b TEXT COLLATE unicase CHECK(app_check(b)))' WHERE name='u';",
    ).unwrap();
    drop(connection);
    let found = content(folder.path()).await.remove(0);
    assert_eq!(table(&found, "t").0, 1);
    assert_eq!(table(&found, "u").0, 0);
    assert!(found.damage.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_log_that_was_not_yet_written_into_its_database_counts_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let live = Connection::open(&path).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);").unwrap();
    live.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(2),(3);").unwrap();
    let copied = copy(folder.path());
    drop(live);
    fs::remove_file(copied.path().join("app.db-shm")).unwrap();
    let before = listing(copied.path());
    let found = content(copied.path()).await.remove(0);
    assert_eq!(table(&found, "t").0, 3);
    assert_eq!(found.content.journal_mode, "wal");
    assert!(listing(copied.path()) == before, "the look changed what it looked at");
    fs::remove_file(copied.path().join("app.db-wal")).unwrap();
    let before = listing(copied.path());
    assert_eq!(table(&content(copied.path()).await[0], "t").0, 1);
    assert!(listing(copied.path()) == before, "the look left something behind");
}

#[tokio::test]
async fn a_hot_journal_is_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let live = Connection::open(&path).unwrap();
    live.execute_batch("CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<10) INSERT INTO t SELECT i FROM n;").unwrap();
    // So little memory that the transaction is in the file before it is committed.
    live.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=1; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO t SELECT randomblob(100) FROM n;").unwrap();
    let copied = copy(folder.path());
    live.execute_batch("ROLLBACK").unwrap();
    assert!(fs::metadata(copied.path().join("app.db-journal")).unwrap().len() > 512);
    assert!(fs::metadata(copied.path().join("app.db")).unwrap().len() > 100_000);
    let found = content(copied.path()).await.remove(0);
    assert!(found.damage.is_empty(), "{found:?}");
    assert_eq!(table(&found, "t").0, 10);
}

#[tokio::test]
async fn what_is_no_database_is_none_and_what_cannot_be_read_is_told_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(folder.path().join("encrypted.db"), &noise).unwrap();
    fs::write(folder.path().join("empty.db"), "").unwrap();
    fs::write(folder.path().join("text.db"), "id,name\n1,x\n").unwrap();
    fs::write(folder.path().join("short.db"), b"SQLite format 3\0").unwrap();
    let mut garbage = b"SQLite format 3\0".to_vec();
    garbage.extend_from_slice(&noise);
    fs::write(folder.path().join("garbage.db"), &garbage).unwrap();
    std::os::unix::fs::symlink("garbage.db", folder.path().join("link.db")).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    database(&folder.path().join("sub"), "CREATE TABLE t(a);");
    let found = content(folder.path()).await;
    let names: Vec<&str> = found.iter().map(|one| one.content.path.as_str()).collect();
    assert_eq!(names, ["garbage.db", "sub/app.db"]);
    let reason = found[0].content.unreadable.as_deref().unwrap();
    assert!(!reason.is_empty() && !found[0].is_limited && found[0].damage.is_empty(), "{found:?}");
    assert!(found[1].content.unreadable.is_none());
}

#[tokio::test]
async fn a_page_that_was_overwritten_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(a); CREATE INDEX i ON t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT i FROM n;",
    );
    let mut bytes = fs::read(&path).unwrap();
    let page = 4096 * 5;
    bytes[page..page + 512].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let found = content(folder.path()).await.remove(0);
    assert!(!found.damage.is_empty() && found.damage.len() <= 20, "{found:?}");
}

/// The limits are of the process: here a database asks for more than it may have.
#[tokio::test]
async fn a_database_that_wants_too_much_memory_is_unreadable_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    database(
        &folder.path().join("a"),
        "CREATE TABLE big(x); INSERT INTO big VALUES(zeroblob(200000000)); CREATE TABLE ok(x); INSERT INTO ok VALUES(1);",
    );
    let many: String =
        (0..3000).map(|n| format!("CREATE TABLE t{n}(a,b,c,d,e,f,g CHECK(((((a+b)+c)+d)+e)>0));")).collect();
    database(&folder.path().join("b"), &format!("BEGIN; {many} COMMIT;"));
    let found = content(folder.path()).await;
    assert_eq!(found.len(), 2);
    let reason = found[0].content.unreadable.as_deref().unwrap();
    assert!(reason.contains("`big`") && reason.contains("memory"), "{reason}");
    assert_eq!(table(&found[0], "ok").0, 1);
    assert_eq!(found[1].content.tables.len(), 3001);
}

#[tokio::test]
async fn a_look_that_is_dropped_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path(), "CREATE TABLE t(a);");
    // A pipe in place of a program's answer cannot be had; a query without end can.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n";
    let limits = QueryLimits { time: Duration::from_secs(600), ..QueryLimits::default() };
    let mark = folder.path().to_owned();
    let looking = inspector();
    let asked = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::select! {
            answer = looking.query(&mark, "app.db", endless, limits, QueryMode::Read) => panic!("{answer:?}"),
            () = until(|| !processes(&mark).is_empty()) => {}
        }
    });
    asked.await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), until(|| processes(&mark).is_empty())).await.unwrap();
}

/// As when the one who asks is killed: its end of the pipe closes.
#[tokio::test]
async fn a_look_ends_with_the_one_who_asked() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    database(folder.path(), "CREATE TABLE t(a);");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_volume-look-into"))
        .args(["look-into", "query"])
        .arg(folder.path())
        .arg("app.db")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n";
    writeln!(
        input,
        "{}",
        serde_json::json!({"sql": sql, "limits": {"rows": 1, "bytes": 1, "time": {"secs": 600, "nanos": 0}}})
    )
    .unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    drop(input);
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    assert!(!status.success());
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn processes(mark: &Path) -> Vec<PathBuf> {
    let mark = mark.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let looks = |path: &PathBuf| {
        fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    entries.map(|entry| entry.path()).filter(looks).collect()
}

#[tokio::test]
async fn a_query_reads_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(
        folder.path(),
        "CREATE TABLE t(a, b); INSERT INTO t VALUES(1,'x'),(2.5,x'0aff'),(NULL,9e999); PRAGMA journal_mode=WAL;",
    );
    let ask = async |sql: &str, limits| {
        inspector().query(folder.path(), "app.db", sql, limits, QueryMode::Read).await
    };
    let answer = ask("SELECT a, b AS c FROM t ORDER BY rowid", QueryLimits::default()).await.unwrap();
    assert_eq!(answer.columns, ["a", "c"]);
    assert_eq!(
        answer.rows,
        [
            vec![Value::Integer(1), Value::Text("x".into())],
            vec![Value::Real(2.5), Value::Blob { bytes: 2, head: "0aff".into() }],
            vec![Value::Null, Value::Text("inf".into())],
        ]
    );
    assert!(!answer.is_cut && answer.changed == 0);
    let one = QueryLimits { rows: 1, ..QueryLimits::default() };
    assert!(ask("SELECT a FROM t", one).await.unwrap().is_cut);
    assert_eq!(ask("PRAGMA table_info(t)", QueryLimits::default()).await.unwrap().rows.len(), 2);
    let before = listing(folder.path());
    let other = folder.path().join("made.db").display().to_string();
    for bad in [
        "INSERT INTO t VALUES(1,1)",
        "DROP TABLE t",
        "CREATE TEMP TABLE x(a)",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA user_version=5",
        "PRAGMA writable_schema=1",
        "PRAGMA query_only=0",
        "PRAGMA hard_heap_limit=0",
        "VACUUM",
        "BEGIN",
        "SELECT load_extension('/tmp/x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT 1; SELECT 2",
        &format!("ATTACH '{other}' AS o"),
        &format!("VACUUM INTO '{other}'"),
        "SELEC",
        "",
    ] {
        let refused = ask(bad, QueryLimits::default()).await;
        assert!(matches!(refused, Err(LookError::Refused(_))), "{bad}: {refused:?}");
    }
    assert!(listing(folder.path()) == before);
    let short = QueryLimits { time: Duration::from_millis(200), ..QueryLimits::default() };
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n";
    let error = ask(endless, short).await.unwrap_err().to_string();
    assert!(error.contains("took longer"), "{error}");
    let error =
        ask("SELECT group_concat(zeroblob(9000000)) FROM t, t, t, t, t, t", QueryLimits::default()).await;
    assert!(error.unwrap_err().to_string().contains("memory"));
    let missing = inspector()
        .query(folder.path(), "none.db", "SELECT 1", QueryLimits::default(), QueryMode::Read)
        .await;
    assert!(missing.is_err() && !folder.path().join("none.db").exists());
    assert!(path.exists());
}

#[tokio::test]
async fn a_statement_that_writes_waits_for_the_app_and_stays_within_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        database(folder.path(), "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1),(2);");
    let live = Connection::open(&path).unwrap();
    live.execute_batch("BEGIN; SELECT * FROM t; ROLLBACK").unwrap();
    let ask = async |sql: &str| {
        inspector().query(folder.path(), "app.db", sql, QueryLimits::default(), QueryMode::Write).await
    };
    assert_eq!(ask("UPDATE t SET a = a + 10").await.unwrap().changed, 2);
    let sum: i64 = live.query_row("SELECT sum(a) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 23);
    live.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(ask("DELETE FROM t").await.is_err());
    live.execute_batch("COMMIT").unwrap();
    for bad in ["ATTACH '/tmp/other.db' AS o", "PRAGMA journal_mode=DELETE", "PRAGMA writable_schema=1"] {
        assert!(ask(bad).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_backup_of_a_database_in_use_is_of_one_instant() {
    for mode in ["WAL", "DELETE"] {
        let folder = tempfile::tempdir().unwrap();
        let path = database(
            folder.path(),
            &format!("PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1);"),
        );
        let live = Connection::open(&path).unwrap();
        live.execute_batch("INSERT INTO t VALUES(2)").unwrap();
        let to = tempfile::tempdir().unwrap();
        let copied = to.path().join("app.db");
        let limit = Duration::from_secs(30);
        inspector().backup(&path, &copied, Duration::from_secs(5), limit).await.unwrap();
        live.execute_batch("INSERT INTO t VALUES(3)").unwrap();
        assert_eq!(table(&content(to.path()).await[0], "t").0, 2, "{mode}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "{mode}");
        live.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO t VALUES(4);")
            .unwrap();
        if mode == "DELETE" {
            let other = to.path().join("late.db");
            let late = inspector().backup(&path, &other, Duration::from_millis(100), limit).await;
            assert!(late.unwrap_err().to_string().contains("locked"));
        }
    }
}

/// As root the process has the rights of the folder's owner, and sees the folder alone.
#[tokio::test]
async fn root_gives_its_rights_up() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("data");
    fs::create_dir(&inner).unwrap();
    let path = database(&inner, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);");
    let (uid, gid) = (54_321, 54_321);
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&inner, Some(uid), Some(gid)).unwrap();
    assert!(content(&inner).await.is_empty(), "a file that its owner may not read");
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
    // The folder above is root's alone.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(table(&content(&inner).await[0], "t").0, 0);
}

//! `trackbed db`: the databases of a service, and a console on one of them.

use anyhow::Result;
use serde_json::Value;
use trackbed_api::{Database, QueryRequest, QueryResult, Table, Volume};
use trackbed_client::VolumeClient;
use trackbed_stdx::clock::now_ms;

use crate::human::{ago, count, duration, plain, table};
use crate::output::{Ink, Output, ResultLost};
use crate::session::{Refusal, Session};
use crate::statements;
use crate::target::{Names, Target};

/// Longest value in a table that somebody looks at, in characters.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// List the databases of a service, or run SQL on a copy of one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed db\n  trackbed db data:app.db\n  \
                  trackbed db /data/app.db -c 'SELECT count(*) FROM messages'\n  \
                  trackbed db data:app.db --json < questions.sql\n  \
                  trackbed db data:app.db --write -c \"UPDATE users SET plan = 'free'\"\n\n\
                  Statements read a restore point that is taken first, so they neither wait for the app nor hold it up. \
                  With --write they run on the live database, after a restore point was taken.")]
pub(crate) struct Args {
    /// A database: VOLUME:path, or its path as the app sees it [default: list all]
    #[arg(value_name = "DATABASE")]
    database: Option<String>,
    /// Run this and end (may be given several times) [default: read statements from standard input]
    #[arg(long = "command", short = 'c', value_name = "SQL", requires = "database")]
    commands: Vec<String>,
    /// Run statements on the live database, and let them change it
    #[arg(long, requires = "database")]
    write: bool,
    /// Do not ask before --write
    #[arg(long, short, requires = "write")]
    yes: bool,
    /// Print JSON: a list of databases, or one object a statement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let calls = names.of(&client);
    let Some(wanted) = &args.database else {
        return list(session, &names, &calls.databases().await?, args.json);
    };
    let (volume, path) = resolve(wanted, &names, &calls.volumes().await?)?;
    if args.write && !args.yes && !agrees(session, &names, &volume, &path)? {
        return Ok(1);
    }
    let mut console = Console {
        output: &session.output,
        volume: calls.volume(&volume),
        title: format!("{volume}:{path}"),
        database: path,
        write: args.write,
        json: args.json,
        point: None,
    };
    if args.commands.is_empty() {
        return read_statements(session, &mut console).await;
    }
    for command in &args.commands {
        let mut rest = command.as_str();
        while let Some((statement, after)) = statements::split(rest) {
            console.execute(statement).await?;
            rest = after;
        }
        console.execute(rest).await?;
    }
    Ok(0)
}

/// Asks before the live database may change; refuses where nobody can answer.
fn agrees(session: &Session, names: &Names, volume: &str, path: &str) -> Result<bool> {
    if !session.input.can_ask(&session.output) {
        let message = format!("--write changes the live database {volume}:{path} of {names}");
        return Err(Refusal::with_hint(message, "say so by --yes"));
    }
    session.agrees(false, &format!("change the live database {volume}:{path} of {names}?"))
}

fn list(session: &Session, names: &Names, databases: &[Database], json: bool) -> Result<u8> {
    let output = &session.output;
    if json {
        output.json_pretty(&databases)?;
        return Ok(0);
    }
    if databases.is_empty() {
        output.talk(format!("the volumes of {names} hold no SQLite database"));
        return Ok(0);
    }
    let head = ["DATABASE", "JOURNAL", "SQLITE", "TABLE", "ROWS"].map(str::to_owned);
    let mut rows = vec![head];
    for database in databases {
        let name = format!("{}:{}", database.volume, plain(&database.path));
        let version = database.sqlite_version.clone().unwrap_or_else(|| "-".to_owned());
        let row = |table: String, rows: String| {
            [name.clone(), database.journal_mode.clone(), version.clone(), table, rows]
        };
        match &database.unreadable {
            Some(reason) => rows.push(row("-".to_owned(), format!("not readable: {}", plain(reason)))),
            None if !database.tables.iter().any(is_own) => {
                rows.push(row("-".to_owned(), "no tables".to_owned()))
            }
            None => {
                rows.extend(
                    database
                        .tables
                        .iter()
                        .filter(|table| is_own(table))
                        .map(|table| row(plain(&table.name), table.rows.to_string())),
                );
            }
        }
    }
    for line in table(&rows) {
        output.result(line)?;
    }
    if let Some(first) = databases.first() {
        output.talk(format!("as of {}: {}", ago(now_ms(), first.taken_at), first.point));
    }
    Ok(0)
}

/// Whether the app made a table, and not SQLite for itself.
fn is_own(table: &Table) -> bool {
    !table.name.starts_with("sqlite_")
}

/// Finds out which database of which volume was named.
fn resolve(wanted: &str, names: &Names, volumes: &[Volume]) -> Result<(String, String)> {
    let known: Vec<_> = volumes
        .iter()
        .flat_map(|volume| {
            volume.databases.iter().map(|database| format!("{}:{}", volume.name, plain(&database.path)))
        })
        .collect();
    let hint = match known.as_slice() {
        [] => "`trackbed db` lists the databases".to_owned(),
        known => format!("it has: {}", known.join(", ")),
    };
    let refuse = |message: String| Refusal::with_hint(message, hint.clone());
    if let Some((volume, path)) = wanted.split_once(':')
        && !wanted.starts_with('/')
    {
        if volumes.iter().any(|known| known.name == volume) {
            return Ok((volume.to_owned(), path.trim_start_matches('/').to_owned()));
        }
        return Err(refuse(format!("{names} has no volume `{}`", plain(volume))));
    }
    if wanted.starts_with('/') {
        let inside = |volume: &&Volume| {
            wanted.strip_prefix(volume.mount.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let volume = volumes.iter().filter(inside).max_by_key(|volume| volume.mount.len());
        let volume =
            volume.ok_or_else(|| refuse(format!("{} lies in no volume of {names}", plain(wanted))))?;
        return Ok((volume.name.clone(), wanted[volume.mount.len()..].trim_start_matches('/').to_owned()));
    }
    let having: Vec<_> = volumes
        .iter()
        .filter(|volume| volume.databases.iter().any(|database| database.path == wanted))
        .collect();
    match (having.as_slice(), volumes) {
        ([volume], _) => Ok((volume.name.clone(), wanted.to_owned())),
        // Its header may have been found no earlier than the last look.
        ([], [volume]) => Ok((volume.name.clone(), wanted.to_owned())),
        ([], _) => Err(refuse(format!("{names} has no database {}", plain(wanted)))),
        _ => Err(refuse(format!("several volumes of {names} have a database {}", plain(wanted)))),
    }
}

/// A database and how statements on it are run and shown.
struct Console<'a> {
    output: &'a Output,
    volume: VolumeClient<'a>,
    title: String,
    database: String,
    write: bool,
    json: bool,
    /// The restore point that is read, or that was taken before the first write.
    point: Option<String>,
}

/// Reads statements until the input ends or says so.
async fn read_statements(session: &Session, console: &mut Console<'_>) -> Result<u8> {
    let typed = session.input.can_ask(&session.output);
    let mut waiting = String::new();
    loop {
        if typed {
            let is_new = !statements::says_something(&waiting);
            let prompt = if is_new { format!("{}> ", console.title) } else { "   ...> ".to_owned() };
            session.output.prompt(&prompt);
        }
        let Some(line) = session.input.line()? else { break };
        if !statements::says_something(&waiting) && matches!(line.trim(), ".quit" | ".exit" | "quit" | "exit")
        {
            return Ok(0);
        }
        waiting.push_str(&line);
        while let Some((statement, rest)) = statements::split(&waiting) {
            let done = console.execute(statement).await;
            waiting = rest.to_owned();
            match done {
                // Whoever types may type again.
                Err(error) if typed && error.downcast_ref::<ResultLost>().is_none() => {
                    session.output.error(&error)
                }
                done => done?,
            }
        }
    }
    console.execute(&waiting).await?;
    if typed {
        session.output.talk("");
    }
    Ok(0)
}

impl Console<'_> {
    /// Runs a statement and shows what it came to. Nothing but comments is no statement.
    async fn execute(&mut self, sql: &str) -> Result<()> {
        if !statements::says_something(sql) {
            return Ok(());
        }
        let request = QueryRequest {
            database: self.database.clone(),
            sql: sql.trim().to_owned(),
            point: self.point.clone(),
            write: self.write,
        };
        let result = self.volume.query(&request).await?;
        if self.point.as_ref() != Some(&result.point) {
            self.output.talk(match self.write {
                true => format!("the data from before is restore point {}", result.point),
                false => format!(
                    "reading restore point {}, taken {}",
                    result.point,
                    ago(now_ms(), result.taken_at)
                ),
            });
            self.point = Some(result.point.clone());
        }
        if self.json {
            return Ok(self.output.json(&result)?);
        }
        self.show(&result)
    }

    fn show(&self, result: &QueryResult) -> Result<()> {
        let shown = |value: &Value| cell(value, self.output.result_is_seen);
        if !result.columns.is_empty() {
            let head = result.columns.iter().map(|column| plain(column)).collect::<Vec<_>>();
            let rows = result.rows.iter().map(|row| row.iter().map(shown).collect());
            for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
                self.output.result(line)?;
            }
        }
        if result.truncated {
            let mark = self.output.ink_talk(Ink::Odd, "!");
            self.output
                .talk(format!("{mark} not all of it: more rows or longer values than one answer may hold"));
        }
        let took = duration(i64::try_from(result.took_ms).unwrap_or(i64::MAX));
        self.output.talk(match result.changed {
            Some(changed) => format!("{} changed, {took}", count(changed, "row")),
            None => format!("{}, {took}", count(result.rows.len() as u64, "row")),
        });
        Ok(())
    }
}

/// A value for a table; on a terminal a long one is cut.
fn cell(value: &Value, is_seen: bool) -> String {
    let text = match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => plain(text),
        Value::Object(blob) => match blob.get("blob").and_then(Value::as_str) {
            Some(hex) => {
                let bytes = blob.get("bytes").and_then(Value::as_u64);
                match bytes.filter(|bytes| *bytes > hex.len() as u64 / 2) {
                    Some(bytes) => format!("x'{hex}…' ({})", count(bytes, "byte")),
                    None => format!("x'{hex}'"),
                }
            }
            None => value.to_string(),
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    if is_seen && text.chars().count() > SHOWN_CHARACTERS_MAX {
        return text.chars().take(SHOWN_CHARACTERS_MAX).chain(['…']).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(name: &str, mount: &str, databases: &[&str]) -> Volume {
        let seen = |path: &&str| json!({ "path": path, "journal_mode": "wal", "size_bytes": 1 });
        serde_json::from_value(json!({
            "name": name, "id": "vol_1", "mount": mount, "used_bytes": 0, "free_bytes": 0, "held_by": null,
            "databases": databases.iter().map(seen).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn resolved(wanted: &str, volumes: &[Volume]) -> String {
        let names = Names { project: "web".to_owned(), service: "web".to_owned() };
        match resolve(wanted, &names, volumes) {
            Ok((volume, path)) => format!("{volume} {path}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_database_is_named_by_volume_by_the_apps_path_or_alone() {
        let volumes = [volume("data", "/data", &["app.db", "x.db"]), volume("deep", "/data/deep", &["x.db"])];
        assert_eq!(resolved("data:sub/app.db", &volumes), "data sub/app.db");
        assert_eq!(resolved("/data/app.db", &volumes), "data app.db");
        assert_eq!(resolved("/data/deep/x.db", &volumes), "deep x.db");
        assert_eq!(resolved("app.db", &volumes), "data app.db");
        assert_eq!(resolved("new.db", &volumes[..1]), "data new.db");
        assert!(resolved("x.db", &volumes).contains("several volumes"));
        assert!(resolved("new.db", &volumes).contains("no database"));
        assert!(resolved("/database/app.db", &volumes).contains("lies in no volume"));
        assert!(resolved("date:app.db", &volumes).contains("no volume `date`"));
    }

    #[test]
    fn values_are_shown_as_sql_writes_them() {
        let shown = [json!(null), json!(1.5), json!("a\nb"), json!({ "blob": "00ff" })]
            .map(|value| cell(&value, false));
        assert_eq!(shown, ["NULL", "1.5", "a\\nb", "x'00ff'"]);
        assert_eq!(cell(&json!("x".repeat(500)), true).chars().count(), SHOWN_CHARACTERS_MAX + 1);
    }
}

//! One SQL statement for a person.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::database::{self, Copy};
use super::wire::{Answer, QueryLimits, QueryMode, Request, Value};

/// Bytes of a blob that are shown.
const HEAD_BYTES: usize = 32;
/// How long a statement that writes waits for the app's own.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pragmas that only tell something.
const TELLING: [&str; 14] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
    "page_count",
    "page_size",
    "journal_mode",
    "user_version",
];

/// Runs the statement of a request on a database of the working folder.
pub(super) fn run(path: &Path, request: &Request) -> Result<Answer, String> {
    let answer = match request.mode {
        QueryMode::Read => Copy::open(path, request.limits.time).and_then(|mut copy| {
            copy.authorizer(Some(only_read))?;
            ask(&copy, &request.sql, request.limits)
        }),
        QueryMode::Write => open_live(path, request.limits.time).and_then(|mut connection| {
            connection.authorizer(Some(no_other_file))?;
            ask(&connection, &request.sql, request.limits)
        }),
    };
    answer.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            format!("it took longer than {} s", request.limits.time.as_secs())
        }
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => match request.mode {
            QueryMode::Read => "this console only reads".into(),
            QueryMode::Write => "a statement here stays within its database".into(),
        },
        _ => database::explain(&error),
    })
}

/// Opens a database that its app may use at this moment.
fn open_live(path: &Path, time: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE.min(time))?;
    database::harden(&mut connection, time)?;
    Ok(connection)
}

fn only_read(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if function_name != "load_extension" => Authorization::Allow,
        AuthAction::Pragma { pragma_name, pragma_value } => {
            // `pragma name = value` of these asks about a table, except for two that would set something.
            let sets = pragma_value.is_some()
                && matches!(pragma_name, "journal_mode" | "user_version" | "page_size");
            if TELLING.contains(&pragma_name) && !sets { Authorization::Allow } else { Authorization::Deny }
        }
        _ => Authorization::Deny,
    }
}

fn no_other_file(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
        AuthAction::Function { function_name: "load_extension" } => Authorization::Deny,
        // A change of these under a running app is no statement but an operation.
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) } if !TELLING.contains(&pragma_name) => {
            Authorization::Deny
        }
        AuthAction::Pragma { pragma_name: "journal_mode" | "page_size", pragma_value: Some(_) } => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

fn ask(connection: &Connection, sql: &str, limits: QueryLimits) -> rusqlite::Result<Answer> {
    let end = Instant::now() + limits.time;
    let before = connection.total_changes();
    let mut statement = connection.prepare(sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut answer = Answer { rows: Vec::new(), is_cut: false, changed: 0, columns };
    let (count, mut bytes) = (answer.columns.len(), 0);
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if answer.rows.len() >= limits.rows || bytes > limits.bytes || Instant::now() > end {
            answer.is_cut = true;
            break;
        }
        let mut values = Vec::with_capacity(count);
        for column in 0..count {
            let value = show(row.get_ref(column)?, limits.bytes.saturating_sub(bytes));
            bytes += weigh(&value);
            values.push(value);
        }
        answer.rows.push(values);
    }
    drop(rows);
    drop(statement);
    answer.changed = connection.total_changes().saturating_sub(before);
    Ok(answer)
}

fn show(value: ValueRef<'_>, bytes_left: usize) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) if number.is_finite() => Value::Real(number),
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(text) => {
            Value::Text(String::from_utf8_lossy(&text[..text.len().min(bytes_left)]).into_owned())
        }
        ValueRef::Blob(bytes) => Value::Blob {
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            head: bytes.iter().take(HEAD_BYTES).map(|byte| format!("{byte:02x}")).collect(),
        },
    }
}

fn weigh(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len() + 8,
        Value::Blob { head, .. } => head.len() + 8,
    }
}

//! What the databases of a folder look like.

use std::io;
use std::path::Path;
use std::time::Duration;

use trackbed_core::schema::{DatabaseSchema, SchemaObject};

use super::content::find;
use super::database::{self, Copy};
use super::wire::Line;

/// Time for one database: a schema is a few pages, whatever the size of the file.
pub(super) const SCHEMA_TIME: Duration = Duration::from_secs(20);
/// Most objects of a database that are told.
const OBJECTS_MAX: usize = 5_000;
/// Most columns of a table that are told; SQLite's own limit is 2000.
const COLUMNS_MAX: usize = 2_000;

/// Tells of every database below the working folder.
pub(super) fn all(say: &mut dyn FnMut(Line) -> io::Result<()>) -> io::Result<()> {
    for path in find(Path::new("."))? {
        let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        let mut schema = DatabaseSchema { path: name, objects: Vec::new(), unreadable: None };
        match Copy::open(&path, SCHEMA_TIME).and_then(|copy| objects(&copy)) {
            Ok(objects) => schema.objects = objects,
            Err(error) => schema.unreadable = Some(database::explain(&error)),
        }
        say(Line::Schema(Box::new(schema)))?;
    }
    Ok(())
}

fn objects(copy: &Copy) -> rusqlite::Result<Vec<SchemaObject>> {
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema \
               WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name LIMIT ?1";
    let mut statement = copy.prepare(sql)?;
    let rows = statement.query_map([i64::try_from(OBJECTS_MAX).unwrap_or(i64::MAX)], |row| {
        Ok(SchemaObject { kind: row.get(0)?, name: row.get(1)?, columns: Vec::new(), sql: row.get(2)? })
    })?;
    let mut objects = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut columns = copy.prepare("SELECT name, type FROM pragma_table_xinfo(?1) LIMIT ?2")?;
    for object in objects.iter_mut().filter(|object| object.kind == "table") {
        let most = i64::try_from(COLUMNS_MAX).unwrap_or(i64::MAX);
        let named = columns.query_map(rusqlite::params![object.name, most], |row| {
            let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(format!("{name} {kind}").trim_end().to_owned())
        });
        // A virtual table whose module is not here has none to tell.
        if let Ok(named) = named {
            object.columns = named.filter_map(Result::ok).collect();
        }
    }
    Ok(objects)
}

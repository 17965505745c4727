//! What a SQLite database looks like, its rows apart, and how a migration changes that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema of a database in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSchema {
    /// Path within the volume.
    pub path: String,
    /// Its tables, indexes, views and triggers, those of SQLite's own apart.
    pub objects: Vec<SchemaObject>,
    /// Why it could not be read.
    pub unreadable: Option<String>,
}

/// A table, an index, a view or a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaObject {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Columns of a table, each with its type: `id INTEGER`.
    pub columns: Vec<String>,
    /// The statement that would make it.
    pub sql: String,
}

/// Returns what became different, one line each: `app.db: + table users (id INTEGER)`.
pub fn schema_changes(before: &[DatabaseSchema], after: &[DatabaseSchema]) -> Vec<String> {
    let by_path = |schemas: &[DatabaseSchema]| -> BTreeMap<String, DatabaseSchema> {
        schemas.iter().map(|schema| (schema.path.clone(), schema.clone())).collect()
    };
    let (before, after) = (by_path(before), by_path(after));
    let mut changes = Vec::new();
    for (path, now) in &after {
        if let Some(why) = &now.unreadable {
            changes.push(format!("{path}: cannot be read: {why}"));
            continue;
        }
        let then = before.get(path);
        if then.is_none() {
            changes.push(format!("{path}: + database"));
        }
        let lines = objects_changed(then.map_or(&[][..], |then| &then.objects), &now.objects);
        changes.extend(lines.into_iter().map(|line| format!("{path}: {line}")));
    }
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    changes.extend(gone.map(|path| format!("{path}: - database")));
    changes
}

fn objects_changed(before: &[SchemaObject], after: &[SchemaObject]) -> Vec<String> {
    let key = |object: &SchemaObject| (object.kind.clone(), object.name.clone());
    let by_key = |objects: &[SchemaObject]| -> BTreeMap<(String, String), SchemaObject> {
        objects.iter().map(|object| (key(object), object.clone())).collect()
    };
    let (before, after) = (by_key(before), by_key(after));
    let mut lines = Vec::new();
    for ((kind, name), now) in &after {
        match before.get(&(kind.clone(), name.clone())) {
            None if now.columns.is_empty() => lines.push(format!("+ {kind} {name}")),
            None => lines.push(format!("+ {kind} {name} ({})", now.columns.join(", "))),
            Some(then) if then == now => {}
            Some(then) => {
                let new = now.columns.iter().filter(|column| !then.columns.contains(column));
                let old = then.columns.iter().filter(|column| !now.columns.contains(column));
                let columns: Vec<String> =
                    new.map(|column| format!("+ {column}")).chain(old.map(|it| format!("- {it}"))).collect();
                let what = if columns.is_empty() { "made anew".to_owned() } else { columns.join(", ") };
                lines.push(format!("~ {kind} {name}: {what}"));
            }
        }
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    lines.extend(gone.map(|(kind, name)| format!("- {kind} {name}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, columns: &[&str]) -> SchemaObject {
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        SchemaObject { kind: kind.into(), name: name.into(), sql: format!("{name}{columns:?}"), columns }
    }

    fn database(path: &str, objects: Vec<SchemaObject>) -> DatabaseSchema {
        DatabaseSchema { path: path.into(), objects, unreadable: None }
    }

    #[test]
    fn a_migration_is_told_line_by_line() {
        let before = [
            database("app.db", vec![object("table", "users", &["id INTEGER", "nick TEXT"])]),
            database("old.db", Vec::new()),
        ];
        let users = object("table", "users", &["id INTEGER", "email TEXT"]);
        let after = [
            database(
                "app.db",
                vec![users, object("table", "bills", &["id INTEGER"]), object("index", "by", &[])],
            ),
            DatabaseSchema { unreadable: Some("it is encrypted".into()), ..database("vault.db", Vec::new()) },
        ];
        assert_eq!(
            schema_changes(&before, &after),
            [
                "app.db: + index by",
                "app.db: + table bills (id INTEGER)",
                "app.db: ~ table users: + email TEXT, - nick TEXT",
                "vault.db: cannot be read: it is encrypted",
                "old.db: - database",
            ]
        );
        assert_eq!(schema_changes(&before, &before), [] as [&str; 0]);
    }
}

//! A digest of all rows of a table that does not depend on where in the file they lie.
//!
//! Each row is hashed by itself and the hashes are added up, so rows may come in any order, as they do after a `VACUUM`.
//! A row is its values in the order of the columns, each with its type and its length, so no value can pass for another
//! or move to a neighbour unseen. The hidden row id is left out: it changes without anybody having written.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};
use trackbed_core::restore_point::TableContent;

/// Columns that `PRAGMA table_xinfo` calls hidden and that are in the file all the same: generated and stored.
const STORED: i64 = 3;

/// Reads a table whole.
pub(super) fn table(connection: &Connection, name: &str) -> rusqlite::Result<TableContent> {
    let columns = columns(connection, name)?;
    let listed: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    let sql = format!("SELECT {} FROM {} NOT INDEXED", listed.join(", "), quote(name));
    let mut sum = Sum::default();
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut encoded = Vec::new();
    while let Some(row) = rows.next()? {
        encoded.clear();
        for column in 0..columns.len() {
            encode(row.get_ref(column)?, &mut encoded);
        }
        sum.add(&encoded);
    }
    Ok(sum.into_content(name))
}

/// Numbers in the header that belong to the app: migrations count there.
const NUMBERS: [&str; 2] = ["user_version", "application_id"];

/// Reads the schema as if it were a table, with the numbers that an app keeps in the header, and without the places where
/// things lie in the file.
pub(super) fn schema(connection: &Connection) -> rusqlite::Result<TableContent> {
    let mut sum = Sum::default();
    // What ANALYZE has gathered comes and goes with it.
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut encoded = Vec::new();
    while let Some(row) = rows.next()? {
        encoded.clear();
        for column in 0..4 {
            encode(row.get_ref(column)?, &mut encoded);
        }
        sum.add(&encoded);
    }
    encoded.clear();
    for name in NUMBERS {
        let number: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        encode(ValueRef::Integer(number), &mut encoded);
    }
    sum.mix(&encoded);
    Ok(sum.into_content("sqlite_schema"))
}

/// Returns the columns that are in the file: not those that are computed when they are read.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let found = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let found: Vec<(String, i64)> = found.collect::<rusqlite::Result<_>>()?;
    Ok(found.into_iter().filter(|(_, hidden)| matches!(*hidden, 0 | STORED)).map(|(name, _)| name).collect())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn encode(value: ValueRef<'_>, into: &mut Vec<u8>) {
    let mut sized = |kind: u8, bytes: &[u8]| {
        into.push(kind);
        into.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        into.extend_from_slice(bytes);
    };
    match value {
        ValueRef::Null => sized(0, &[]),
        ValueRef::Integer(number) => sized(1, &number.to_le_bytes()),
        ValueRef::Real(number) => sized(2, &number.to_bits().to_le_bytes()),
        ValueRef::Text(text) => sized(3, text),
        ValueRef::Blob(bytes) => sized(4, bytes),
    }
}

#[derive(Default)]
struct Sum {
    rows: u64,
    lanes: [u64; 4],
}

impl Sum {
    fn add(&mut self, row: &[u8]) {
        self.rows += 1;
        self.mix(row);
    }

    fn mix(&mut self, row: &[u8]) {
        let digest = Sha256::digest(row);
        for (lane, part) in self.lanes.iter_mut().zip(digest.chunks_exact(8)) {
            *lane = lane.wrapping_add(part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn into_content(self, name: &str) -> TableContent {
        let mut whole = Sha256::new();
        whole.update(b"trackbed table 1\n");
        whole.update(self.rows.to_le_bytes());
        for lane in self.lanes {
            whole.update(lane.to_le_bytes());
        }
        let digest = whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        TableContent { name: name.to_owned(), rows: self.rows, digest }
    }
}

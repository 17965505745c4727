//! Keys of Railway's that do nothing here, and what happens instead. One that has the value which it would have anyway is
//! not told.

use crate::config::draft::{Draft, File};
use crate::config::tree::{Member, Node, Value};

/// A table of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// `build`.
    Build,
    /// `deploy`.
    Deploy,
    /// `deploy.limitOverride.containers`.
    Containers,
}

/// When a key is worth a word.
#[derive(Clone, Copy)]
enum When {
    /// Whatever its value.
    Always,
    /// Not when it is false.
    True,
    /// Not when it is 0, as a number or in quotes.
    NotZero,
    /// Not when it asks for one instance or none.
    Several,
}

const NOTES: [(Table, &str, When, &str); 16] = [
    (Table::Build, "railpackVersion", When::Always, "is not needed: Trackbed builds by itself"),
    (Table::Build, "nixpacksVersion", When::Always, "is not needed: Trackbed builds by itself"),
    (Table::Build, "buildEnvironment", When::Always, "means nothing here: every build has the same jail"),
    (Table::Deploy, "numReplicas", When::Several, "one instance runs, whatever the number"),
    (Table::Deploy, "multiRegionConfig", When::Always, "one instance runs, on this box"),
    (Table::Deploy, "region", When::Always, "means nothing here: the service runs on this box"),
    (Table::Deploy, "sleepApplication", When::True, "is not obeyed: the service stays awake"),
    (
        Table::Deploy,
        "overlapSeconds",
        When::NotZero,
        "is not needed: the old release goes on until its last request is answered, at most for `drainingSeconds`",
    ),
    (
        Table::Deploy,
        "registryCredentials",
        When::Always,
        "is not used: log in to the registry with the container engine (`docker login`)",
    ),
    (Table::Deploy, "ipv6EgressEnabled", When::True, "is not obeyed: an app gets the addresses of the box"),
    (Table::Deploy, "runtime", When::Always, "means nothing here: there is one runtime"),
    (Table::Deploy, "useLegacyStacker", When::True, "means nothing here"),
    (
        Table::Deploy,
        "startupProbe",
        When::Always,
        "is not read, as on Railway: `healthcheckPath` and `healthcheckTimeout` are",
    ),
    (
        Table::Deploy,
        "envs",
        When::Always,
        "is not read, as on Railway: `trackbed variables set` sets variables",
    ),
    (
        Table::Deploy,
        "envVars",
        When::Always,
        "is not read, as on Railway: `trackbed variables set` sets variables",
    ),
    (
        Table::Containers,
        "diskBytes",
        When::Always,
        "is not a limit here; `trackbed volume limit` bounds a volume",
    ),
];

/// Returns the keys of a table that are told.
pub(crate) fn keys(table: Table) -> Vec<&'static str> {
    NOTES.iter().filter(|(of, ..)| *of == table).map(|(_, key, ..)| *key).collect()
}

/// Says of each such key what happens instead.
pub(crate) fn tell(file: File<'_>, node: &Node, table: Table, draft: &mut Draft) {
    let prefix = match table {
        Table::Build => "build.",
        Table::Deploy => "deploy.",
        Table::Containers => "deploy.limitOverride.containers.",
    };
    for (_, key, when, what) in NOTES.iter().filter(|(of, ..)| *of == table) {
        let Some(member) = node.member(key).filter(|member| is_told(*when, member)) else { continue };
        // What stands in a sentence of its own begins with a colon.
        let link = if what.starts_with("is ") || what.starts_with("means ") { " " } else { ": " };
        draft.warn(file.name, Some(member.place.line), format!("`{prefix}{key}`{link}{what}"));
    }
}

fn is_told(when: When, member: &Member) -> bool {
    let number = match &member.node.value {
        Value::Number(text) | Value::Text(text) => text.trim().parse::<f64>().ok(),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Table(_) => None,
    };
    match when {
        When::Always => true,
        When::True => member.node.value != Value::Bool(false),
        When::NotZero => number != Some(0.0),
        When::Several => !number.is_some_and(|number| number <= 1.0),
    }
}

//! From the domain of data to the wire: restore points, differences, databases. Nothing is decided here.

use serde_json::{Value as Json, json};
use trackbed_api as wire;
use trackbed_control::WayBack;
use trackbed_core::VolumeId;
use trackbed_core::deployment::Deployment;
use trackbed_core::restore_point::{
    Consistency, DatabaseContent, Difference, PointReason, Proof, ProofVerdict, RestorePoint,
};
use trackbed_volume::inspect::{Answer, Value};
use trackbed_volume::{Entry, EntryKind, EntryUse, FoundDatabase};

/// Converts a point of a volume of this name, whose data a release of this label wrote.
pub(crate) fn point(point: RestorePoint, volume: String, release: Option<String>) -> wire::RestorePoint {
    let (why, deployment, schedules) = match point.reason {
        PointReason::Deployment { deployment } => ("deployment", Some(deployment.to_string()), Vec::new()),
        PointReason::Schedule { schedules } => {
            let words = schedules.iter().map(|schedule| schedule.as_str().to_owned());
            ("schedule", None, words.collect())
        }
        PointReason::Command => ("command", None, Vec::new()),
        PointReason::Look => ("look", None, Vec::new()),
        PointReason::BeforeRestore { deployment } => {
            ("before-restore", Some(deployment.to_string()), Vec::new())
        }
    };
    wire::RestorePoint {
        id: point.id.to_string(),
        volume,
        taken_at: point.taken_at.0,
        why: why.into(),
        deployment,
        schedules,
        release,
        consistency: match point.capture.consistency {
            Consistency::Instant => "instant",
            Consistency::PerDatabase => "per-database",
        }
        .into(),
        pause_ms: point.capture.pause_ms,
        files: point.capture.files,
        bytes: point.capture.bytes,
        stored_bytes: point.capture.stored_bytes,
        databases: point.capture.databases,
        skipped: point.capture.skipped,
        proof: point.proof.map(proof),
    }
}

fn proof(proof: Proof) -> wire::Proof {
    let (at, took_ms) = (proof.at.0, proof.took_ms);
    match proof.verdict {
        ProofVerdict::Proven { databases, rows } => {
            wire::Proof { at, took_ms, proven: true, undecided: false, databases, rows, reason: None }
        }
        ProofVerdict::Unknown { reason } => wire::Proof {
            at,
            took_ms,
            proven: false,
            undecided: true,
            databases: 0,
            rows: 0,
            reason: Some(reason),
        },
        ProofVerdict::Broken { reason } => wire::Proof {
            at,
            took_ms,
            proven: false,
            undecided: false,
            databases: 0,
            rows: 0,
            reason: Some(reason),
        },
    }
}

/// Converts what going back would change.
pub(crate) fn way_back(way: WayBack, release: Option<String>) -> wire::Difference {
    let volume = way.volume.name.to_string();
    wire::Difference { point: point(way.point, volume, release), changes: changes(&way.difference) }
}

fn changes(difference: &Difference) -> wire::Changes {
    wire::Changes {
        added: difference.added,
        changed: difference.changed,
        missing: difference.missing,
        paths: difference.paths.clone(),
        tables: difference
            .tables
            .iter()
            .map(|table| wire::TableDifference {
                database: table.database.clone(),
                table: table.table.clone(),
                rows_now: table.rows_now,
                rows_then: table.rows_then,
            })
            .collect(),
    }
}

/// What a deployment does and did with data.
pub(crate) struct DataOfDeployment {
    pub(crate) pins: Vec<wire::Pin>,
    pub(crate) restores: Vec<wire::RestoredVolume>,
    pub(crate) replaced: Vec<wire::ReplacedData>,
    pub(crate) adopts: Option<wire::Adoption>,
}

/// Converts what a deployment does with data; `name_of` knows the names of volumes.
pub(crate) fn data_of(deployment: &Deployment, name_of: impl Fn(&VolumeId) -> String) -> DataOfDeployment {
    let pins = deployment.pins.iter().map(|pin| wire::Pin {
        volume: name_of(&pin.volume),
        point: pin.point.to_string(),
        taken: pin.capture.is_some(),
        pause_ms: pin.capture.as_ref().map_or(0, |capture| capture.pause_ms),
        bytes: pin.capture.as_ref().map_or(0, |capture| capture.bytes),
        stored_bytes: pin.capture.as_ref().map_or(0, |capture| capture.stored_bytes),
    });
    let restores = deployment
        .restore
        .iter()
        .map(|wish| wire::RestoredVolume { volume: name_of(&wish.volume), point: wish.point.to_string() });
    let replaced = deployment.replaced.iter().map(|replaced| {
        let pin = deployment.pins.iter().find(|pin| pin.volume == replaced.volume);
        wire::ReplacedData {
            volume: name_of(&replaced.volume),
            changes: changes(&replaced.difference),
            kept_in: pin.filter(|pin| pin.capture.is_some()).map(|pin| pin.point.to_string()),
        }
    });
    DataOfDeployment {
        pins: pins.collect(),
        restores: restores.collect(),
        replaced: replaced.collect(),
        adopts: deployment
            .adopt
            .as_ref()
            .map(|adopt| wire::Adoption { paths: adopt.paths.clone(), volume: name_of(&adopt.volume) }),
    }
}

/// Converts what a database of a point holds.
pub(crate) fn database(found: DatabaseContent, point: &RestorePoint, volume: String) -> wire::Database {
    let tables = found.tables.into_iter();
    wire::Database {
        volume,
        path: found.path,
        journal_mode: found.journal_mode,
        sqlite_version: found.sqlite_version,
        tables: tables.map(|table| wire::Table { name: table.name, rows: table.rows }).collect(),
        unreadable: found.unreadable,
        point: point.id.to_string(),
        taken_at: point.taken_at.0,
    }
}

/// Converts the values of an answer.
pub(crate) fn rows(answer: &Answer) -> Vec<Vec<Json>> {
    let value = |value: &Value| match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Blob { bytes, head } => json!({ "blob": head, "bytes": bytes }),
    };
    answer.rows.iter().map(|row| row.iter().map(value).collect()).collect()
}

pub(crate) fn entry(entry: Entry) -> wire::FileEntry {
    wire::FileEntry {
        path: entry.path,
        kind: kind(entry.kind),
        size_bytes: entry.size_bytes,
        modified_at: entry.modified_at,
    }
}

pub(crate) fn entry_use(entry: EntryUse) -> wire::EntryUsage {
    let EntryUse { path, kind: what, used_bytes, files } = entry;
    wire::EntryUsage { path, kind: kind(what), used_bytes, files }
}

pub(crate) fn found_database(found: FoundDatabase) -> wire::DatabaseSeen {
    let FoundDatabase { path, journal_mode, sqlite_version, size_bytes } = found;
    wire::DatabaseSeen { path, journal_mode, sqlite_version, size_bytes }
}

fn kind(kind: EntryKind) -> String {
    match kind {
        EntryKind::File => "file",
        EntryKind::Folder => "dir",
        EntryKind::Link => "link",
        EntryKind::Other => "other",
    }
    .into()
}

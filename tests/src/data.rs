//! Restore points by the box's own commands, and what lies in volumes and in the store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Output, TestBox};

/// The only volume of most test services.
const VOLUME: &str = "data";

impl TestBox {
    /// Takes a restore point of a service's volume `data`.
    pub fn snapshot(&self, service: &str) -> Value {
        let taken = self.try_snapshot(service);
        taken.unwrap_or_else(|output| panic!("no snapshot: {output:?}\nserve: {}", self.serve_log()))
    }

    /// Takes a restore point, or returns what was said instead.
    pub fn try_snapshot(&self, service: &str) -> Result<Value, Output> {
        let output = self.trackbed(&["volume", "snapshot", VOLUME, "--json", "--service", service]);
        let said = serde_json::from_str::<Value>(&output.stdout).unwrap_or_default();
        let point = said.as_array().and_then(|points| points.first()).unwrap_or(&said).clone();
        if output.code == 0 && point["id"].is_string() { Ok(point) } else { Err(output) }
    }

    /// Returns the restore points of a service's volume `data`, newest first.
    pub fn points(&self, service: &str) -> Vec<Value> {
        let points = self.json(&["volume", "points", VOLUME, "--json", "--service", service]);
        points.as_array().cloned().unwrap_or_else(|| panic!("not a list: {points}"))
    }

    /// Asks for a restore in place, with further arguments.
    pub fn restore(&self, service: &str, at: &str, arguments: &[&str]) -> Output {
        let restore = ["volume", "restore", VOLUME, "--at", at, "--service", service];
        self.trackbed(&[&restore[..], arguments].concat())
    }

    /// Restores a point, verified, into a new volume and returns the folder of that.
    pub fn restore_to(&self, service: &str, at: &str, name: &str) -> PathBuf {
        let output = self.restore(service, at, &["--to", name]);
        assert_eq!(output.code, 0, "{at}: {output:?}\nserve: {}", self.serve_log());
        self.volume_folder(service, name)
    }

    /// Has a point proven and returns it with its proof.
    pub fn drill(&self, service: &str, at: &str) -> Value {
        self.json(&["volume", "verify", VOLUME, at, "--json", "--service", service])
    }

    /// Returns what the box says of a volume.
    pub fn volume(&self, service: &str, name: &str) -> Value {
        let volumes = self.json(&["volume", "list", "--json", "--service", service]);
        let found = volumes.as_array().and_then(|all| all.iter().find(|volume| volume["name"] == name));
        found.unwrap_or_else(|| panic!("no volume `{name}`: {volumes}")).clone()
    }

    /// Returns the folder in which a volume's files lie.
    pub fn volume_folder(&self, service: &str, name: &str) -> PathBuf {
        let id = self.volume(service, name)["id"].as_str().expect("a volume has an id").to_owned();
        self.data_dir().join("volumes").join(id).join("data")
    }

    /// Returns the newest deployment of a service.
    pub fn last_deployment(&self, service: &str) -> Value {
        self.json(&["deployments", "--service", service, "--json"])[0].clone()
    }

    /// Returns the files in which the store keeps the content of points.
    pub fn packs(&self) -> BTreeSet<PathBuf> {
        let folder = fs::read_dir(self.data_dir().join("snapshots/packs")).into_iter().flatten().flatten();
        let files = folder.map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|kind| kind == "pack")).collect()
    }
}

/// Changes one byte in the middle of a file.
pub fn flip_byte(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("our own file");
    let mut bytes = fs::read(file).expect("a readable file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).expect("our own file");
}

/// Returns how a time of the box, in milliseconds since 1970, is typed.
pub fn typed_time(milliseconds: i64) -> String {
    let (seconds, rest) = (milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000));
    let mut date = Command::new("date");
    let output = date.args(["--utc", "--date", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"]).output();
    let text = String::from_utf8_lossy(&output.expect("date runs").stdout).trim().to_owned();
    format!("{text}.{rest:03}Z")
}

/// Asks a database that no app has open, by the `sqlite3` program, one line a row.
pub fn sqlite(database: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(database).arg(sql).output().expect("sqlite3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {sql}: {said}", database.display());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

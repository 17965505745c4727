//! What a restored volume must hold.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trackbed_tests::wait_for;

use super::{SERVICE, Soak};

/// Content checks of one volume.
const LOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ledger/content.py");

/// What is known of a point.
pub(super) struct Claim {
    point: String,
    /// All transactions up to this one were acknowledged before the point was asked for.
    acknowledged: u64,
}

impl Soak {
    /// Remembers what a point claims, unless that is known.
    pub(super) fn claim(&mut self, point: &Value, acknowledged: u64) {
        let id = point["id"].as_str().expect("a point has an id").to_owned();
        if self.claims.iter().any(|claim| claim.point == id) {
            return;
        }
        assert_eq!(point["consistency"], "instant", "{point:#}");
        self.longest_pause_ms = self.longest_pause_ms.max(point["pause_ms"].as_u64().unwrap_or_default());
        self.claims.push(Claim { point: id, acknowledged });
    }

    /// Restores a random point, the newest more often than not, and holds it against its claim.
    pub(super) fn restore_one(&mut self, cycle: usize) {
        if self.claims.is_empty() {
            return;
        }
        let newest = self.claims.len() - 1;
        let chosen = if self.random.percent(60) { newest } else { self.random.below(self.claims.len()) };
        let (point, acknowledged) = (self.claims[chosen].point.clone(), self.claims[chosen].acknowledged);
        let scratch = format!("scratch-{cycle}");
        let folder = self.town.restore_to(SERVICE, &point, &scratch);
        self.check(&folder, &point, acknowledged);
        self.restored += 1;
        self.rows_held += acknowledged;
        let remove = || self.town.trackbed(&["volume", "remove", &scratch, "--yes", "--service", SERVICE]);
        if remove().code == 0 {
            return;
        }
        // The app was started again since, and mounts whatever its service has.
        for deed in ["down", "remove", "restart"] {
            let done = match deed {
                "remove" => remove(),
                _ => self.town.trackbed(&[deed, "--service", SERVICE]),
            };
            assert_eq!(done.code, 0, "{deed}: {done:?}\n{}", self.town.serve_log());
        }
    }

    /// Ends the app and looks at its own volume: nothing that was acknowledged is missing there either.
    pub(super) fn check_live(&mut self, acknowledged: u64) {
        let down = self.town.trackbed(&["down", "--service", SERVICE]);
        assert_eq!(down.code, 0, "{down:?}");
        wait_for("no app", Duration::from_secs(20), || self.town.living_instances().is_empty());
        let folder: PathBuf = self.town.volume_folder(SERVICE, "data");
        self.check(&folder, "the volume itself", acknowledged);
    }

    fn check(&self, folder: &Path, what: &str, acknowledged: u64) {
        let looked =
            Command::new("python3").arg(LOOK).arg(folder).env("PYTHONDONTWRITEBYTECODE", "1").output();
        let looked = looked.expect("python3 runs");
        let said = String::from_utf8_lossy(&looked.stderr);
        assert!(looked.status.success(), "{what}: {said}");
        let found: Value = serde_json::from_slice(&looked.stdout).expect("JSON");
        assert_eq!(found["wrong"], Value::Array(Vec::new()), "{what}: {found:#}");
        let last = found["last"].as_u64().expect("a number");
        assert!(
            last >= acknowledged,
            "{what}: {} acknowledged transactions are missing: {last} of {acknowledged}",
            acknowledged - last
        );
    }
}

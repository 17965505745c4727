//! What must have been true all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use trackbed_tests::{Load, Writers};

use super::{Chaos, HELD};

impl Chaos {
    pub(super) fn report(&self) -> String {
        let edge_log = std::fs::read_to_string(self.town.data_dir().join("edge.log")).unwrap_or_default();
        format!("round {} of {}; the edge said:\n{edge_log}", self.round, self.name)
    }

    /// Checks what must have been true all the while.
    pub(super) fn end(mut self, load: Load, writers: Writers) {
        let seen = load.end();
        let watched = writers.end();
        eprintln!(
            "{}: {} kills {:?} in {} rounds, {} s; {} deployments, {} failed; {} requests, {} acknowledged, {} \
             failed; {} streams, {} messages; slowest answer {:?}; {} looks at writers, {} at two instances",
            self.name,
            self.killed(),
            self.kills,
            self.round,
            self.began.elapsed().as_secs(),
            self.known.len(),
            self.failed_deployments,
            seen.requests,
            seen.acknowledged.len(),
            seen.failures.len(),
            seen.streams,
            seen.messages,
            seen.slowest,
            watched.looks,
            watched.close,
        );
        let mut last = BTreeMap::new();
        for failed in &seen.failures {
            // The latest kill that explains it.
            if let Some(window) = self.windows.iter().rfind(|window| window.explains(failed)) {
                let after = failed.ended.saturating_duration_since(window.from);
                let longest = last.entry(window.victim).or_insert(after);
                *longest = after.max(*longest);
            }
        }
        eprintln!("{}: the last failures came so long after kills: {last:?}", self.name);
        let unexplained: Vec<String> = seen
            .failures
            .iter()
            .filter(|failed| !self.windows.iter().any(|window| window.explains(failed)))
            .map(|failed| {
                let ago = |at: Instant| at.saturating_duration_since(self.began).as_millis();
                format!(
                    "{} from {} to {} ms: {}",
                    failed.service,
                    ago(failed.began),
                    ago(failed.ended),
                    failed.what
                )
            })
            .collect();
        assert_eq!(unexplained, Vec::<String>::new(), "{}", self.report());
        assert_eq!(seen.wrong, Vec::<String>::new());
        assert_eq!(watched.violations, Vec::<String>::new());
        assert!(watched.looks > 100, "the writers were hardly looked at: {watched:?}");

        let through_app = self.town.get(HELD, "/keys");
        let mut through_app: Vec<String> = serde_json::from_str(&through_app.body).expect("JSON");
        let down = self.town.trackbed(&["down", "--service", HELD]);
        assert_eq!(down.code, 0, "{down:?}");
        let (mut on_disk, violations) = self.on_volume();
        assert_eq!(violations, "", "the apps saw each other");
        through_app.sort();
        on_disk.sort();
        assert_eq!(through_app, on_disk);
        let once: BTreeSet<&String> = on_disk.iter().collect();
        assert_eq!(once.len(), on_disk.len(), "a row was inserted twice");
        let acknowledged = seen.acknowledged.iter().filter(|(service, _)| service == HELD);
        let lost: Vec<&String> = acknowledged.map(|(_, key)| key).filter(|key| !once.contains(key)).collect();
        assert_eq!(lost, Vec::<&String>::new(), "acknowledged, and lost");
        let left = self.town.end();
        assert_eq!(left.0, Vec::<String>::new(), "the box left something behind");
    }

    /// What stands in the database and in the file of violations, read without the app.
    fn on_volume(&self) -> (Vec<String>, String) {
        let volumes = std::fs::read_dir(self.town.data_dir().join("volumes")).expect("volumes");
        let volumes: Vec<_> = volumes.map(|entry| entry.expect("a volume").path().join("data")).collect();
        let [volume] = &volumes[..] else { panic!("one volume, not {volumes:?}") };
        let code = "import sqlite3, sys\nassert sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchall() \
                    == [('ok',)]\nfor (key,) in sqlite3.connect(sys.argv[1]).execute('SELECT key FROM rows'): print(key)";
        let read = Command::new("python3").arg("-c").arg(code).arg(volume.join("app.db")).output();
        let read = read.expect("python3 runs");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let keys = String::from_utf8_lossy(&read.stdout).lines().map(str::to_owned).collect();
        (keys, std::fs::read_to_string(volume.join("violations")).unwrap_or_default())
    }
}

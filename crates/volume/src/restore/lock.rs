//! Taking the lock of a volume or a stage for a moment, and saying who has it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::Flock;
use serde::Deserialize;
use trackbed_core::ports::PortError;
use trackbed_stdx::files;

/// Longest record of a holder that is read.
const RECORD_BYTES: u64 = 64 * 1024;

/// What the holder of a lock writes into it, as far as it is of interest here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Holder {
    title: String,
    instance: String,
}

/// How often a lock is asked for. Who only wants to know who holds it takes it for a moment, which is waited out.
const ATTEMPTS: u32 = 50;
/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// Takes a lock, or nothing when somebody has it for longer than a moment.
pub(crate) fn take_free(lock: &Path) -> io::Result<Option<Flock<File>>> {
    for _ in 1..ATTEMPTS {
        if let Some(taken) = files::try_lock(lock)? {
            return Ok(Some(taken));
        }
        std::thread::sleep(PAUSE);
    }
    files::try_lock(lock)
}

/// Takes a lock that nobody else may have.
pub(crate) fn take(lock: &Path, what: &str) -> Result<Flock<File>, PortError> {
    match take_free(lock) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => {
            let holder = holder(lock);
            let by = match (holder.title.as_str(), holder.instance.as_str()) {
                ("", _) => "another process".to_owned(),
                (title, instance) => format!("{title} ({instance})"),
            };
            Err(PortError::new(format!("{what} is in use by {by}")).hint("it has to be stopped first"))
        }
        Err(error) => Err(PortError::new(format!("cannot lock {what}: {}: {error}", lock.display()))),
    }
}

/// Returns whether an instance has ever had a lock.
pub(super) fn was_held(lock: &Path) -> bool {
    std::fs::metadata(lock).is_ok_and(|metadata| metadata.len() > 0)
}

fn holder(lock: &Path) -> Holder {
    let mut text = Vec::new();
    let read = File::open(lock).and_then(|file| {
        use io::Read;
        file.take(RECORD_BYTES).read_to_end(&mut text)
    });
    match read {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Holder::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_looked_at_for_a_moment_is_waited_out_and_one_that_is_held_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let looked = files::try_lock(&path).unwrap().unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3);
            drop(looked);
        });
        let held = take(&path, "volume `data`").unwrap();
        looking.join().unwrap();
        let error = take(&path, "volume `data`").unwrap_err();
        assert!(error.message.contains("volume `data` is in use by another process"), "{error}");
        drop(held);
    }
}

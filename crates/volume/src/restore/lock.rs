//! Taking the lock of a volume or a stage for a moment, and saying who has it.

use std::fs::File;
use std::path::Path;

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

/// Takes a lock that nobody else may have.
pub(crate) fn take(lock: &Path, what: &str) -> Result<Flock<File>, PortError> {
    match files::try_lock(lock) {
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
        use std::io::Read;
        file.take(RECORD_BYTES).read_to_end(&mut text)
    });
    match read {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Holder::default(),
    }
}

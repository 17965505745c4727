//! SQLite's own backup of a database that its app uses at this moment, in one go: a writer makes one in parts start over
//! for ever.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{confine, database};

/// Time between two attempts while the app holds its database.
const PAUSE: Duration = Duration::from_millis(20);

/// Copies a database that is in use into a file that is made beforehand. As root, with the rights of the owner of the
/// database from the moment on that both are opened.
pub(super) fn run(from: &Path, to: &Path, patience: Duration) -> Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: rusqlite::Error| format!("{what}: {}", database::explain(&error))
    };
    let owner = std::fs::symlink_metadata(from).map_err(|error| error.to_string())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let target_flags = flags | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target =
        Connection::open_with_flags(to, target_flags).map_err(failed("cannot write the copy"))?;
    target.pragma_update(None, "journal_mode", "OFF").map_err(failed("cannot write the copy"))?;
    target.pragma_update(None, "synchronous", "OFF").map_err(failed("cannot write the copy"))?;
    confine::become_owner(owner.uid(), owner.gid()).map_err(|error| error.to_string())?;
    let source_flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let source = Connection::open_with_flags(from, source_flags).map_err(failed("cannot read it"))?;
    source.busy_timeout(patience).map_err(failed("cannot read it"))?;
    source
        .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed("cannot read it"))?;
    let backup = Backup::new(&source, &mut target).map_err(failed("cannot begin"))?;
    let end = Instant::now() + patience;
    loop {
        match backup.step(-1).map_err(failed("cannot copy"))? {
            StepResult::Done => return Ok(()),
            _ if Instant::now() > end => {
                return Err(format!("somebody has kept it locked for {} s", patience.as_secs()));
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
}

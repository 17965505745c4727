//! What survives the process: the table in force and the address that was bound, so that a restarted edge goes on
//! exactly there while nobody talks to it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use trackbed_core::route::RouteTable;
use trackbed_stdx::files::write_atomic;

use crate::error::EdgeError;

/// The files in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    routes: PathBuf,
    listen: PathBuf,
    lock: PathBuf,
}

impl Snapshot {
    /// Makes the directory when absent.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, EdgeError> {
        std::fs::create_dir_all(state_dir).map_err(|error| EdgeError::state(state_dir, error))?;
        Ok(Self {
            routes: state_dir.join("routes.json"),
            listen: state_dir.join("listen"),
            lock: state_dir.join("lock"),
        })
    }

    /// Takes the lock of the directory; none when another edge has it. It belongs to the open file, not to the process
    /// (flock(2)): it lasts until every copy of the returned file is closed, in whichever process.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn try_lock(&self) -> Result<Option<File>, EdgeError> {
        let locked = (|| {
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.lock)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        })();
        locked.map_err(|error| EdgeError::state(&self.lock, error))
    }

    /// Returns whether a file is the lock of this directory.
    pub(crate) fn is_lock(&self, file: &File) -> bool {
        let (Ok(here), Ok(there)) = (std::fs::metadata(&self.lock), file.metadata()) else { return false };
        (here.dev(), here.ino()) == (there.dev(), there.ino())
    }

    /// Returns the last table; an empty one at the very first start. A file that cannot be read is told and left alone
    /// until the next table: serving nothing for a moment is better than not starting.
    pub(crate) fn load_routes(&self) -> RouteTable {
        let read = match std::fs::read(&self.routes) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return RouteTable::default(),
            Err(error) => Err(error),
        };
        read.unwrap_or_else(|error| {
            tracing::error!(path = %self.routes.display(), %error, "cannot restore routes");
            RouteTable::default()
        })
    }

    /// Keeps a table.
    ///
    /// # Errors
    /// When the disk refuses; the old one is kept then.
    pub(crate) fn store_routes(&self, table: &RouteTable) -> io::Result<()> {
        write_atomic(&self.routes, &serde_json::to_vec(table)?, 0o600)
    }

    /// Returns the address bound last time.
    pub(crate) fn find_listen(&self) -> Option<SocketAddr> {
        std::fs::read_to_string(&self.listen).ok()?.trim().parse().ok()
    }

    /// Keeps the address bound now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn store_listen(&self, address: SocketAddr) -> Result<(), EdgeError> {
        let text = format!("{address}\n");
        write_atomic(&self.listen, text.as_bytes(), 0o600)
            .map_err(|error| EdgeError::state(&self.listen, error))
    }
}

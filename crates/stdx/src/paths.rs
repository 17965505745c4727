//! Where sockets go: below the data directory when the name fits into a socket address, else in a private folder in /tmp.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, without its final NUL (unix(7): `sun_path` has 108 bytes).
const SOCKET_PATH_MAX: usize = 107;
/// The longest file name that is put into [`run_dir`]: an instance's id and `.sock`.
const LONGEST_NAME: usize = 32;

/// Returns the folder for sockets of a data directory. The same data directory always gives the same folder.
pub fn run_dir(data_dir: &Path) -> PathBuf {
    let within = data_dir.join("run");
    if within.as_os_str().len() + 1 + LONGEST_NAME <= SOCKET_PATH_MAX {
        return within;
    }
    let user = nix::unistd::getuid();
    PathBuf::from(format!("/tmp/trackbed-{user}-{}", tag(data_dir)))
}

/// Returns the API's socket of a data directory.
pub fn api_socket(data_dir: &Path) -> PathBuf {
    run_dir(data_dir).join("api.sock")
}

/// Makes the folder for sockets, private to this user.
///
/// # Errors
/// When it cannot be made, or somebody else has made it.
pub fn ensure_run_dir(data_dir: &Path) -> io::Result<PathBuf> {
    let folder = run_dir(data_dir);
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(&folder)?;
    let ours = metadata.is_dir() && metadata.uid() == nix::unistd::getuid().as_raw();
    match ours {
        true => Ok(folder),
        false => Err(io::Error::other(format!("{} belongs to somebody else", folder.display()))),
    }
}

/// Returns eight hex digits that stand for a path: FNV-1a, stable across versions and machines.
pub fn tag(path: &Path) -> String {
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_fit_whatever_the_data_directory() {
        let deep = PathBuf::from(format!("/home/{}/data", "x".repeat(200)));
        for data_dir in [PathBuf::from("/var/lib/trackbed"), deep] {
            assert!(run_dir(&data_dir).as_os_str().len() + 1 + LONGEST_NAME <= SOCKET_PATH_MAX);
        }
        assert_eq!(api_socket(Path::new("/var/lib/trackbed")), Path::new("/var/lib/trackbed/run/api.sock"));
    }
}

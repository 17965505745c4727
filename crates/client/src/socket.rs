//! Where the socket of a box lies.
// NOTE(integrator): both functions belong into `trackbed_stdx::paths`; the server must find the same path byte for byte.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest socket path in bytes that we use: sun_path holds 108 with its end (unix(7)), and some room is left.
const SOCKET_PATH_MAX_BYTES: usize = 100;

/// Returns the path of the API socket of the box that keeps its data in `data_dir`, which should be absolute.
///
/// It is `trackbed.sock` in that folder, or, when that path would be too long for a socket, in a folder below `/tmp`
/// that is named by user and data folder.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    let inside = data_dir.join("trackbed.sock");
    if inside.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
        return inside;
    }
    let hash = fnv1a(data_dir.as_os_str().as_bytes());
    PathBuf::from(format!("/tmp/trackbed-{}-{hash:08x}/trackbed.sock", user_id()))
}

/// Returns the effective user id of this process, as proc(5) tells it.
pub fn user_id() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    line.and_then(|ids| ids.split_whitespace().nth(1)).and_then(|id| id.parse().ok()).unwrap_or(0)
}

/// 32-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_data_folder_holds_its_socket() {
        assert_eq!(socket_path(Path::new("/var/lib/trackbed")), Path::new("/var/lib/trackbed/trackbed.sock"));
    }

    #[test]
    fn a_long_data_folder_has_its_socket_below_tmp() {
        let folder = |tail: &str| PathBuf::from(format!("/{}/{tail}", "x".repeat(95)));
        let (one, two) = (socket_path(&folder("one")), socket_path(&folder("two")));
        assert!(one.starts_with("/tmp") && one.as_os_str().len() <= SOCKET_PATH_MAX_BYTES);
        assert_ne!(one, two);
        assert_eq!(one, socket_path(&folder("one")));
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}

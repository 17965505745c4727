//! Paths that stay beneath a folder, whatever stands in them and whoever swaps a folder for a link at this moment.
//! What is made there belongs to the owner of that folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat, unlinkat};
use rustix::io::Errno;

/// Longest name of a file on Linux.
const NAME_MAX: usize = 255;

/// Takes a relative path apart.
///
/// # Errors
/// When it is absolute, empty, climbs, or has a part that is none of a path: `.`, an empty one, one with a zero byte.
pub(crate) fn parts(path: &[u8]) -> io::Result<Vec<OsString>> {
    let refuse = |why: &str| {
        let told: String = String::from_utf8_lossy(path).chars().take(NAME_MAX).collect();
        io::Error::new(io::ErrorKind::InvalidInput, format!("`{told}` {why}"))
    };
    if path.first().is_none_or(|first| *first == b'/') {
        return Err(refuse("is no path within a volume"));
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b".." => return Err(refuse("leaves the volume")),
            b"" | b"." => return Err(refuse("is not normalised")),
            _ if part.contains(&0) || part.len() > NAME_MAX => {
                return Err(refuse("has a name that no file has"));
            }
            _ => parts.push(OsStr::from_bytes(part).to_owned()),
        }
    }
    Ok(parts)
}

/// Opens a folder itself; a link is refused.
pub(crate) fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, FOLDER, Mode::empty())?)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder beneath another, step by step, over no link.
pub(crate) fn descend(root: impl AsFd, parts: &[OsString]) -> io::Result<OwnedFd> {
    let mut at = root.as_fd().try_clone_to_owned()?;
    for part in parts {
        at = openat(&at, part.as_os_str(), FOLDER, Mode::empty()).map_err(|errno| {
            let why = match errno {
                Errno::LOOP | Errno::NOTDIR => "is not a folder".to_owned(),
                Errno::NOENT => "is not in the volume".to_owned(),
                other => io::Error::from(other).to_string(),
            };
            io::Error::new(io::Error::from(errno).kind(), format!("`{}` {why}", part.display()))
        })?;
    }
    Ok(at)
}

/// Opens a folder beneath another, and makes what is missing on the way, durably. Returns also how many were made.
pub(crate) fn make_folders(
    root: &OwnedFd,
    parts: &[OsString],
    owner: (Uid, Gid),
) -> io::Result<(OwnedFd, usize)> {
    let (mut at, mut made) = (root.try_clone()?, 0);
    for part in parts {
        let is_new = match mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let below = descend(&at, std::slice::from_ref(part))?;
        if is_new {
            give_to(&below, owner)?;
            sync(&at)?;
            made += 1;
        }
        at = below;
    }
    Ok((at, made))
}

/// Removes the deepest so many folders of a path, as far as they are empty.
pub(crate) fn remove_folders(root: &OwnedFd, parts: &[OsString], count: usize) {
    for length in (parts.len().saturating_sub(count)..parts.len()).rev() {
        let Ok(above) = descend(root, &parts[..length]) else { return };
        if unlinkat(&above, parts[length].as_os_str(), AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}

/// As an ordinary user everything is ours anyway.
pub(crate) fn give_to(file: impl AsFd, (uid, gid): (Uid, Gid)) -> io::Result<()> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(fchown(file, Some(uid), Some(gid))?),
        false => Ok(()),
    }
}

pub(crate) fn sync(folder: &OwnedFd) -> io::Result<()> {
    File::from(folder.try_clone()?).sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_taken() {
        assert_eq!(parts(b"a/b c/\xff").unwrap().len(), 3);
        let long = vec![b'x'; 256];
        let bad: [&[u8]; 10] =
            [b"", b"/", b"/etc/passwd", b"..", b"a/../b", b"a//b", b"a/", b"./a", b"a/.", b"a\0b"];
        for bad in bad.into_iter().chain([long.as_slice()]) {
            assert!(parts(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("a/out")).unwrap();
        let root = super::folder(folder.path()).unwrap();
        assert!(descend(&root, &parts(b"a/b").unwrap()).is_ok());
        let error = descend(&root, &parts(b"a/out").unwrap()).unwrap_err();
        assert!(error.to_string().contains("`out` is not a folder"), "{error}");
    }
}

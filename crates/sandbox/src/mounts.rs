//! Mounts by descriptor: taken while the box's tree is in sight, placed when only the sandbox's tree is, so that no
//! symbolic link of an image can lead a mount out of it.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
pub(crate) const RDONLY: u64 = 1;
pub(crate) const NOSUID: u64 = 2;
pub(crate) const NODEV: u64 = 4;
const IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn checked(result: libc::c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

/// Takes a copy of the mounts at a path, with everything below, and adds attributes to all of them.
pub(crate) fn take(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
    // SAFETY: the path is a C string that outlives the call.
    let fd = checked(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel just made this descriptor for us alone.
    let mount = unsafe { OwnedFd::from_raw_fd(fd) };
    if attributes != 0 {
        set(&mount, &MountAttr { set: attributes, clear: 0, propagation: 0, userns: 0 }, AT_RECURSIVE)?;
    }
    Ok(mount)
}

/// Shows the files of `from` (user and group id) as files of `to`. Root and everybody in `same` stay who they are.
pub(crate) fn shift_owner(mount: &OwnedFd, userns: &OwnedFd) -> io::Result<()> {
    let userns = userns.as_raw_fd() as u64;
    set(mount, &MountAttr { set: IDMAP, clear: 0, propagation: 0, userns }, 0)
}

fn set(mount: &OwnedFd, attributes: &MountAttr, flags: libc::c_uint) -> io::Result<()> {
    let empty = c"".as_ptr();
    let flags = flags | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: the descriptor is open, the path is a C string, the struct has the size that is passed.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty,
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Places a mount that was taken.
pub(crate) fn place(mount: &OwnedFd, at: &Path) -> io::Result<()> {
    let at = c_path(at)?;
    // SAFETY: both paths are C strings that outlive the call, the descriptor is open.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            at.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Makes a user namespace that maps ids, held by its descriptor alone. Maps have lines `inside outside count`. `proc` is a
/// /proc of the caller's own pid namespace.
pub(crate) fn id_map(proc: &Path, users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (wait, release) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: clone without a new stack behaves like fork, and this process has one thread.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if pid == 0 {
        drop(release);
        let mut byte = 0u8;
        // SAFETY: reads at most one byte into a place for one, then ends without running destructors.
        unsafe {
            libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    let proc = proc.join(pid.to_string());
    let made = write_file(proc.join("uid_map"), users)
        .and_then(|()| write_file(proc.join("gid_map"), groups))
        .and_then(|()| fs::File::open(proc.join("ns/user")));
    drop(release);
    crate::process::wait_for(pid)?;
    Ok(made?.into())
}

/// Writes a file of the kernel: one write, nothing to make atomic.
pub(crate) fn write_file(path: impl AsRef<Path>, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

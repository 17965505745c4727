//! What the process gives up before it reads the first byte of a database: rights, sight, memory and its life without
//! the one who asked.

use std::io::{self, BufRead};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid};
use rustix::process::{Resource, Rlimit, Signal};

/// Memory of its own. SQLite is kept to less (`database.rs`); the rest is the program, its stacks and a row.
const MEMORY_BYTES: u64 = 1 << 30;
/// Address space: that, and what is mapped of a database by the two that read it.
const ADDRESS_BYTES: u64 = 4 << 30;
/// Open files: a database has three or four.
const FILES: u64 = 64;
/// How much others come first when nobody waits for the answer: all.
const NICENESS: i32 = 19;

/// Sets limits that hold for whatever follows.
pub(super) fn limit(low_priority: bool) -> io::Result<()> {
    let most = |most| Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(Resource::Data, most(MEMORY_BYTES))?;
    rustix::process::setrlimit(Resource::As, most(ADDRESS_BYTES))?;
    rustix::process::setrlimit(Resource::Nofile, most(FILES))?;
    rustix::process::setrlimit(Resource::Core, most(0))?;
    if low_priority {
        rustix::process::nice(NICENESS)?;
    }
    Ok(())
}

/// Enters a folder and, as root, sees nothing else from then on and has the rights of its owner.
pub(super) fn enter(folder: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(folder)?;
    std::env::set_current_dir(folder)?;
    if geteuid().is_root() {
        // A container may not allow it; the rights are given up all the same.
        if rustix::process::chroot(".").is_ok() {
            std::env::set_current_dir("/")?;
        }
    }
    become_owner(owner.uid(), owner.gid())
}

/// As root, has the rights of another user from then on.
pub(super) fn become_owner(uid: u32, gid: u32) -> io::Result<()> {
    if geteuid().is_root() && uid != 0 {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Ends the process when its standard input ends: whoever asked is gone.
pub(super) fn end_with_the_asker() {
    std::thread::spawn(|| {
        let mut input = io::stdin().lock();
        while let Ok(chunk) = input.fill_buf() {
            let count = chunk.len();
            if count == 0 {
                break;
            }
            input.consume(count);
        }
        // Nothing is to be put in order: what it writes is a copy, or has a journal.
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    });
}

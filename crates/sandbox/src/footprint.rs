//! Gives back memory while there is nothing to do. A shim and its init live as long as their app, and there are two for
//! each: what they needed to make the sandbox, or to write a burst of lines, must not count for all that time.

#![allow(unsafe_code)]

use std::ffi::c_void;

use nix::poll::{PollFd, PollTimeout, poll};

/// After this long without anything to do, code is given back.
const REST_MS: u16 = 2000;

/// Waits as poll(2) without a limit does, and gives the code back when nothing happens for [`REST_MS`].
pub(crate) fn poll_lightly(fds: &mut [PollFd<'_>]) -> nix::Result<i32> {
    match poll(fds, REST_MS)? {
        0 => {
            forget_code();
            poll(fds, PollTimeout::NONE)
        }
        ready => Ok(ready),
    }
}

/// Drops the pages of code and constants that are mapped now. Whatever is needed again is read in again, from the page
/// cache, which the processes of all instances share.
///
/// Only mappings that nobody can have written to are dropped: executable ones, and read-only ones at the beginning of
/// their file (program headers and constants). Relocated data is read-only too, but lies further on.
fn forget_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for mapping in maps.lines().filter_map(parse) {
        // SAFETY: the range is a whole mapping of this process, private, of a file, and never writable: its pages are
        // those of the file, and the next access reads the same bytes again (madvise(2), MADV_DONTNEED).
        unsafe { libc::madvise(mapping.start as *mut c_void, mapping.length, libc::MADV_DONTNEED) };
    }
}

struct Mapping {
    start: usize,
    length: usize,
}

/// Reads a line of proc_pid_maps(5) and returns the mapping when it may be dropped.
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let is_file = fields.nth(1).is_some_and(|inode| inode != "0");
    let is_constant = mode == "r-xp" || mode == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !is_file || !is_constant {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some(Mapping { start, length: end.checked_sub(start)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_been_written_is_dropped() {
        let dropped = |line: &str| parse(line).is_some();
        assert!(dropped("55d0-55e0 r-xp 00001000 fe:00 1234 /usr/bin/x"));
        assert!(dropped("55d0-55e0 r--p 00000000 fe:00 1234 /usr/bin/x"));
        assert!(!dropped("55d0-55e0 r--p 00009000 fe:00 1234 /usr/bin/x"), "relocated data");
        assert!(!dropped("55d0-55e0 rw-p 00000000 fe:00 1234 /usr/bin/x"));
        assert!(!dropped("7ffe-7fff r-xp 00000000 00:00 0 [vdso]"));
    }

    #[test]
    fn the_program_goes_on_after_forgetting() {
        let before = format!("{:?}", std::time::Duration::from_millis(1500));
        forget_code();
        assert_eq!(format!("{:?}", std::time::Duration::from_millis(1500)), before);
    }
}

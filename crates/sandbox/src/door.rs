//! The way in to an instance that has a network of its own on a box that an ordinary user runs: nobody else there may
//! enter that network. A process of ours listens on the box's loopback and passes on what comes, and nothing goes out.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use trackbed_core::isolation::IsolationLevel;

use crate::launch;
use crate::records::Order;
use crate::tree::{Named, Step};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// A connection on which nothing is said for so long is closed.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 16 << 10;

/// Returns whether an instance has such a door: the only way to reach it, at the one port that it was told.
pub(crate) fn is_needed(order: &Order) -> bool {
    order.offline && order.level == IsolationLevel::Userns && !nix::unistd::geteuid().is_root()
}

/// Opens the door of an instance whose init waits in its namespaces. The process ends with the shim that calls this.
pub(crate) fn open(order: &Order, init: i32) -> Step<()> {
    let Some(port) = order.port.filter(|_| is_needed(order)) else { return Ok(()) };
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(at).step(|| format!("listen on {at} for the instance"))?;
    let namespace = |name: &str| File::open(format!("/proc/{init}/ns/{name}"));
    let user = namespace("user").step(|| "open the user namespace".to_owned())?;
    let network = namespace("net").step(|| "open the network namespace".to_owned())?;
    // SAFETY: the shim has one thread, so its child may do anything that a new process may.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(format!("cannot fork: {}", io::Error::last_os_error()));
    }
    if pid == 0 {
        // SAFETY: integers only. Without the shim nobody may go on.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        let entered = setns(user, CloneFlags::CLONE_NEWUSER)
            .and_then(|()| setns(network, CloneFlags::CLONE_NEWNET))
            .map_err(io::Error::from)
            .and_then(|()| launch::keep_capabilities(0));
        if entered.is_ok() {
            serve(&only(listener), port);
        }
        // SAFETY: ends the child without running destructors of what the shim owns.
        unsafe { libc::_exit(1) };
    }
    Ok(())
}

/// Closes every other descriptor: the locks of volumes, and the line on which the control plane waits, must not live on
/// here.
fn only(listener: TcpListener) -> TcpListener {
    let fd = listener.into_raw_fd();
    // SAFETY: this child never touches what the shim owned again; descriptor 3 is then the listener, and ours alone.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..3 {
            libc::dup2(null, standard);
        }
        if fd != 3 {
            libc::dup2(fd, 3);
        }
        libc::syscall(libc::SYS_close_range, 4, libc::c_uint::MAX, 0);
        TcpListener::from_raw_fd(3)
    }
}

fn serve(listener: &TcpListener, port: u16) {
    let mut children = 0;
    launch::plain_signals();
    loop {
        while children > 0 {
            let flags = if children < CONNECTIONS { libc::WNOHANG } else { 0 };
            // SAFETY: waitpid with a null status pointer only reaps.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), flags) } <= 0 {
                break;
            }
            children -= 1;
        }
        let Ok((outside, _)) = listener.accept() else { continue };
        // SAFETY: one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: prctl with integers, and an end without destructors.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
                let _ = pass_on(&outside, port);
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            pid if pid > 0 => children += 1,
            _ => {}
        }
    }
}

/// Passes bytes both ways until both sides have ended, or nothing is said any more.
fn pass_on(outside: &TcpStream, port: u16) -> io::Result<()> {
    let inside = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), CONNECT_LIMIT)?;
    let ways = [(outside, &inside), (&inside, outside)];
    for (from, _) in ways {
        from.set_write_timeout(Some(SILENCE_LIMIT))?;
    }
    let mut is_open = [true; 2];
    let mut buffer = vec![0; CHUNK_BYTES];
    let limit = u16::try_from(SILENCE_LIMIT.as_millis()).unwrap_or(u16::MAX);
    while is_open.contains(&true) {
        let wanted = |open| if open { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(outside.as_fd(), wanted(is_open[0])),
            PollFd::new(inside.as_fd(), wanted(is_open[1])),
        ];
        if poll(&mut fds, limit)? == 0 {
            return Ok(());
        }
        let ready = fds.map(|fd| fd.any().unwrap_or(false));
        for (index, (mut from, mut to)) in ways.into_iter().enumerate() {
            if !is_open[index] || !ready[index] {
                continue;
            }
            match from.read(&mut buffer)? {
                0 => {
                    is_open[index] = false;
                    to.shutdown(Shutdown::Write)?;
                }
                length => to.write_all(&buffer[..length])?,
            }
        }
    }
    Ok(())
}

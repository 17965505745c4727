//! Init: pid 1 of a sandbox. Makes the inside, starts the app, passes signals on, reaps, ends with the app.
//!
//! The app is what its command's shell started, not the shell alone: a signal goes to every process of it, as systemd
//! does, and an asked-for end waits for all of them. A server with workers hears SIGTERM in each process then; gunicorn,
//! uvicorn and the like end gracefully from either side. Unasked, the instance ends with its main process, and those beside
//! it get a moment to finish what they do; one of them that ends is started again.
//!
//! It exists because an app that is pid 1 itself ignores SIGTERM. On levels without a pid namespace the same code runs as
//! a plain child that adopts orphans.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use trackbed_core::isolation::IsolationLevel;

use crate::footprint;
use crate::launch::{self, Restrictions};
use crate::netlink::Netlink;
use crate::records::Order;
use crate::side::{self, News, Sides};
use crate::tree::{Named, Step};
use crate::{apptree, filter, process, rules, sockets, tree};

/// How long processes beside a main one that crashed may take to end: callers wait for the next start.
const ALONE_LIMIT: Duration = Duration::from_secs(3);

/// What a shim tells its init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToInit {
    /// Ids are mapped, groups joined, links made: go on.
    Go,
    Signal(i32),
    /// Start a further command; standard output and error come along.
    Exec {
        number: u64,
        command: Vec<String>,
        env: Vec<(String, String)>,
    },
    /// Kill such a command.
    Cut {
        number: u64,
    },
    /// The instance stands still, or does no more: meanwhile nothing is started.
    Still(bool),
}

/// What init tells its shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FromInit {
    /// The app runs.
    Running { notes: Vec<String> },
    /// It cannot run.
    Failed { message: String },
    /// Something happened to a process beside the main one.
    Side(News),
    /// The app ended with this wait status; `crowded` when there were then as many processes as it may have.
    Ended { status: i32, crowded: bool },
    /// A further command ended, or could not be started.
    ExecEnded { number: u64, status: i32, failure: Option<String> },
}

/// What init needs from the shim that forked it.
pub(crate) struct Given<'a> {
    pub(crate) order: &'a Order,
    pub(crate) folder: &'a Path,
    pub(crate) line: OwnedFd,
    /// The pipes for the app's standard output and error, and for those of each process beside it.
    pub(crate) streams: Vec<[RawFd; 2]>,
    /// The locks, which the app keeps too when there is no pid namespace.
    pub(crate) locks: Vec<RawFd>,
}

/// The body of init. The process must end with what this returns.
pub(crate) fn run(given: &Given<'_>) -> i32 {
    // SAFETY: prctl with integers. Without the shim nobody may go on.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    match sockets::receive::<ToInit>(given.line.as_fd()) {
        Ok(Some((ToInit::Go, _))) => {}
        Ok(_) | Err(_) => return 1,
    }
    let line = given.line.as_fd();
    let made = make_inside(given).and_then(|(mut restrictions, notes)| {
        let signals = block_signals().step(|| "watch signals".to_owned())?;
        let [streams, others @ ..] = &given.streams[..] else { return Err("it has no streams".to_owned()) };
        let command = side::shell(&given.order.command)?;
        let env = side::variables(given.order, given.order.formation.main.as_str())?;
        let sides = Sides::of(given.order, others)?;
        let app = launch::start(&command, &env, *streams, &mut restrictions)
            .map_err(|error| format!("cannot start the command: {error}"))?;
        for fd in streams {
            // SAFETY: the app has its own copies, and nobody here uses these numbers again.
            unsafe { libc::close(*fd) };
        }
        Ok((app, sides, restrictions, signals, notes))
    });
    let (app, sides, restrictions, signals, notes) = match made {
        Ok(made) => made,
        Err(message) => {
            let _ = sockets::send(line, &FromInit::Failed { message }, &[]);
            return 1;
        }
    };
    let _ = sockets::send(line, &FromInit::Running { notes }, &[]);
    let mut watch = Watch {
        line: &given.line,
        signals,
        app,
        sides,
        restrictions,
        execs: Vec::new(),
        stopping: false,
        still: false,
        main: None,
        crowded: false,
        over_at: None,
        given,
    };
    let status = watch.until_the_app_ends();
    let _ = sockets::send(line, &FromInit::Ended { status, crowded: watch.crowded }, &[]);
    0
}

fn make_inside(given: &Given<'_>) -> Step<(Restrictions, Vec<String>)> {
    let order = given.order;
    let filter = filter::program();
    let root = nix::unistd::geteuid().is_root();
    let restrictions = |folder: PathBuf, user, landlock, kept| {
        let folder =
            CString::new(folder.as_os_str().as_bytes()).step(|| "name the working directory".to_owned())?;
        let processes = order
            .limits
            .pids
            .map(u64::from)
            .filter(|_| !order.cgroup.counts_processes() && process::are_counted_within(order.level));
        Step::Ok(Restrictions { user, folder, landlock, filter: filter.clone(), processes, kept })
    };
    match order.level {
        IsolationLevel::Full | IsolationLevel::Userns => {
            let _ = nix::unistd::sethostname("trackbed");
            let notes = tree::enter(order, given.folder, order.uid)?;
            network(order)?;
            let user = (order.level == IsolationLevel::Full).then_some(order.uid);
            Ok((restrictions("/app".into(), user, None, Vec::new())?, notes))
        }
        IsolationLevel::Landlock | IsolationLevel::Plain => {
            // SAFETY: prctl with integers. Orphans of the app become ours, so that they can be found and ended.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
            let app = apptree::copy_app(order, given.folder)?;
            let landlock = if order.level == IsolationLevel::Landlock {
                Some(rules::for_app(order, &app).step(|| "make Landlock rules".to_owned())?)
            } else {
                None
            };
            let user = root.then_some(order.uid);
            Ok((restrictions(app, user, landlock, given.locks.clone())?, Vec::new()))
        }
    }
}

fn network(order: &Order) -> Step<()> {
    if !order.has_own_network() {
        return Ok(());
    }
    let mut netlink = Netlink::open().step(|| "open rtnetlink".to_owned())?;
    netlink.up("lo").step(|| "bring lo up".to_owned())?;
    let Some(link) = &order.link else { return Ok(()) };
    let any: Ipv4Addr = link.address;
    netlink.ensure_address("eth0", any, link.prefix).step(|| format!("give eth0 the address {any}"))?;
    netlink.up("eth0").step(|| "bring eth0 up".to_owned())?;
    netlink.add_default_route(link.gateway).step(|| format!("route to {}", link.gateway))
}

/// Blocks the signals that init answers to and returns a descriptor that tells of them.
pub(crate) fn block_signals() -> std::io::Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = nix::sys::signalfd::SfdFlags::SFD_CLOEXEC | nix::sys::signalfd::SfdFlags::SFD_NONBLOCK;
    Ok(nix::sys::signalfd::SignalFd::with_flags(&set, flags)?)
}

struct Watch<'a> {
    line: &'a OwnedFd,
    signals: nix::sys::signalfd::SignalFd,
    app: i32,
    /// What runs beside it.
    sides: Sides,
    restrictions: Restrictions,
    /// Further commands: number and pid.
    execs: Vec<(u64, i32)>,
    /// Whether an end was asked for.
    stopping: bool,
    /// Whether the instance stands still.
    still: bool,
    /// How the main process ended, while others of the app take their time.
    main: Option<i32>,
    /// Whether there were then as many processes as the app may have.
    crowded: bool,
    /// When the others have had their time, after an end that nobody has asked for.
    over_at: Option<Instant>,
    given: &'a Given<'a>,
}

impl Watch<'_> {
    fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    fn until_the_app_ends(&mut self) -> i32 {
        // From here on init only reaps and signals.
        if nix::unistd::geteuid().is_root() && self.given.order.level == IsolationLevel::Full {
            // CAP_SETGID, CAP_SETUID, CAP_SETPCAP and CAP_KILL: for further commands and for signals.
            let _ = launch::keep_capabilities(1 << 5 | 1 << 6 | 1 << 7 | 1 << 8);
        }
        loop {
            let due = self.over_at.or_else(|| self.sides.next_due().filter(|_| !self.still));
            let (signals, line) = {
                let mut fds = [
                    PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.line.as_fd(), PollFlags::POLLIN),
                ];
                let _ = match due {
                    None => footprint::poll_lightly(&mut fds),
                    Some(at) => poll(&mut fds, timeout_until(at)),
                };
                (fds[0].any().unwrap_or(false), fds[1].any().unwrap_or(false))
            };
            if signals && let Some(status) = self.hear_signals() {
                return status;
            }
            if line && !self.hear_shim() {
                // The shim is gone; the kernel is about to end us too.
                return libc::SIGKILL;
            }
            if let (Some(status), Some(at)) = (self.main, self.over_at)
                && at <= Instant::now()
            {
                return status;
            }
            // The shim's word first: it may be that nothing shall start now.
            if !line && due.is_some_and(|at| at <= Instant::now()) {
                self.start_sides();
            }
        }
    }

    fn start_sides(&mut self) {
        let (given, restrictions) = (self.given, &mut self.restrictions);
        let news = self.sides.start_due(|command, env, streams| {
            renew_rules(given, restrictions)?;
            launch::start(command, env, streams, restrictions)
        });
        for news in news {
            let _ = sockets::send(self.line(), &FromInit::Side(news), &[]);
        }
    }

    fn hear_signals(&mut self) -> Option<i32> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo != libc::SIGCHLD as u32 {
                self.pass_on(info.ssi_signo as i32);
            }
        }
        let some_left = self.reap();
        if self.main.is_some() && !self.stopping && !self.sides.pids().is_empty() {
            self.pass_on(libc::SIGTERM);
            self.over_at = Some(Instant::now() + ALONE_LIMIT);
        }
        match self.main {
            // Who was asked to end gets to the end of its work; the shim counts the time. Further commands are not waited
            // for; only where there are any must `/proc` tell them apart, which may hide some processes of the app.
            Some(_)
                if self.stopping && some_left && (self.execs.is_empty() || !self.processes().is_empty()) =>
            {
                None
            }
            ended => ended,
        }
    }

    /// Takes in every child that has ended. Returns whether there are others.
    fn reap(&mut self) -> bool {
        loop {
            let pid = match ended_child() {
                Ok(Some(pid)) => pid,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let side = self.sides.find(pid);
            if side.is_some() && !self.stopping {
                // What it has started must not go on beside the next one. It is not reaped yet, so the number is its own.
                // SAFETY: kill takes two integers; each of these processes leads its group.
                unsafe { libc::kill(-pid, libc::SIGKILL) };
            }
            let mut status = 0;
            // SAFETY: `status` is a valid place for one int.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } != pid {
                return true;
            }
            if let Some(index) = side {
                let news = self.sides.end(index, status);
                let _ = sockets::send(self.line(), &FromInit::Side(news), &[]);
            }
            if pid == self.app && self.main.is_none() {
                self.main = Some(status);
                // It has just left itself.
                let most = self.restrictions.processes.filter(|_| status != 0);
                self.crowded = most.is_some_and(|most| process::count_tasks() + 1 >= most);
            }
            if let Some(index) = self.execs.iter().position(|(_, exec)| *exec == pid) {
                let (number, _) = self.execs.swap_remove(index);
                let _ =
                    sockets::send(self.line(), &FromInit::ExecEnded { number, status, failure: None }, &[]);
            }
        }
    }

    /// Returns the processes of the app with their groups. Further commands, each a session, are none of them.
    fn processes(&self) -> Vec<(process::ProcessId, i32)> {
        let me = i32::try_from(std::process::id()).unwrap_or(1);
        let descendants = process::descendants(me).into_iter().filter_map(process::find_kin);
        let is_exec = |session: i32| self.execs.iter().any(|(_, pid)| *pid == session);
        descendants.filter(|kin| !is_exec(kin.session)).map(|kin| (kin.id, kin.group)).collect()
    }

    fn pass_on(&mut self, signal: i32) {
        if signal == libc::SIGTERM || signal == libc::SIGINT {
            self.stopping = true;
            self.sides.stop_starting();
        }
        // The groups first, and at once, so that none of them can fork away from the signal.
        let mut groups = self.sides.pids();
        groups.extend(self.main.is_none().then_some(self.app));
        for group in &groups {
            // SAFETY: kill takes two integers; the process leads this group and is our child, not reaped yet, so the
            // number is its own.
            unsafe { libc::kill(-group, signal) };
        }
        for (process, _) in self.processes().into_iter().filter(|(_, of)| !groups.contains(of)) {
            process.signal(signal);
        }
    }

    fn hear_shim(&mut self) -> bool {
        match sockets::receive::<ToInit>(self.line()) {
            Ok(None) => return false,
            Err(_) | Ok(Some((ToInit::Go, _))) => {}
            Ok(Some((ToInit::Signal(signal), _))) => self.pass_on(signal),
            Ok(Some((ToInit::Still(still), _))) => self.still = still,
            Ok(Some((ToInit::Cut { number }, _))) => {
                for (_, pid) in self.execs.iter().filter(|(exec, _)| *exec == number) {
                    // SAFETY: the command leads its own session, so this is its whole group.
                    unsafe { libc::kill(-*pid, libc::SIGKILL) };
                }
            }
            Ok(Some((ToInit::Exec { number, command, env }, fds))) => self.exec(number, &command, &env, &fds),
        }
        true
    }

    fn exec(&mut self, number: u64, command: &[String], env: &[(String, String)], fds: &[OwnedFd]) {
        let started = launch::words(command).and_then(|words| {
            let env = launch::environment(env, self.given.order.level)?;
            let [out, err] = fds else { return Err("two streams must come along".to_owned()) };
            renew_rules(self.given, &mut self.restrictions)?;
            launch::start(&words, &env, [out.as_raw_fd(), err.as_raw_fd()], &mut self.restrictions)
        });
        match started {
            Ok(pid) => self.execs.push((number, pid)),
            Err(failure) => {
                let ended = FromInit::ExecEnded { number, status: 127 << 8, failure: Some(failure) };
                let _ = sockets::send(self.line(), &ended, &[]);
            }
        }
    }
}

/// Makes the rules anew for a further command: they name files that may have come since.
fn renew_rules(given: &Given<'_>, restrictions: &mut Restrictions) -> Step<()> {
    if given.order.level == IsolationLevel::Landlock {
        let app = PathBuf::from(std::ffi::OsStr::from_bytes(restrictions.folder.as_bytes()));
        restrictions.landlock =
            Some(rules::for_app(given.order, &app).step(|| "make Landlock rules".to_owned())?);
    }
    Ok(())
}

fn timeout_until(at: Instant) -> PollTimeout {
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// Returns a child that has ended and is not reaped yet; none when all run.
fn ended_child() -> std::io::Result<Option<i32>> {
    // SAFETY: all zeros are a valid value of this plain structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid place.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: waitid has filled it in, or left the zeros.
    let pid = unsafe { info.si_pid() };
    Ok((pid > 0).then_some(pid))
}

/// Starts init in new namespaces. Returns its pid; in the child it never returns.
pub(crate) fn fork(given: &Given<'_>, shim_end: RawFd) -> std::io::Result<i32> {
    let network = if given.order.has_own_network() { libc::CLONE_NEWNET } else { 0 };
    let namespaces = match given.order.level {
        IsolationLevel::Full => {
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | network
        }
        IsolationLevel::Userns => {
            libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | network
        }
        IsolationLevel::Landlock | IsolationLevel::Plain => 0,
    };
    let flags = (namespaces | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: clone without a new stack behaves like fork; the shim has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: the child must not hold the shim's end, or it would never hear that the shim is gone.
        unsafe { libc::close(shim_end) };
        let code = run(given);
        // SAFETY: ends the child without running destructors of what the shim owns.
        unsafe { libc::_exit(code) };
    }
    i32::try_from(pid).map_err(std::io::Error::other)
}

/// Maps one user and group into the user namespace of a process that waits for it.
pub(crate) fn map_ids(pid: i32, inside: u32) -> std::io::Result<()> {
    let put = |file: &str, text: String| {
        crate::mounts::write_file(format!("/proc/{pid}/{file}"), &text)
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot write {file}: {error}")))
    };
    put("setgroups", "deny".to_owned())?;
    put("uid_map", format!("{inside} {} 1", nix::unistd::geteuid()))?;
    put("gid_map", format!("{inside} {} 1", nix::unistd::getegid()))
}

/// Returns whether init has the pid that it had, for records.
pub(crate) fn identity(pid: i32) -> Option<process::ProcessId> {
    process::ProcessId::of(pid)
}

/// Makes the directories that the sandbox needs in an instance's directory.
pub(crate) fn make_folders(folder: &Path) -> Step<()> {
    for name in ["root", "upper", "work"] {
        let path = folder.join(name);
        fs::create_dir_all(&path).step(|| format!("make {}", path.display()))?;
    }
    Ok(())
}

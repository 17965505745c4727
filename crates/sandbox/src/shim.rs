//! The shim of one instance: takes the locks, makes the sandbox, supervises, records the end, cleans up.
//!
//! One thread, no runtime: it forks, and a fork of a process with threads may hang.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use nix::fcntl::Flock;
use trackbed_core::instance::{Exit, InstanceKind};
use trackbed_core::isolation::IsolationLevel;
use trackbed_stdx::clock::now_ms;

use crate::init::{self, Given, ToInit};
use crate::netlink::Netlink;
use crate::process::{self, ProcessId};
use crate::records::{Folder, Order, Phase, State, VERSION};
use crate::supervise::Supervisor;
use crate::tree::{Named, Step};
use crate::{door, locks, ownership, sockets};

/// What the kernel adds to a job's score when it looks for whom to end (proc_pid_oom_score_adj(5)): the most there is, so
/// that no app of any size is found before it.
const JOB_OOM_SCORE: &str = "1000";
/// How nice a job is to apps (setpriority(2)).
const JOB_NICENESS: i32 = 10;
/// Bytes that a stream of the app may be ahead of the log; those of processes beside it have the kernel's size, because
/// there may be many.
const PIPE_BYTES: i32 = 1 << 20;

/// The body of `trackbed shim <instance directory>`. Returns the exit code of the process.
///
/// It must run in a process that has one thread. It forks once at the start, so that the shim belongs to nobody.
pub fn shim_main(instance_dir: &Path) -> i32 {
    if let Some(code) = detach() {
        return code;
    }
    // SAFETY: integers only.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::umask(0o022);
    }
    let folder = Folder::new(instance_dir.to_owned());
    let Some(order) = folder.find_order() else { return 2 };
    // The sandbox waits on our standard output until the command runs or cannot.
    let exit = match live(&folder, order.clone()) {
        Ok(exit) => exit,
        Err(message) => Exit::Setup { message },
    };
    folder.clear_variables_at_end(&order);
    clean_up(&order);
    // Last: who sees this file may rely on everything before.
    i32::from(folder.close(exit).is_err())
}

/// Goes on in a process that belongs to nobody, in a session of its own: signals of a terminal are not for it. Returns the
/// exit code for the one that stays behind. It must run in a process that has one thread.
pub fn detach() -> Option<i32> {
    // SAFETY: one thread, so the child may go on as a whole process.
    match unsafe { libc::fork() } {
        0 => {}
        pid => return Some(i32::from(pid < 0)),
    }
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
    None
}

/// What is told while a start is prepared, and when the command runs.
pub const PROGRESS: u8 = b'.';
const READY: u8 = b'1';
const PROGRESS_EVERY_MS: i64 = 1000;

/// Tells the control plane, now and then, that a long preparation goes on. The shim and a new init share this line.
pub(crate) fn report_progress() {
    static TOLD_AT: AtomicI64 = AtomicI64::new(0);
    let now = now_ms();
    if now - TOLD_AT.load(Ordering::Relaxed) >= PROGRESS_EVERY_MS {
        TOLD_AT.store(now, Ordering::Relaxed);
        tell(PROGRESS);
    }
}

fn tell(byte: u8) {
    let mut out = std::io::stdout();
    let _ = out.write_all(&[byte]).and_then(|()| out.flush());
}

/// Tells the control plane that it need not wait longer.
pub fn report_ready() {
    tell(READY);
    // SAFETY: both are C strings or integers; standard output stays open, on /dev/null.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        libc::dup2(null, 1);
        libc::close(null);
    }
}

fn live(folder: &Folder, mut order: Order) -> Step<Exit> {
    let pid = i32::try_from(std::process::id()).step(|| "read the own pid".to_owned())?;
    let shim = ProcessId::of(pid).ok_or("cannot read the own start time from /proc")?;
    let mut state = State {
        version: VERSION,
        phase: Phase::Starting,
        boot_id: process::boot_id(),
        shim,
        init: None,
        notes: Vec::new(),
        processes: Vec::new(),
    };
    folder.reserve_end().step(|| format!("write into {}", folder.root().display()))?;
    folder.write_state(&state).step(|| format!("write {}", folder.path("state.json").display()))?;
    if folder.find_end().is_some() {
        return Err("it was given up before it began".to_owned());
    }
    let control = listen(&order.socket)?;
    let mut held = locks::take(&locks::Claim {
        instance: &order.id,
        title: &order.title,
        volumes: &order.volumes,
        cgroup: order.cgroup.clone(),
        container: None,
    })?;
    init::make_folders(folder.root())?;
    ownership::hand_over(&order, folder.root())?;
    order.cgroup.create(order.kind, &order.limits).step(|| "limit the instance".to_owned())?;
    let beside = order.formation.beside.len();
    let mut streams = Vec::with_capacity(1 + beside);
    let mut app_streams = Vec::with_capacity(1 + beside);
    for bytes in std::iter::once(Some(PIPE_BYTES)).chain(std::iter::repeat_n(None, beside)) {
        let ((out, app_out), (err, app_err)) = (pipe(bytes)?, pipe(bytes)?);
        streams.push([out, err]);
        app_streams.push([app_out, app_err]);
    }
    let (line, init_line) = sockets::pair().step(|| "make a line to init".to_owned())?;
    let given = Given {
        order: &order,
        folder: folder.root(),
        line: init_line,
        streams: app_streams.iter().map(|[out, err]| [out.as_raw_fd(), err.as_raw_fd()]).collect(),
        locks: held.iter().map(|lock| lock.as_raw_fd()).collect(),
    };
    let init =
        init::fork(&given, line.as_raw_fd()).step(|| format!("make {} namespaces", order.level.as_str()))?;
    drop((given, app_streams));
    let ready = prepare(&order, init).and_then(|()| door::open(&order, init)).and_then(|()| {
        locks::name_init(&mut held, init::identity(init)).step(|| "sign the volumes' locks".to_owned())
    });
    if let Err(message) = ready {
        drop(line);
        process::kill_descendants_of_self(500);
        return Err(message);
    }
    sockets::send(std::os::fd::AsFd::as_fd(&line), &ToInit::Go, &[]).step(|| "start init".to_owned())?;
    state.init = init::identity(init);
    // What is secret has been handed on.
    order.env.clear();
    let supervisor = Supervisor::new(folder, &order, state, control, line, init, streams);
    let exit = supervisor.run();
    end_everything(&order);
    drop::<Vec<Flock<File>>>(held);
    Ok(exit)
}

/// What must be done to init from outside before it goes on.
fn prepare(order: &Order, init: i32) -> Step<()> {
    order.cgroup.attach(init).step(|| "limit the instance".to_owned())?;
    if order.level == IsolationLevel::Userns {
        init::map_ids(init, order.uid).step(|| "map the user".to_owned())?;
    }
    if order.kind == InstanceKind::Job {
        // A build must be the first to go when memory is short, never an app. Anybody may raise this, and make a process
        // nicer; where control groups bound nothing, these two are what is left.
        let _ = crate::mounts::write_file(format!("/proc/{init}/oom_score_adj"), JOB_OOM_SCORE);
        // SAFETY: integers only.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, init.unsigned_abs(), JOB_NICENESS) };
    }
    if let Some(link) = &order.link {
        let mut netlink = Netlink::open().step(|| "open rtnetlink".to_owned())?;
        netlink
            .add_veth(&link.veth, &link.bridge, "eth0", init)
            .step(|| format!("link {} to bridge {}", link.veth, link.bridge))?;
        // Ports of apps reach the box and the world, never each other.
        let isolated = format!("/sys/class/net/{}/brport/isolated", link.veth);
        crate::mounts::write_file(&isolated, "1").step(|| format!("write {isolated}"))?;
    }
    Ok(())
}

fn listen(socket: &Path) -> Step<UnixListener> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).step(|| format!("listen on {}", socket.display()))?;
    let _ = std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600));
    listener.set_nonblocking(true).step(|| "listen without waiting".to_owned())?;
    Ok(listener)
}

fn pipe(bytes: Option<i32>) -> Step<(OwnedFd, OwnedFd)> {
    use nix::fcntl::OFlag;
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe".to_owned())?;
    if let Some(bytes) = bytes {
        // An ordinary user over their share keeps the kernel's size.
        let _ = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(bytes));
    }
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .step(|| "set up a pipe".to_owned())?;
    Ok((read, write))
}

/// Ends whatever is left. With a pid namespace nothing is; without one, orphans have become our children.
fn end_everything(order: &Order) {
    order.cgroup.kill_all();
    process::kill_descendants_of_self(500);
}

fn clean_up(order: &Order) {
    order.cgroup.remove();
    if let Some(link) = &order.link {
        // The kernel would remove it with the namespace, but later.
        if let Ok(mut netlink) = Netlink::open() {
            let _ = netlink.remove(&link.veth);
        }
    }
    let _ = std::fs::remove_file(&order.socket);
}

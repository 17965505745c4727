//! The last steps before the app's own code: its streams, its user, and everything it may no longer do.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};

use trackbed_core::isolation::IsolationLevel;

use crate::filter;

/// What every process that is started inside has in common.
pub(crate) struct Restrictions {
    /// The user to become; none when we may not choose.
    pub(crate) user: Option<u32>,
    pub(crate) folder: CString,
    /// Directories for Landlock: what may be read, what may be written.
    pub(crate) landlock: Option<landlock::RulesetCreated>,
    pub(crate) filter: Vec<libc::sock_filter>,
    /// Processes and threads at most, where the kernel shall count them without a control group.
    pub(crate) processes: Option<u64>,
    /// Descriptors that must survive into the app: without a pid namespace a lock ends with the last process.
    pub(crate) kept: Vec<RawFd>,
}

/// Starts a command. Returns its pid once its program has replaced ours, or the step that failed.
pub(crate) fn start(
    command: &[CString],
    env: &[CString],
    streams: [RawFd; 2],
    restrictions: &mut Restrictions,
) -> Result<i32, String> {
    let programs = places(command.first().ok_or("there is no command")?, env);
    let argv: Vec<*const libc::c_char> = pointers(command);
    let envp: Vec<*const libc::c_char> = pointers(env);
    let (told, mut tell) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| format!("pipe: {e}"))?;
    // SAFETY: this process has one thread, so the child may do anything that a new process may.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(format!("fork: {}", io::Error::last_os_error()));
    }
    if pid == 0 {
        drop(told);
        let (step, error) = become_app(&programs, &argv, &envp, streams, restrictions);
        let _ = io::Write::write_all(&mut Writer(&mut tell), format!("{step}: {error}").as_bytes());
        // SAFETY: ends this process without running destructors of what the parent owns.
        unsafe { libc::_exit(127) };
    }
    drop(tell);
    let mut failure = String::new();
    let _ = std::fs::File::from(told).read_to_string(&mut failure);
    if failure.is_empty() {
        return Ok(pid);
    }
    let _ = crate::process::wait_for(pid);
    Err(failure)
}

struct Writer<'a>(&'a mut OwnedFd);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.0, bytes)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

type Failure = (&'static str, io::Error);

/// Never returns unless a step fails.
fn become_app(
    programs: &[CString],
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    streams: [RawFd; 2],
    restrictions: &mut Restrictions,
) -> Failure {
    if let Err(failure) = restrict(streams, restrictions) {
        return failure;
    }
    let mut failure = libc::ENOENT;
    for program in programs {
        // SAFETY: both lists end with null and point to C strings that the caller keeps.
        unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        match io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOENT) {
            libc::ENOENT | libc::ENOTDIR => {}
            // Somewhere further on there may be one that we may run.
            libc::EACCES => failure = libc::EACCES,
            libc::ENOEXEC => {
                let shell = [c"/bin/sh".as_ptr(), program.as_ptr()];
                let argv: Vec<_> = shell.into_iter().chain(argv[1..].iter().copied()).collect();
                // SAFETY: as above; the list still ends with null. A script that names no interpreter is the shell's.
                unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
                return ("start the program", io::Error::last_os_error());
            }
            other => return ("start the program", io::Error::from_raw_os_error(other)),
        }
    }
    ("start the program", io::Error::from_raw_os_error(failure))
}

/// Returns where a program may lie, by the PATH that it is to get: execvpe(3) would go by ours.
fn places(program: &CString, env: &[CString]) -> Vec<CString> {
    let name = program.as_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return vec![program.clone()];
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let folders = path.split(|byte| *byte == b':');
    folders
        .map(|folder| if folder.is_empty() { &b"."[..] } else { folder })
        .filter_map(|folder| CString::new([folder, b"/", name].concat()).ok())
        .collect()
}

fn restrict(streams: [RawFd; 2], restrictions: &mut Restrictions) -> Result<(), Failure> {
    plain_signals();
    // SAFETY: every call in this block takes integers or C strings that live long enough.
    unsafe {
        checked("begin a session", libc::setsid())?;
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        checked("open /dev/null", libc::dup2(null, 0))?;
        checked("connect standard output", libc::dup2(streams[0], 1))?;
        checked("connect standard error", libc::dup2(streams[1], 2))?;
        // Everything else closes at exec, whoever opened it.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for fd in &restrictions.kept {
            libc::fcntl(*fd, libc::F_SETFD, 0);
        }
        libc::umask(0o022);
        raise_file_limit();
        no_core_dumps();
    }
    if let Some(most) = restrictions.processes {
        checked("limit processes", limit_processes(most))?;
    }
    drop_bounding_set();
    if let Some(user) = restrictions.user {
        // SAFETY: an empty group list needs no pointer; the rest are integers.
        unsafe {
            checked("leave all groups", libc::setgroups(0, std::ptr::null()))?;
            checked("change the group", libc::setresgid(user, user, user))?;
            checked("change the user", libc::setresuid(user, user, user))?;
        }
    }
    keep_capabilities(0).map_err(|error| ("drop capabilities", error))?;
    // SAFETY: the path is a C string; prctl takes integers.
    unsafe {
        checked("enter the working directory", libc::chdir(restrictions.folder.as_ptr()))?;
        // After the change of user, which clears it. Init ends when the shim does; this covers levels without pid 1.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        checked("give up new privileges", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    if let Some(ruleset) = restrictions.landlock.take() {
        ruleset.restrict_self().map_err(|error| ("apply Landlock", io::Error::other(error)))?;
    }
    filter::apply(&mut restrictions.filter).map_err(|error| ("apply the system call filter", error))
}

fn checked(step: &'static str, result: libc::c_int) -> Result<(), Failure> {
    if result < 0 { Err((step, io::Error::last_os_error())) } else { Ok(()) }
}

/// Sets every signal back to its default and unblocks all.
pub(crate) fn plain_signals() {
    // SAFETY: SIG_DFL is a valid disposition for each; the set is made by sigemptyset before it is used.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// As many open files as the box allows, because servers need them; never above the hard limit, which would fail.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_max = limit.rlim_max.min(1 << 20);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// So many processes at most; never above the hard limit, which would fail.
fn limit_processes(most: u64) -> libc::c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) != 0 {
            return -1;
        }
        limit.rlim_max = limit.rlim_max.min(most);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit)
    }
}

fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: prctl with integers. Fails past the last capability, and without the right to drop, when there is
        // nothing to drop either.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
}

/// Leaves this process without any capability except those in `kept`, a mask of the first 32.
pub(crate) fn keep_capabilities(kept: u32) -> io::Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets: [u32; 6] = [kept, kept, 0, 0, 0, 0];
    // SAFETY: version 3 takes a header of two words and two triples of words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: prctl with integers.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Ok(())
}

/// Makes a list for exec from words.
pub(crate) fn words(command: &[String]) -> Result<Vec<CString>, String> {
    command
        .iter()
        .map(|word| CString::new(word.as_str()).map_err(|_| format!("`{word}` has a NUL")))
        .collect()
}

/// Makes an environment for exec, with what no command can do without.
pub(crate) fn environment(env: &[(String, String)], level: IsolationLevel) -> Result<Vec<CString>, String> {
    let has = |name: &str| env.iter().any(|(key, _)| key == name);
    let home = match level {
        IsolationLevel::Full | IsolationLevel::Userns => "/tmp/home",
        IsolationLevel::Landlock | IsolationLevel::Plain => "/tmp",
    };
    let defaults = [("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"), ("HOME", home)];
    let mut all: Vec<CString> = Vec::with_capacity(env.len() + 2);
    for (key, value) in env {
        // The value may be a secret: only the name is told.
        all.push(CString::new(format!("{key}={value}")).map_err(|_| format!("variable {key} has a NUL"))?);
    }
    for (key, value) in defaults {
        if !has(key) {
            all.push(CString::new(format!("{key}={value}")).map_err(|_| "a NUL".to_owned())?);
        }
    }
    Ok(all)
}

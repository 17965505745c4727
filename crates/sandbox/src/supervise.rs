//! The loop of a shim: the app's output, requests of the control plane, and what init tells, all without waiting on one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use trackbed_core::Timestamp;
use trackbed_core::instance::{Exit, InstanceKind, LogStream};
use trackbed_core::process::ProcessStatus;
use trackbed_stdx::clock::now_ms;

use crate::control::{Answer, Ask, CLIENTS, Client, EXECS, Heard, Request};
use crate::init::{FromInit, ToInit};
use crate::logfile::LogWriter;
use crate::records::{Folder, Order, Phase, Side, State, VERSION};
use crate::side::News;
use crate::stillness::{Look, Stillness};
use crate::streams::{CHUNK_BYTES, Streams};
use crate::{footprint, process, shim, sockets};

/// Chunks read after the end, so that a process outside our reach cannot keep us here.
const LAST_CHUNKS: usize = 64;

/// Grace when the shim itself is asked to end: the box shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What has something to say.
#[derive(Default)]
struct Ready {
    line: bool,
    control: bool,
    signals: bool,
    streams: Vec<bool>,
    clients: Vec<bool>,
}

pub(crate) struct Supervisor<'a> {
    folder: &'a Folder,
    order: &'a Order,
    state: State,
    control: UnixListener,
    signals: Option<SignalFd>,
    line: OwnedFd,
    init: i32,
    streams: Streams,
    log: LogWriter,
    clients: Vec<Client>,
    execs: u64,
    /// While the instance stands still for a client.
    stillness: Option<Stillness>,
    /// Whether init was told that it stands still.
    init_is_still: bool,
    /// Processes that the kernel has ended for memory, as far as they are told.
    oom_kills: u64,
    kill_at: Option<Instant>,
    /// Whether somebody asked for the end: then a SIGKILL is no riddle.
    ending: bool,
    /// Whether somebody asked for an end in good order.
    stopping: bool,
    /// Whether the main process ended among as many as there may be.
    crowded: bool,
    end: Option<Exit>,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        folder: &'a Folder,
        order: &'a Order,
        state: State,
        control: UnixListener,
        line: OwnedFd,
        init: i32,
        pipes: Vec<[OwnedFd; 2]>,
    ) -> Supervisor<'a> {
        let log_folder = folder.path("log");
        let _ = std::fs::create_dir_all(&log_folder);
        Supervisor {
            folder,
            order,
            state,
            control,
            signals: crate::init::block_signals().ok(),
            line,
            init,
            streams: Streams::of(&order.formation, pipes),
            log: LogWriter::create(&log_folder),
            clients: Vec::new(),
            execs: 0,
            stillness: None,
            init_is_still: false,
            oom_kills: 0,
            kill_at: None,
            ending: false,
            stopping: false,
            crowded: false,
            end: None,
        }
    }

    /// Runs until init has ended. Returns how the app did.
    pub(crate) fn run(mut self) -> Exit {
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.turn(&mut buffer) {}
        let status = process::wait_for(self.init);
        for _ in 0..LAST_CHUNKS {
            if !self.streams.read(|_| true, &mut buffer, now_ms(), &mut self.log) {
                break;
            }
        }
        let now = now_ms();
        self.streams.finish(now, &mut self.log);
        let exit = match (self.end.take(), status) {
            (Some(exit), _) => exit,
            (None, Ok(status)) => exit_of(status),
            (None, Err(_)) => Exit::Lost,
        };
        let exit = self.explain(exit);
        // Of its own accord: an end that was asked for is no news.
        let asked = self.ending || self.stopping;
        if !asked && self.order.kind == InstanceKind::Service && exit != Exit::Oom {
            self.log.line(now, LogStream::System, format!("the app {exit}").as_bytes());
        }
        self.log.flush(now);
        exit
    }

    /// Tells an end by the kernel for memory from any other SIGKILL.
    fn explain(&mut self, exit: Exit) -> Exit {
        let killed = matches!(exit, Exit::Signal { signal: libc::SIGKILL } | Exit::Code { code: 137 });
        if killed && !self.ending && self.is_oom() {
            let limit = self.order.limits.memory_bytes.unwrap_or(0) >> 20;
            let notice = format!("killed for using more memory than its limit of {limit} MiB");
            self.log.line(now_ms(), LogStream::System, notice.as_bytes());
            return Exit::Oom;
        }
        // Said of what failed only: a program may well live with a refusal.
        if let Some(most) = self.order.limits.pids.filter(|_| !exit.is_success())
            && (self.crowded || self.order.cgroup.refused_processes() > 0)
        {
            let notice = format!("was refused more than {most} processes at once");
            self.log.line(now_ms(), LogStream::System, notice.as_bytes());
        }
        exit
    }

    /// Waits for something and answers it. Returns false when init is gone.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let Ready { line, control, signals, streams, clients } = self.wait();
        if signals && self.hear_signals() {
            self.stop(SHUTDOWN_GRACE);
        }
        if streams.contains(&true) {
            self.streams.read(|index| streams[index], buffer, now_ms(), &mut self.log);
            self.log.flush(now_ms());
        }
        if control
            && self.clients.len() < CLIENTS
            && let Some(client) = Client::accept(&self.control)
        {
            self.clients.push(client);
        }
        self.hear_clients(&clients);
        self.keep_still();
        let now = Instant::now();
        self.clients.retain(|client| !client.done && client.deadline().is_none_or(|at| at > now));
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            self.kill();
        }
        if self.stillness.is_none() && self.init_is_still {
            let _ = self.tell(&ToInit::Still(false), &[]);
            self.init_is_still = false;
        }
        !line || self.hear_init()
    }

    fn wait(&self) -> Ready {
        let silent = self.clients.iter().filter_map(Client::deadline);
        let still = self.stillness.as_ref().map(Stillness::look_at);
        let timeout = match silent.chain(self.kill_at).chain(still).min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let has_room = self.clients.len() < CLIENTS;
        let mut fds = vec![
            PollFd::new(self.line.as_fd(), PollFlags::POLLIN),
            // Somebody who cannot be served yet must not wake us.
            PollFd::new(self.control.as_fd(), if has_room { PollFlags::POLLIN } else { PollFlags::empty() }),
        ];
        let places = self.streams.watch(&mut fds);
        let signals = self.signals.as_ref().map(|signals| {
            fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        let first_client = fds.len();
        fds.extend(self.clients.iter().map(|client| PollFd::new(client.stream().as_fd(), PollFlags::POLLIN)));
        let woken = match timeout.is_none() {
            true => footprint::poll_lightly(&mut fds),
            false => poll(&mut fds, timeout),
        };
        if woken.is_err() {
            return Ready::default();
        }
        let any = |index: usize| fds[index].any().unwrap_or(false);
        Ready {
            line: any(0),
            control: any(1),
            signals: signals.is_some_and(any),
            streams: places.into_iter().map(|place| place.is_some_and(any)).collect(),
            clients: (first_client..fds.len()).map(any).collect(),
        }
    }

    /// Returns whether somebody asked for the end.
    fn hear_signals(&mut self) -> bool {
        let mut asked = false;
        while let Some(Ok(Some(info))) = self.signals.as_ref().map(SignalFd::read_signal) {
            asked |= info.ssi_signo == libc::SIGTERM as u32 || info.ssi_signo == libc::SIGINT as u32;
        }
        asked
    }

    fn hear_init(&mut self) -> bool {
        match sockets::receive::<FromInit>(self.line.as_fd()) {
            Ok(None) | Err(_) => return false,
            Ok(Some((FromInit::Running { notes }, _))) => {
                self.state.phase = Phase::Running;
                self.state.notes = notes;
                let beside = self.order.formation.beside.iter().map(|side| side.name.clone());
                self.state.processes = beside.map(not_begun).collect();
                // The app has its variables; the disk need not keep them.
                let _ = self.folder.clear_variables(self.order);
                let _ = self.folder.write_state(&self.state);
                shim::report_ready();
            }
            Ok(Some((FromInit::Failed { message }, _))) => self.end = Some(Exit::Setup { message }),
            Ok(Some((FromInit::Side(news), _))) => self.hear_of_side(news),
            Ok(Some((FromInit::Ended { status, crowded }, _))) => {
                self.end = Some(exit_of(status));
                self.crowded = crowded;
            }
            Ok(Some((FromInit::ExecEnded { number, status, failure }, _))) => {
                let answer = match failure {
                    Some(failure) => Answer::error(failure),
                    None => Answer { exit: Some(exit_of(status)), ..Answer::ok() },
                };
                for client in self.clients.iter_mut().filter(|client| client.exec == Some(number)) {
                    client.answer(&answer);
                    client.exec = None;
                }
            }
        }
        true
    }

    /// Keeps what happened to a process beside the main one, and tells how it ended.
    fn hear_of_side(&mut self, news: News) {
        let (index, exit, again_ms) = match news {
            News::Began { index, pid } => {
                if let Some(side) = self.state.processes.get_mut(index) {
                    side.pid = Some(pid);
                    side.status.since = Some(Timestamp(now_ms()));
                }
                let _ = self.folder.write_state(&self.state);
                return;
            }
            News::Ended { index, status, again_ms } => {
                (index, self.explain_side(exit_of(status), again_ms), again_ms)
            }
            News::NotBegun { index, message, again_ms } => (index, Exit::Setup { message }, Some(again_ms)),
        };
        let Some(side) = self.state.processes.get_mut(index) else { return };
        side.pid = None;
        side.status.since = None;
        // An end that was asked for is no news.
        if let Some(again_ms) = again_ms.filter(|_| !self.ending && !self.stopping) {
            side.status.ends = side.status.ends.saturating_add(1);
            if !exit.is_success() {
                side.status.failures = side.status.failures.saturating_add(1);
            }
            let name = &side.status.name;
            let wait = Duration::from_millis(again_ms).as_secs_f64();
            let notice = format!("{name} {exit}, and is started again in {wait} s");
            side.status.last = Some(exit);
            let now = now_ms();
            self.log.line(now, LogStream::System, notice.as_bytes());
            self.log.flush(now);
        }
        let _ = self.folder.write_state(&self.state);
    }

    /// One that is not started again ended because the main one has: the want of memory, if it was that, is told of that one.
    fn explain_side(&mut self, exit: Exit, again_ms: Option<u64>) -> Exit {
        let killed = matches!(exit, Exit::Signal { signal: libc::SIGKILL } | Exit::Code { code: 137 });
        if killed && again_ms.is_some() && self.is_oom() { Exit::Oom } else { exit }
    }

    /// Returns whether the kernel has ended something for memory since the last look.
    fn is_oom(&mut self) -> bool {
        let seen = std::mem::replace(&mut self.oom_kills, self.order.cgroup.oom_kills());
        self.oom_kills > seen
    }

    fn hear_clients(&mut self, ready: &[bool]) {
        // From the back, so that removing one does not move the others.
        for index in (0..ready.len()).rev().filter(|index| ready[*index]) {
            match self.clients[index].hear() {
                Heard::Nothing => {}
                Heard::Gone => {
                    let client = self.clients.swap_remove(index);
                    if client.freezes {
                        // Before its line closes with it: who sees that relies on it.
                        self.stillness = None;
                    }
                    if let Some(number) = client.exec {
                        let _ = self.tell(&ToInit::Cut { number }, &[]);
                    }
                }
                Heard::Asked(request, fds) => self.serve(index, request, &fds),
            }
        }
    }

    fn serve(&mut self, index: usize, request: Request, fds: &[OwnedFd]) {
        if request.version > VERSION {
            let message = format!("this shim speaks protocol {VERSION}, not {}", request.version);
            return self.clients[index].answer(&Answer::error(message));
        }
        match request.ask {
            Ask::Status => {}
            Ask::Stop { grace_ms } => self.stop(Duration::from_millis(grace_ms)),
            Ask::Kill => self.kill(),
            Ask::Exec { .. }
                if self.clients.iter().filter(|client| client.exec.is_some()).count() >= EXECS =>
            {
                let message = format!("{EXECS} commands run in this instance already");
                return self.clients[index].answer(&Answer::error(message));
            }
            Ask::Freeze { limit_ms } => return self.freeze(index, Duration::from_millis(limit_ms)),
            Ask::Thaw => {
                let stillness = self.stillness.take_if(|_| self.clients[index].freezes);
                let client = &mut self.clients[index];
                client.freezes = false;
                return match stillness.map(Stillness::end) {
                    Some(Ok(stood_still)) => {
                        let micros = u64::try_from(stood_still.as_micros()).unwrap_or(u64::MAX);
                        client.answer(&Answer { stood_still_us: Some(micros), ..Answer::ok() });
                    }
                    Some(Err(why)) => client.answer(&Answer::error(why)),
                    None => client.answer(&Answer::error("it was not frozen for this caller")),
                };
            }
            Ask::Exec { command, env } => {
                self.let_go("a command was run in it");
                self.execs += 1;
                let number = self.execs;
                let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                match self.tell(&ToInit::Exec { number, command, env }, &fds) {
                    // The answer comes when the command ends.
                    Ok(()) => self.clients[index].exec = Some(number),
                    Err(error) => {
                        self.clients[index].answer(&Answer::error(format!("cannot reach init: {error}")))
                    }
                }
                return;
            }
        }
        self.clients[index].answer(&Answer::ok());
    }

    /// Makes the instance stand still for a client; the answer comes when it does.
    fn freeze(&mut self, index: usize, limit: Duration) {
        let refusal = match (&self.stillness, self.state.phase) {
            (Some(_), _) => Some("it is frozen already"),
            (None, Phase::Starting) => Some("it is still starting"),
            (None, Phase::Running) if self.stopping || self.ending => Some("it is about to end"),
            (None, Phase::Running) => None,
        };
        if let Some(refusal) = refusal {
            return self.clients[index].answer(&Answer::error(refusal));
        }
        self.clients[index].freezes = true;
        if !self.order.formation.beside.is_empty() {
            // Before anything is stopped: what it starts later would not stand still.
            self.init_is_still = self.tell(&ToInit::Still(true), &[]).is_ok();
        }
        self.stillness = Some(Stillness::begin(self.order, self.init, limit));
    }

    /// Looks after the stillness: tells when it begins, and ends it when it must.
    fn keep_still(&mut self) {
        match self.stillness.as_mut().map(Stillness::look) {
            None | Some(Look::Nothing) => {}
            Some(Look::Still) => {
                for client in self.clients.iter().filter(|client| client.freezes) {
                    client.answer(&Answer::ok());
                }
            }
            Some(Look::Over(why)) => self.let_go(&why),
        }
    }

    /// Ends the stillness early and tells its client.
    fn let_go(&mut self, why: &str) {
        if self.stillness.take().is_none() {
            return;
        }
        for client in self.clients.iter_mut().filter(|client| client.freezes) {
            client.answer(&Answer::error(why));
            client.freezes = false;
            client.done = true;
        }
    }

    fn tell(&self, message: &ToInit, fds: &[i32]) -> io::Result<()> {
        sockets::send(self.line.as_fd(), message, fds)
    }

    fn stop(&mut self, grace: Duration) {
        self.stopping = true;
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        self.let_go("it was asked to end");
        let _ = self.tell(&ToInit::Signal(libc::SIGTERM), &[]);
    }

    fn kill(&mut self) {
        self.ending = true;
        // Init first: with a pid namespace this ends everything at once. The rest follows when the loop has ended.
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.init), nix::sys::signal::Signal::SIGKILL);
        // Then it dies without having run on.
        self.let_go("it was killed");
    }
}

fn not_begun(name: String) -> Side {
    Side { status: ProcessStatus { name, ends: 0, failures: 0, last: None, since: None }, pid: None }
}

/// Reads a wait status.
pub(crate) fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal { signal: libc::WTERMSIG(status) }
    } else {
        Exit::Code { code: libc::WEXITSTATUS(status) }
    }
}

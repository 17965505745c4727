//! The loop of a keeper: the output of the container, requests of the control plane, and its end.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::query_parameters::{KillContainerOptions, LogsOptions};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use trackbed_core::instance::Exit;
use trackbed_sandbox::beside::{Log, Process};
use trackbed_stdx::clock::now_ms;

use crate::control::{Answer, Ask, Line};
use crate::daemon::{self, Daemon};
use crate::end::{self, LAST_LINES_LIMIT, Memory};
use crate::records::Order;
use crate::still::{Hold, LOOK, SETTLE_LIMIT};

/// Clients served at once; more wait in the kernel's queue.
const CLIENTS: usize = 16;
/// Longest silence of a client that waits for nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Grace when the keeper itself is asked to end: the box shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Pause before an engine that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the kernel may take to end what was killed before the engine is asked, too.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

pub(crate) struct Keeper<'a> {
    order: &'a Order,
    daemon: Daemon,
    container: String,
    init: Process,
    hold: RefCell<Option<Hold>>,
    holds: Cell<u64>,
    /// Why the last hold ended early.
    released: RefCell<String>,
    /// Tells waiters that a hold or a deadline has changed.
    changed: watch::Sender<()>,
    kill_at: Cell<Option<Instant>>,
    /// Whether somebody asked for the end: then it is no news.
    stopping: Cell<bool>,
    killed: Cell<bool>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(order: &'a Order, daemon: Daemon, container: String, init: Process) -> Keeper<'a> {
        Keeper {
            order,
            daemon,
            container,
            init,
            hold: RefCell::new(None),
            holds: Cell::new(0),
            released: RefCell::default(),
            changed: watch::Sender::new(()),
            kill_at: Cell::new(None),
            stopping: Cell::new(false),
            killed: Cell::new(false),
        }
    }

    /// Runs until the container has ended. Returns how.
    pub(crate) async fn supervise(&self, listener: UnixListener, mut memory: Memory, log: &mut Log) -> Exit {
        let written = RefCell::new(log);
        memory.watch(self.init);
        {
            let mut lines = std::pin::pin!(self.follow(&written));
            let mut all_read = false;
            let mut gone = std::pin::pin!(self.init.gone());
            let mut terminate = signal(SignalKind::terminate()).ok();
            let mut changes = self.changed.subscribe();
            let mut clients = FuturesUnordered::new();
            loop {
                tokio::select! {
                    () = &mut gone => {
                        memory.look();
                        break;
                    }
                    () = &mut lines, if !all_read => all_read = true,
                    accepted = listener.accept(), if clients.len() < CLIENTS => {
                        if let Ok((stream, _)) = accepted {
                            clients.push(self.serve(Line::new(stream)));
                        }
                    }
                    Some(()) = clients.next(), if !clients.is_empty() => {}
                    () = heard(terminate.as_mut()) => self.stop(SHUTDOWN_GRACE).await,
                    _ = changes.changed() => {}
                    () = until(self.next_deadline()) => self.do_what_is_due().await,
                }
            }
            if !all_read {
                let _ = tokio::time::timeout(LAST_LINES_LIMIT, lines).await;
            }
        }
        // What is left of a hold thaws nothing any more.
        let _ = self.hold.take();
        let log = written.into_inner();
        log.finish();
        let exit = end::find_exit(&self.daemon, self.order, &memory, self.killed.get()).await;
        end::tell(self.order, &exit, self.stopping.get(), log);
        exit
    }

    /// Reads the output as it comes, until the container has ended. An engine that is restarted is asked again.
    async fn follow(&self, log: &RefCell<&mut Log>) {
        let mut since = 0;
        let mut daemon = self.daemon.clone();
        loop {
            let options = LogsOptions {
                follow: true,
                stdout: true,
                stderr: true,
                since,
                tail: "all".to_owned(),
                ..Default::default()
            };
            let mut stream = daemon.api.logs(&self.container, Some(options));
            let is_whole = loop {
                match stream.next().await {
                    Some(Ok(output)) => feed(&mut log.borrow_mut(), &output),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            if is_whole && !self.init.is_alive() {
                return;
            }
            since = i32::try_from(now_ms() / 1000).unwrap_or(0);
            if tokio::time::timeout(PAUSE, self.init.gone()).await.is_ok() {
                return;
            }
            if let Ok(again) = daemon::connect(&self.order.daemon).await {
                if !is_whole {
                    let text = "the container engine was restarted: some lines may be missing here, or stand here twice";
                    log.borrow_mut().note(text);
                }
                daemon = again;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hold = self.hold.borrow().as_ref().map(|hold| hold.since + hold.limit);
        hold.into_iter().chain(self.kill_at.get()).min()
    }

    async fn do_what_is_due(&self) {
        let now = Instant::now();
        let over =
            self.hold.borrow().as_ref().filter(|hold| hold.since + hold.limit <= now).map(|hold| hold.limit);
        if let Some(limit) = over {
            self.release(&format!("it was let go at its limit of {} ms", limit.as_millis())).await;
        }
        if self.kill_at.get().is_some_and(|at| at <= now) {
            self.kill_at.set(None);
            self.kill().await;
        }
    }

    async fn serve(&self, mut line: Line) {
        if !line.is_trusted() {
            return;
        }
        let Ok(Ok(Some(ask))) = tokio::time::timeout(SILENCE_LIMIT, line.receive::<Ask>()).await else {
            return;
        };
        let answer = match ask {
            Ask::Stop { grace_ms } => {
                self.stop(Duration::from_millis(grace_ms)).await;
                Answer::default()
            }
            Ask::Release => {
                self.release("a command was run in it").await;
                Answer::default()
            }
            Ask::Thaw => Answer::of::<()>(Err("it was not frozen for this caller".to_owned())),
            Ask::Freeze { limit_ms } => match self.freeze(Duration::from_millis(limit_ms)).await {
                Ok(number) => return self.hold_for(line, number).await,
                Err(why) => Answer::of::<()>(Err(why)),
            },
        };
        let _ = line.send(&answer).await;
    }

    /// Keeps it still until the client says otherwise, or goes, or somebody lets it go.
    async fn hold_for(&self, mut line: Line, number: u64) {
        if line.send(&Answer::default()).await.is_err() {
            return self.release_this(number, "whoever froze it has gone").await;
        }
        let mut changes = self.changed.subscribe();
        let is_held = || self.hold.borrow().as_ref().is_some_and(|hold| hold.number == number);
        let released = async { while is_held() && changes.changed().await.is_ok() {} };
        let answer = tokio::select! {
            heard = line.receive::<Ask>() => match heard {
                Ok(Some(Ask::Thaw)) => {
                    let hold = self.hold.borrow_mut().take_if(|hold| hold.number == number);
                    let ended = match hold {
                        Some(hold) => hold.end(&self.daemon, &self.container).await,
                        None => Err(self.released.borrow().clone()),
                    };
                    self.changed.send_replace(());
                    match ended {
                        Ok(stood) => Answer {
                            stood_still_us: Some(u64::try_from(stood.as_micros()).unwrap_or(u64::MAX)),
                            error: None,
                        },
                        Err(why) => Answer::of::<()>(Err(why)),
                    }
                }
                _ => return self.release_this(number, "whoever froze it has gone").await,
            },
            () = released => Answer::of::<()>(Err(self.released.borrow().clone())),
        };
        let _ = line.send(&answer).await;
    }

    /// Makes the container stand still. Returns the number of the hold.
    async fn freeze(&self, limit: Duration) -> Result<u64, String> {
        if self.hold.borrow().is_some() {
            return Err("it is frozen already".to_owned());
        }
        if self.stopping.get() {
            return Err("it is about to end".to_owned());
        }
        let number = self.holds.get() + 1;
        self.holds.set(number);
        let hold = Hold::begin(number, self.init, &self.daemon, &self.container, limit).await?;
        let since = hold.since;
        let earlier = self.hold.borrow_mut().replace(hold);
        if let Some(earlier) = earlier {
            let _ = earlier.end(&self.daemon, &self.container).await;
        }
        self.changed.send_replace(());
        loop {
            let is_still =
                self.hold.borrow_mut().as_mut().filter(|hold| hold.number == number).map(Hold::look);
            match is_still {
                None => return Err(self.released.borrow().clone()),
                Some(true) => return Ok(number),
                Some(false) => {}
            }
            if since.elapsed() >= SETTLE_LIMIT {
                let why = format!(
                    "some of its processes did not stand still within {} ms",
                    SETTLE_LIMIT.as_millis()
                );
                self.release(&why).await;
                return Err(why);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn release_this(&self, number: u64, why: &str) {
        if self.hold.borrow().as_ref().is_some_and(|hold| hold.number == number) {
            self.release(why).await;
        }
    }

    /// Lets it go on, whoever holds it.
    async fn release(&self, why: &str) {
        let hold = self.hold.borrow_mut().take();
        if let Some(hold) = hold {
            self.released.replace(why.to_owned());
            let _ = hold.end(&self.daemon, &self.container).await;
        }
        self.changed.send_replace(());
    }

    async fn stop(&self, grace: Duration) {
        self.stopping.set(true);
        self.release("it was asked to end").await;
        if grace.is_zero() {
            return self.kill().await;
        }
        let at = Instant::now() + grace;
        self.kill_at.set(Some(self.kill_at.get().map_or(at, |earlier| earlier.min(at))));
        self.changed.send_replace(());
        if self.signal_below_shell() {
            return;
        }
        let signal = match self.order.image.stop_signal.as_str() {
            "" => "SIGTERM",
            signal => signal,
        };
        let options = KillContainerOptions { signal: signal.to_owned() };
        if self.daemon.api.kill_container(&self.container, Some(options)).await.is_err() {
            // The engine does not answer: its init hands the signal on all the same.
            self.init.signal(SIGTERM);
        }
    }

    /// A start command is run by `/bin/sh -c`. A shell that stays between would die of the signal, and with it, at once,
    /// what it runs. So what is below it gets the signal, and the shell too when it has a trap (docs/decisions/0002).
    /// Returns whether it was so.
    fn signal_below_shell(&self) -> bool {
        if self.order.command.is_empty() || !is_root() {
            return false;
        }
        let below = self.init.descendants();
        let Some((shell, group)) = below.first().copied() else { return false };
        let words = std::fs::read(format!("/proc/{}/cmdline", shell.pid())).unwrap_or_default();
        let others: Vec<Process> = below
            .iter()
            .skip(1)
            .filter(|(_, theirs)| *theirs == group)
            .map(|(process, _)| *process)
            .collect();
        if !words.starts_with(b"/bin/sh\0-c\0") || others.is_empty() || catches(shell, SIGTERM) {
            return false;
        }
        for process in others {
            process.signal(SIGTERM);
        }
        true
    }

    async fn kill(&self) {
        self.killed.set(true);
        self.stopping.set(true);
        self.release("it was killed").await;
        self.init.signal(SIGKILL);
        if tokio::time::timeout(KILL_PATIENCE, self.init.gone()).await.is_err() {
            // This user may not, or it hangs.
            let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
            let _ = self.daemon.api.kill_container(&self.container, Some(options)).await;
        }
    }
}

/// Writes what an engine has read into the log.
pub(crate) fn feed(log: &mut Log, output: &LogOutput) {
    match output {
        LogOutput::StdErr { message } => log.feed(true, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => log.feed(false, message),
        LogOutput::StdIn { .. } => {}
    }
}

/// Returns whether a process has a handler for a signal (proc_pid_status(5)).
fn catches(process: Process, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    caught.is_some_and(|bits| bits & (1 << (signal - 1)) != 0)
}

/// Returns whether this process may signal any other, and enter its network.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn heard(signals: Option<&mut tokio::signal::unix::Signal>) {
    match signals {
        Some(signals) => {
            signals.recv().await;
        }
        None => std::future::pending().await,
    }
}

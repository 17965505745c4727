//! Makes all processes of an instance stand still: by the kernel's freezer where there is one, else by signals.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::mounts::write_file;
use crate::process::{self, ProcessId};
use crate::records::Order;

/// Looks in vain after which a process that waits for a stopped child of its own (vfork(2)) is helped.
const HELP_EVERY: u32 = 8;

/// The switch of a control group. What begins in the group while it is on stands still, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Switch {
    /// `cgroup.freeze` of v2. What is frozen can be killed.
    Unified(PathBuf),
    /// `freezer.state` of v1. What is frozen dies when it is thawed.
    Freezer(PathBuf),
}

impl Switch {
    pub(crate) fn freeze(&self) -> io::Result<()> {
        match self {
            Switch::Unified(dir) => write_file(dir.join("cgroup.freeze"), "1"),
            Switch::Freezer(dir) => write_file(dir.join("freezer.state"), "FROZEN"),
        }
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self {
            Switch::Unified(dir) => write_file(dir.join("cgroup.freeze"), "0"),
            Switch::Freezer(dir) => write_file(dir.join("freezer.state"), "THAWED"),
        }
    }

    /// Returns whether everything inside stands still. On v1, asking is what makes the kernel look.
    pub(crate) fn is_still(&self) -> bool {
        let says = |dir: &PathBuf, file: &str, wanted: &str| {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.lines().any(|line| line == wanted)
        };
        match self {
            Switch::Unified(dir) => says(dir, "cgroup.events", "frozen 1"),
            Switch::Freezer(dir) => says(dir, "freezer.state", "FROZEN"),
        }
    }

    /// Returns whether it is on, also while not everything stands still yet.
    pub(crate) fn is_on(&self) -> bool {
        let (path, off) = match self {
            Switch::Unified(dir) => (dir.join("cgroup.freeze"), "0"),
            Switch::Freezer(dir) => (dir.join("freezer.state"), "THAWED"),
        };
        fs::read_to_string(path).is_ok_and(|text| text.trim() != off)
    }
}

/// How an instance is made to stand still.
pub(crate) enum Means {
    Switch(Switch),
    Signals(Signals),
}

impl Means {
    /// Begins to make everything below `init` stand still, by the best means there is.
    pub(crate) fn begin(order: &Order, init: i32) -> Means {
        for switch in order.cgroup.switches() {
            if switch.freeze().is_ok() {
                return Means::Switch(switch);
            }
        }
        Means::Signals(Signals::begin(init))
    }

    /// Goes on with it. Returns whether everything stands still.
    pub(crate) fn advance(&mut self) -> bool {
        match self {
            Means::Switch(switch) => switch.is_still(),
            Means::Signals(signals) => signals.advance(),
        }
    }

    /// Returns whether everything stands still; does nothing about it.
    pub(crate) fn is_still(&self) -> bool {
        match self {
            Means::Switch(switch) => switch.is_still(),
            Means::Signals(signals) => signals.find_running().is_empty(),
        }
    }

    /// Lets everything go on.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self {
            Means::Switch(switch) => switch.thaw(),
            Means::Signals(signals) => {
                signals.end();
                Ok(())
            }
        }
    }
}

/// SIGSTOP to everything below init, which goes on: it only reaps. Parents are stopped before their children and go on
/// after them, so that none ever sees a child of its own stopped.
pub(crate) struct Signals {
    init: i32,
    /// What the app itself had stopped before.
    stopped_before: HashSet<ProcessId>,
    /// All that stood still at the last look, if all did.
    still: Option<Vec<i32>>,
    looks: u32,
}

impl Signals {
    fn begin(init: i32) -> Signals {
        let before = process::descendants(init).into_iter().filter(|pid| process::is_stopped(*pid));
        let stopped_before = before.filter_map(ProcessId::of).collect();
        let mut signals = Signals { init, stopped_before, still: None, looks: 0 };
        signals.advance();
        signals
    }

    fn find_running(&self) -> Vec<i32> {
        process::descendants(self.init).into_iter().filter(|pid| !process::stands_still(*pid)).collect()
    }

    /// Two looks in a row must find the same processes, all stopped: what was just forked may be missed once.
    fn advance(&mut self) -> bool {
        self.looks += 1;
        let all = process::descendants(self.init);
        let running: Vec<i32> = all.iter().copied().filter(|pid| !process::stands_still(*pid)).collect();
        if running.is_empty() {
            return self.still.replace(all.clone()).is_some_and(|before| before == all);
        }
        self.still = None;
        for process in running.iter().copied().filter_map(ProcessId::of) {
            process.signal(libc::SIGSTOP);
        }
        if self.looks.is_multiple_of(HELP_EVERY) {
            // It cannot stop before its child has its own program, and the child cannot go on.
            for pid in running.into_iter().flat_map(process::children) {
                self.let_go(pid);
            }
        }
        false
    }

    fn end(&self) {
        for pid in process::descendants(self.init).into_iter().rev() {
            self.let_go(pid);
        }
    }

    fn let_go(&self, pid: i32) {
        if let Some(process) = ProcessId::of(pid).filter(|process| !self.stopped_before.contains(process)) {
            process.signal(libc::SIGCONT);
        }
    }
}

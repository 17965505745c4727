//! Makes all processes of an instance stand still: by the kernel's freezer where there is one, else by signals.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::mounts::write_file;
use crate::process::{self, ProcessId};
use crate::records::Order;

/// Looks in vain after which a process that waits for a stopped child of its own (vfork(2)) is helped.
const HELP_AFTER: u32 = 8;
/// Looks for which the child may then go on; twice as many the next time, because a busy box may not let it run at once.
const HELP_LOOKS: u32 = 4;
const HELP_LOOKS_MAX: u32 = 128;

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

    /// Returns some of those that do not stand still, where that can be told.
    pub(crate) fn describe_running(&self) -> String {
        match self {
            Means::Switch(_) => String::new(),
            Means::Signals(signals) => signals.describe(),
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
    help: Help,
    /// All that were told to stop. One that was missed later on must go on all the same.
    told: HashSet<ProcessId>,
}

/// Children that may go on for some looks, so that their parents can stop.
struct Help {
    next: u32,
    until: u32,
    looks: u32,
    children: Vec<i32>,
}

impl Signals {
    fn begin(init: i32) -> Signals {
        let before =
            process::descendants_by_children(init).into_iter().filter(|pid| process::is_stopped(*pid));
        let stopped_before = before.filter_map(ProcessId::of).collect();
        let help = Help { next: HELP_AFTER, until: 0, looks: HELP_LOOKS, children: Vec::new() };
        let mut signals = Signals { init, stopped_before, still: None, looks: 0, help, told: HashSet::new() };
        signals.advance();
        signals
    }

    fn find_running(&self) -> Vec<i32> {
        process::descendants_by_children(self.init)
            .into_iter()
            .filter(|pid| !process::stands_still(*pid))
            .collect()
    }

    /// Two looks in a row must find the same processes, all stopped: what was just forked may be missed once.
    fn advance(&mut self) -> bool {
        self.looks += 1;
        let all = process::descendants_by_children(self.init);
        let running: Vec<i32> = all.iter().copied().filter(|pid| !process::stands_still(*pid)).collect();
        if running.is_empty() {
            return self.still.replace(all.clone()).is_some_and(|before| before == all);
        }
        self.still = None;
        let is_helped = |pid: &i32| self.looks < self.help.until && self.help.children.contains(pid);
        let to_stop = running.iter().copied().filter(|pid| !is_helped(pid));
        for process in to_stop.filter_map(ProcessId::of) {
            self.told.insert(process);
            process.signal(libc::SIGSTOP);
        }
        if self.looks >= self.help.next {
            self.help(running);
        }
        false
    }

    /// A process in vfork(2) cannot stop before its child has its own program, and the child cannot go on.
    fn help(&mut self, running: Vec<i32>) {
        let waiting = running.into_iter().filter(|pid| process::hangs_in_kernel(*pid));
        self.help.children = waiting.flat_map(process::children).collect();
        for pid in &self.help.children {
            self.let_go(*pid);
        }
        self.help.until = self.looks + self.help.looks;
        self.help.next = self.help.until + HELP_AFTER;
        self.help.looks = (self.help.looks * 2).min(HELP_LOOKS_MAX);
    }

    fn end(&self) {
        let mut left = self.told.clone();
        for pid in process::descendants_by_children(self.init).into_iter().rev() {
            self.let_go(pid);
            left.retain(|process| process.pid != pid);
        }
        for process in left {
            process.signal(libc::SIGCONT);
        }
    }

    /// Returns who does not stand still, for people.
    fn describe(&self) -> String {
        let running = self.find_running().into_iter().take(4);
        let texts: Vec<String> = running.map(|pid| format!("{pid} ({})", process::states(pid))).collect();
        texts.join(", ")
    }

    fn let_go(&self, pid: i32) {
        if let Some(process) = ProcessId::of(pid).filter(|process| !self.stopped_before.contains(process)) {
            process.signal(libc::SIGCONT);
        }
    }
}

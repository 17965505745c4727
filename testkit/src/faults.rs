//! Faults at the ports: every call passes here, is counted by name, and one of them can be made to fail, to end the
//! control plane before or after its effect, or to happen twice.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use trackbed_core::ports::PortError;

/// One call of a port: `engine.start#3` is the third start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Port and method.
    pub name: &'static str,
    /// From 1, by name.
    pub number: u32,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.number)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is refused, and has no effect.
    FailOnce,
    /// The control plane ends before the effect.
    CrashBefore,
    /// The control plane ends after the effect, without having heard of it.
    CrashAfter,
    /// The effect happens twice.
    Repeat,
    /// It never answers, and has no effect.
    Hang,
}

impl Mode {
    /// The modes that cost no time. A call that hangs may take as long as the longest deadline.
    pub const ALL: [Mode; 4] = [Mode::FailOnce, Mode::CrashBefore, Mode::CrashAfter, Mode::Repeat];

    /// Returns the modes in which a call can differ: one that only reads has no effect to come after or to repeat.
    pub fn of(call: &Call) -> &'static [Mode] {
        if READS.contains(&call.name) { &[Mode::FailOnce, Mode::CrashBefore] } else { &Mode::ALL }
    }
}

/// Every call that passes here.
pub const CALLS: [&str; 32] = [
    "builder.build",
    "builder.plan",
    "edge.apply",
    "edge.cut",
    "edge.end_streams",
    "edge.probe",
    "edge.stats",
    "engine.address",
    "engine.free_port",
    "engine.freeze",
    "engine.inspect",
    "engine.list",
    "engine.listeners",
    "engine.logs",
    "engine.remove",
    "engine.start",
    "engine.stats",
    "engine.stop",
    "engine.stray_files",
    "volumes.adopt",
    "volumes.capture",
    "volumes.collect",
    "volumes.compare",
    "volumes.discard",
    "volumes.ensure",
    "volumes.erase",
    "volumes.prove",
    "volumes.read_ahead",
    "volumes.schemas",
    "volumes.stage",
    "volumes.swap_back",
    "volumes.swap_in",
];

/// Calls of those who keep the disk free, for which no deployment ever waits.
pub const KEEPERS_CALLS: [&str; 3] = ["builder.collect", "builder.drop_caches", "volumes.space"];

/// Calls that are made only where an owner has set a limit.
const RARE_CALLS: [&str; 2] = ["engine.exec", "volumes.used_bytes"];

/// Calls without an effect.
const READS: [&str; 18] = [
    "edge.probe",
    "edge.stats",
    "engine.address",
    "engine.inspect",
    "engine.lease",
    "engine.list",
    "engine.listeners",
    "engine.logs",
    "engine.stats",
    "engine.stray_files",
    "builder.check",
    "builder.plan",
    "builder.preflight",
    "builder.suspects",
    "volumes.compare",
    "volumes.read_ahead",
    "volumes.schemas",
    "volumes.space",
];

/// A fault to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// At which call.
    pub call: Call,
    /// What happens to it.
    pub mode: Mode,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.mode, self.call)
    }
}

/// The gate that every call passes. Clones share it.
#[derive(Clone, Debug)]
pub struct Faults {
    inner: Arc<Mutex<Inner>>,
    crashes: Arc<watch::Sender<u32>>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: BTreeMap<&'static str, u32>,
    calls: Vec<Call>,
    is_recording: bool,
    armed: Option<Fault>,
    has_struck: bool,
    /// Calls of this name never answer.
    hanging: Option<&'static str>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { inner: Arc::default(), crashes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Faults {
    /// Forgets all counts and begins to record; the next calls are number 1 of their names.
    pub fn record(&self) {
        let mut inner = self.lock();
        *inner = Inner { is_recording: true, hanging: inner.hanging, ..Inner::default() };
    }

    /// Ends the recording and returns the calls since [`Faults::record`], in their order.
    pub fn recorded(&self) -> Vec<Call> {
        let mut inner = self.lock();
        inner.is_recording = false;
        std::mem::take(&mut inner.calls)
    }

    /// Forgets all counts and lets a fault strike, once.
    pub fn arm(&self, fault: Fault) {
        let mut inner = self.lock();
        *inner = Inner { armed: Some(fault), hanging: inner.hanging, ..Inner::default() };
    }

    /// Returns whether the armed fault has struck.
    pub fn has_struck(&self) -> bool {
        self.lock().has_struck
    }

    /// Returns a receiver that changes when the control plane has to end.
    pub fn crashes(&self) -> watch::Receiver<u32> {
        self.crashes.subscribe()
    }

    /// Lets every call of a name hang from now on: it has no effect and never answers. None mends it.
    pub fn hang(&self, name: Option<&'static str>) {
        self.lock().hanging = name;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    fn enter(&self, name: &'static str) -> Option<Fault> {
        debug_assert!(
            RARE_CALLS.contains(&name) || CALLS.contains(&name) || KEEPERS_CALLS.contains(&name),
            "{name} is missing in the lists"
        );
        let mut inner = self.lock();
        let count = inner.counts.entry(name).or_default();
        *count += 1;
        let call = Call { name, number: *count };
        if inner.is_recording {
            inner.calls.push(call.clone());
        }
        let strikes = inner.armed.as_ref().is_some_and(|fault| fault.call == call);
        inner.has_struck |= strikes;
        strikes.then(|| inner.armed.take()).flatten()
    }

    async fn crash<T>(&self) -> T {
        self.crashes.send_modify(|count| *count += 1);
        std::future::pending().await
    }

    /// Runs a call through the gate. `refusal` makes the answer of a call that is refused.
    pub(crate) async fn pass<T, F>(
        &self,
        name: &'static str,
        refusal: impl FnOnce(PortError) -> T,
        effect: impl Fn() -> F,
    ) -> T
    where
        F: Future<Output = T>,
    {
        if self.lock().hanging == Some(name) {
            return std::future::pending().await;
        }
        let Some(fault) = self.enter(name) else { return effect().await };
        match fault.mode {
            Mode::FailOnce => refusal(PortError::new(format!("injected: {fault}"))),
            Mode::CrashBefore => self.crash().await,
            Mode::CrashAfter => {
                effect().await;
                self.crash().await
            }
            Mode::Hang => std::future::pending().await,
            Mode::Repeat => {
                effect().await;
                effect().await
            }
        }
    }
}

/// Runs a scenario once to learn its calls, then once for every one of them and every mode that differs.
///
/// `learn` runs it without a fault and returns the calls; `run` runs it with one. Both make their own runtime.
/// Returns how many runs there were.
pub fn every_call(learn: impl FnOnce() -> Vec<Call>, mut run: impl FnMut(Fault)) -> usize {
    let mut runs = 0;
    for call in learn() {
        for &mode in Mode::of(&call) {
            run(Fault { call: call.clone(), mode });
            runs += 1;
        }
    }
    runs
}

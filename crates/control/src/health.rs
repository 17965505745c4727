//! The health gate and the port doctor: waits until an instance answers as it should, or says why it does not.

use std::time::Duration;

use tokio::time::Instant;
use trackbed_core::InstanceId;
use trackbed_core::instance::{Exit, InstanceState, InstanceStatus, Listener};
use trackbed_core::ports::Probe;
use trackbed_core::route::Target;
use trackbed_core::settings::HealthCheck;

use crate::control::{Control, ControlError};

/// The host that Railway's own checks send; apps that list it in their allowed hosts expect it.
const RAILWAY_HOST: &str = "healthcheck.railway.app";
/// Longest wait for one answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an app may listen nowhere or elsewhere before the port doctor looks for it.
const DOCTOR_AFTER: Duration = Duration::from_secs(2);
/// Without a health path, an instance must go on accepting for this long: a server that binds its port and then fails
/// to load the app (gunicorn with a bad import) is not healthy.
const SETTLE: Duration = Duration::from_secs(2);

/// What is waited for.
pub(crate) struct Gate<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) port: u16,
    pub(crate) check: &'a HealthCheck,
    /// The service's public host, which the app must accept anyway.
    pub(crate) host: &'a str,
    pub(crate) timeout: Duration,
    /// Whether it is a release that was not live yet: then a process beside the main one that fails closes the gate, and
    /// each must have run for a moment.
    pub(crate) is_new: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It answers on this port.
    Healthy {
        port: u16,
        /// Something the owner should mend all the same.
        warning: Option<String>,
        /// When it first accepted a connection and first answered well, from the beginning of the wait.
        timeline: Timeline,
    },
    /// It ended.
    Ended(Exit),
    /// A process beside the main one failed.
    SideFailed { process: String, exit: Exit },
    /// The time was over.
    TimedOut { last: Option<Probe>, listeners: Vec<Listener> },
}

/// What a start took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeline {
    pub(crate) listened: Duration,
    pub(crate) healthy: Duration,
}

impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (listened, healthy) = (self.listened.as_secs_f64(), self.healthy.as_secs_f64());
        write!(f, "listening after {listened:.2} s, healthy after {healthy:.2} s")
    }
}

/// Shortest wait after an answer that was not good.
const PAUSE_AFTER_BAD_ANSWER: Duration = Duration::from_millis(250);

/// Waits between probes: quick while a start is young, because every wait is time that callers are parked.
fn pause(waited: Duration) -> Duration {
    match waited.as_secs() {
        0 => Duration::from_millis(10),
        1..3 => Duration::from_millis(25),
        3..30 => Duration::from_millis(200),
        _ => Duration::from_secs(1),
    }
}

impl Control {
    /// Waits until the gate opens. Dropping the future is fine.
    pub(crate) async fn await_healthy(&self, gate: &Gate<'_>) -> Result<Verdict, ControlError> {
        let began = Instant::now();
        let mut port = gate.port;
        let mut warning = None;
        let mut last = None;
        let mut doctor_due = DOCTOR_AFTER;
        let mut accepting_since: Option<Instant> = None;
        let mut listened = None;
        let mut all_run_since: Option<Instant> = None;
        loop {
            let status = self.inner.engine.inspect(gate.instance).await?;
            if let Some(exit) = end_of(status.as_ref()) {
                return Ok(Verdict::Ended(exit));
            }
            let sides = status.map(|status| status.processes).filter(|_| gate.is_new).unwrap_or_default();
            if let Some(side) = sides.iter().find(|side| side.failures > 0) {
                let exit = side.last.clone().unwrap_or(Exit::Lost);
                return Ok(Verdict::SideFailed { process: side.name.clone(), exit });
            }
            if sides.iter().all(|side| side.since.is_some() || side.ends > 0) {
                all_run_since.get_or_insert_with(Instant::now);
            }
            // Whoever holds callers for less than that has chosen so.
            let settle = SETTLE.min(gate.timeout / 2);
            let sides_stay = sides.is_empty() || all_run_since.is_some_and(|since| since.elapsed() >= settle);
            let waited = began.elapsed();
            if waited >= gate.timeout {
                let listeners = self.inner.engine.listeners(gate.instance).await.unwrap_or_default();
                return Ok(Verdict::TimedOut { last, listeners });
            }
            let limit = PROBE_TIMEOUT.min(gate.timeout - waited);
            let probe = self.probe(gate, port, gate.host, limit).await?;
            if probe != Probe::Refused {
                listened.get_or_insert_with(|| began.elapsed());
            }
            let timeline = || Timeline { listened: listened.unwrap_or_default(), healthy: began.elapsed() };
            match &probe {
                Probe::Answered { status: 200, .. } if gate.check.path.is_some() && !sides_stay => {}
                Probe::Answered { status: 200, .. } if gate.check.path.is_some() => {
                    return Ok(Verdict::Healthy { port, warning, timeline: timeline() });
                }
                Probe::Answered { .. } if gate.check.path.is_none() => {
                    if accepting_since.get_or_insert_with(Instant::now).elapsed() >= SETTLE && sides_stay {
                        return Ok(Verdict::Healthy { port, warning, timeline: timeline() });
                    }
                }
                Probe::Answered { status: 400 | 403 | 421, .. } => {
                    let again = self.probe(gate, port, RAILWAY_HOST, limit).await?;
                    if matches!(again, Probe::Answered { status: 200, .. }) {
                        let text = format!(
                            "the app refuses its own host `{}` but accepts `{RAILWAY_HOST}`: add `{}` to its allowed hosts",
                            gate.host, gate.host
                        );
                        return Ok(Verdict::Healthy { port, warning: Some(text), timeline: timeline() });
                    }
                }
                Probe::Answered { .. } | Probe::Broken { .. } => accepting_since = None,
                Probe::Refused => {
                    accepting_since = None;
                    if waited >= doctor_due {
                        doctor_due = waited + Duration::from_secs(1);
                        if let Some((found, text)) = self.find_port(gate, port).await {
                            port = found;
                            warning = Some(text);
                        }
                    }
                }
            }
            // An app that answers badly is asked less often: its log is for what it says of itself.
            let refused = matches!(probe, Probe::Answered { status, .. } if status != 200 || !sides_stay);
            let wait = if refused { pause(waited).max(PAUSE_AFTER_BAD_ANSWER) } else { pause(waited) };
            last = Some(probe);
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns how an instance ended, or none while it lives.
    pub(crate) async fn ended(&self, instance: &InstanceId) -> Result<Option<Exit>, ControlError> {
        Ok(end_of(self.inner.engine.inspect(instance).await?.as_ref()))
    }

    async fn probe(
        &self,
        gate: &Gate<'_>,
        port: u16,
        host: &str,
        limit: Duration,
    ) -> Result<Probe, ControlError> {
        let Ok(address) = self.inner.engine.address(gate.instance, port).await else {
            return Ok(Probe::Refused);
        };
        let target = Target { instance: gate.instance.clone(), address };
        let probe = self.inner.edge.probe(&target, gate.check.path.as_deref(), host, limit).await;
        // Where ports are shared, somebody else may answer there: the old release, or another service.
        if probe != Probe::Refused
            && self.inner.engine.shares_ports()
            && let Ok(listeners) = self.inner.engine.listeners(gate.instance).await
            && !listeners.iter().any(|listener| listener.port == port)
        {
            return Ok(Probe::Refused);
        }
        Ok(probe)
    }

    /// The port doctor: when the app listens on exactly one port, and it is not the one it was told, that one is meant.
    async fn find_port(&self, gate: &Gate<'_>, told: u16) -> Option<(u16, String)> {
        let listeners = self.inner.engine.listeners(gate.instance).await.ok()?;
        let mut ports: Vec<u16> = listeners.iter().map(|listener| listener.port).collect();
        ports.sort_unstable();
        ports.dedup();
        match ports[..] {
            [found] if found != told => Some((
                found,
                format!(
                    "the app listens on port {found}, not on $PORT ({told}); it is served there, but better let it listen on $PORT"
                ),
            )),
            _ => None,
        }
    }
}

fn end_of(status: Option<&InstanceStatus>) -> Option<Exit> {
    match status.map(|status| &status.state) {
        Some(InstanceState::Ended { exit, .. }) => Some(exit.clone()),
        Some(InstanceState::Starting | InstanceState::Running) => None,
        None => Some(Exit::Lost),
    }
}

//! What a pushed source does when it is planned, built and run: the script of one fake release.

use std::time::Duration;

use trackbed_core::ProcessName;
use trackbed_core::finding::Finding;
use trackbed_core::instance::Exit;
use trackbed_core::plan::Warning;
use trackbed_core::ports::{PortError, Preflight, StrayFile};
use trackbed_core::process::ProcessStatus;
use trackbed_core::settings::{
    DRAIN_TIMEOUT_DEFAULT, HealthCheck, Limits, RestartMode, RestartPolicy, STOP_GRACE_DEFAULT,
    ServiceConfig, VolumeRequest,
};

/// How an app answers a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With a status, and the detail that an edge would quote.
    Status(u16, String),
    /// With 200 for this host only, 400 for every other.
    OnlyHost(String),
    /// Accepts and says nothing.
    Silence,
}

/// How an app ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// After this much time.
    pub after: Duration,
    /// How.
    pub exit: Exit,
    /// Only the first so many starts end so; none means all.
    pub starts: Option<u32>,
}

/// A fake release.
#[derive(Debug, Clone)]
pub struct App {
    /// Names the source; the same name is the same source.
    pub name: String,
    /// Why it cannot be planned.
    pub plan_error: Option<PortError>,
    /// What the plan warns of.
    pub warnings: Vec<Warning>,
    /// What a look at its source finds.
    pub findings: Vec<Finding>,
    /// What a look at its image before it is started comes to.
    pub preflight: Preflight,
    /// How long its build takes.
    pub build_takes: Duration,
    /// Why it cannot be built, after the time it takes.
    pub build_error: Option<PortError>,
    /// The configuration that its plan decides.
    pub config: ServiceConfig,
    /// When it begins to listen; none means never.
    pub listens_after: Option<Duration>,
    /// The ports that it listens on instead of the one it was told.
    pub other_ports: Vec<u16>,
    /// What it answers.
    pub answer: Answer,
    /// How it ends by itself.
    pub ending: Option<Ending>,
    /// What it writes at its start, one line after the other.
    pub prints: Vec<String>,
    /// How the command before its start ends, on a copy of the data and in earnest.
    pub pre_deploy: PreDeploy,
    /// Whether it writes to its volumes when it starts.
    pub writes: bool,
    /// How much must have been written to its volumes before it, or it ends at once: what older data does to a release.
    pub needs_writes: usize,
    /// What it writes outside its volumes.
    pub strays: Vec<StrayFile>,
    /// How processes beside its main one do, from its start on.
    pub processes: Vec<ProcessStatus>,
    /// Whether SIGTERM does nothing.
    pub ignores_term: bool,
    /// How long it takes to end after SIGTERM.
    pub stop_takes: Duration,
}

/// How the command before the start of an app ends.
#[derive(Debug, Clone)]
pub struct PreDeploy {
    /// After how long.
    pub takes: Duration,
    /// On a copy of the data.
    pub on_a_copy: Exit,
    /// On the data itself.
    pub in_earnest: Exit,
}

impl App {
    /// Makes an app that builds in 100 ms, is healthy 60 ms after its start and ends 40 ms after SIGTERM.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            plan_error: None,
            warnings: Vec::new(),
            findings: Vec::new(),
            preflight: Preflight::Passed { found: "it is a fake".into(), warnings: Vec::new() },
            build_takes: Duration::from_millis(100),
            build_error: None,
            config: ServiceConfig {
                start_command: format!("serve {name}"),
                main: ProcessName::default(),
                processes: Vec::new(),
                health: HealthCheck { path: Some("/health".into()), timeout: Duration::from_secs(20) },
                restart: RestartPolicy { mode: RestartMode::OnFailure, max_retries: 10 },
                limits: Limits::default(),
                port: None,
                volumes: Vec::new(),
                required_mount: None,
                stop_grace: STOP_GRACE_DEFAULT,
                drain_timeout: DRAIN_TIMEOUT_DEFAULT,
                hold_window: None,
                handover: None,
                shared: false,
                rehearse: false,
                pre_deploy: None,
                pre_deploy_untried: false,
                cron: None,
                watch_patterns: Vec::new(),
                variables: Vec::new(),
            },
            listens_after: Some(Duration::from_millis(60)),
            other_ports: Vec::new(),
            answer: Answer::Status(200, "ok".into()),
            ending: None,
            prints: Vec::new(),
            pre_deploy: PreDeploy {
                takes: Duration::from_millis(30),
                on_a_copy: Exit::Code { code: 0 },
                in_earnest: Exit::Code { code: 0 },
            },
            writes: true,
            needs_writes: 0,
            strays: Vec::new(),
            processes: Vec::new(),
            ignores_term: false,
            stop_takes: Duration::from_millis(40),
        }
    }

    /// Runs a command before its start.
    #[must_use]
    pub fn prepares(mut self, on_a_copy: Exit, in_earnest: Exit) -> Self {
        self.config.pre_deploy = Some("migrate".into());
        self.pre_deploy = PreDeploy { on_a_copy, in_earnest, ..self.pre_deploy };
        self
    }

    /// Asks for a volume named `data` at `/data`.
    #[must_use]
    pub fn with_volume(self) -> Self {
        self.with_volume_at("data", "/data")
    }

    /// Asks for a volume.
    ///
    /// # Panics
    /// When name or path is none.
    #[must_use]
    pub fn with_volume_at(mut self, name: &str, mount: &str) -> Self {
        self.config.volumes.push(VolumeRequest {
            name: name.parse().expect("the test gives a name"),
            mount: mount.parse().expect("the test gives a mount path"),
        });
        self
    }

    /// Never listens.
    #[must_use]
    pub fn never_healthy(mut self) -> Self {
        self.listens_after = None;
        self
    }

    /// Answers every probe with a status.
    #[must_use]
    pub fn answers(mut self, status: u16, detail: &str) -> Self {
        self.answer = Answer::Status(status, detail.to_owned());
        self
    }

    /// Ends by itself, every time it is started.
    #[must_use]
    pub fn ends(mut self, after: Duration, exit: Exit) -> Self {
        self.ending = Some(Ending { after, exit, starts: None });
        self
    }

    /// Ends by itself, the first so many times it is started.
    #[must_use]
    pub fn ends_at_first(mut self, starts: u32, after: Duration, exit: Exit) -> Self {
        self.ending = Some(Ending { after, exit, starts: Some(starts) });
        self
    }

    /// Is restarted in this way.
    #[must_use]
    pub fn restarts(mut self, mode: RestartMode, max_retries: u32) -> Self {
        self.config.restart = RestartPolicy { mode, max_retries };
        self
    }

    /// Writes these lines at its start.
    #[must_use]
    pub fn prints(mut self, lines: &[&str]) -> Self {
        self.prints = lines.iter().map(|&line| line.to_owned()).collect();
        self
    }
}

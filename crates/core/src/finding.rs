//! What a look at a source finds before anything of it runs: a rule, a place, why it matters, and the mend.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A deployment would be refused, its app would not start, or data would be lost.
    Error,
    /// The app starts, and something does not work as its owner means it.
    Warning,
    /// Good to know.
    Note,
}

impl Level {
    /// Returns the word, which is SARIF's, too.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is looked for. The ids are kept for ever: people name them in their own tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Nothing says how the app starts.
    StartMissing,
    /// The source cannot be planned for another reason.
    PlanRefused,
    /// A database lies outside every volume.
    DataOutside,
    /// A variable that the app cannot do without is not set.
    VariableUnset,
    /// The app listens on a fixed port.
    PortFixed,
    /// The app listens on the loopback address only.
    LoopbackOnly,
    /// Nothing asks the app whether it is healthy.
    HealthUnset,
    /// No route answers the health path.
    HealthUnanswered,
    /// The health path asks for a login.
    HealthProtected,
    /// Event streams are compressed or collected on their way.
    StreamHeldBack,
    /// Several processes write to a store that is made for one.
    SeveralWriters,
    /// The interpreter's SQLite has a fault that can damage databases.
    SqliteOld,
    /// The tree is too large to be looked at as a whole.
    LookBounded,
}

impl Rule {
    /// Every rule, in the order of the documentation.
    pub const ALL: [Rule; 13] = [
        Rule::StartMissing,
        Rule::PlanRefused,
        Rule::DataOutside,
        Rule::VariableUnset,
        Rule::PortFixed,
        Rule::LoopbackOnly,
        Rule::HealthUnset,
        Rule::HealthUnanswered,
        Rule::HealthProtected,
        Rule::StreamHeldBack,
        Rule::SeveralWriters,
        Rule::SqliteOld,
        Rule::LookBounded,
    ];

    /// Returns the id.
    pub fn id(self) -> &'static str {
        match self {
            Rule::StartMissing => "start-missing",
            Rule::PlanRefused => "plan-refused",
            Rule::DataOutside => "data-outside-volume",
            Rule::VariableUnset => "variable-unset",
            Rule::PortFixed => "port-fixed",
            Rule::LoopbackOnly => "loopback-only",
            Rule::HealthUnset => "health-unset",
            Rule::HealthUnanswered => "health-unanswered",
            Rule::HealthProtected => "health-protected",
            Rule::StreamHeldBack => "stream-held-back",
            Rule::SeveralWriters => "several-writers",
            Rule::SqliteOld => "sqlite-old",
            Rule::LookBounded => "look-bounded",
        }
    }

    /// Returns one sentence: what is wrong where this is found.
    pub fn summary(self) -> &'static str {
        match self {
            Rule::StartMissing => "Nothing says how the app starts.",
            Rule::PlanRefused => "The source cannot be deployed as it is.",
            Rule::DataOutside => "A database lies outside every volume.",
            Rule::VariableUnset => "A variable that the app cannot do without is not set.",
            Rule::PortFixed => "The app listens on a port of its own choice.",
            Rule::LoopbackOnly => "The app listens on the loopback address only.",
            Rule::HealthUnset => "Nothing asks the app whether it is healthy.",
            Rule::HealthUnanswered => "No route answers the health path.",
            Rule::HealthProtected => "The health path asks for a login.",
            Rule::StreamHeldBack => "Event streams are compressed or collected on their way.",
            Rule::SeveralWriters => "Several processes write to a store that is made for one.",
            Rule::SqliteOld => "The interpreter's SQLite has a fault that can damage databases.",
            Rule::LookBounded => "The source is too large to be looked at as a whole.",
        }
    }

    /// Returns what it means and what to do, in a few sentences.
    pub fn help(self) -> &'static str {
        match self {
            Rule::StartMissing => {
                "Say how the app starts: `deploy.startCommand` in railway.json, a line `web: …` in a Procfile, or \
                 `trackbed up --start`."
            }
            Rule::PlanRefused => {
                "`trackbed plan` fails with the same words, and so would `trackbed up`. Mend the file and line that it names."
            }
            Rule::DataOutside => {
                "What an app writes outside its volumes is lost with the next release. Four slashes make an SQLite URL \
                 absolute: `sqlite:////data/app.db`. Put the file below the mount path of a volume, or mount one where it lies."
            }
            Rule::VariableUnset => {
                "The app ends at its start when the variable is missing. Set it before the deploy: \
                 `trackbed variables set NAME=…`."
            }
            Rule::PortFixed => {
                "The platform says in `PORT` where it sends requests. Listen there, or set the variable PORT to the app's port."
            }
            Rule::LoopbackOnly => {
                "An app that listens on 127.0.0.1 cannot be reached from outside its sandbox on every platform. Listen on 0.0.0.0."
            }
            Rule::HealthUnset => {
                "Without a health path a release counts as healthy as soon as it accepts connections. Name a path that \
                 answers 200 when the app can work: `healthcheckPath` under `deploy`."
            }
            Rule::HealthUnanswered => {
                "A release becomes live only when its health path answers 200. Add the route, or mend `healthcheckPath`."
            }
            Rule::HealthProtected => {
                "The health gate has no login: a path that answers 401 or 403 fails every deploy. Leave it open."
            }
            Rule::StreamHeldBack => {
                "Server-Sent Events must reach the client one by one. Middleware that compresses or collects bodies keeps \
                 them until the stream ends. Leave `text/event-stream` alone there."
            }
            Rule::SeveralWriters => {
                "Embedded stores such as Chroma and DuckDB expect one process. Run one worker, or run the store as a server."
            }
            Rule::SqliteOld => {
                "SQLite before 3.51.3 (3.50.7, 3.44.6) can damage a database in WAL mode when one connection writes while \
                 another checkpoints. Use a Python whose SQLite is newer."
            }
            Rule::LookBounded => "What was left out is not known to be right.",
        }
    }

    /// Returns the level that it has at worst.
    pub fn worst(self) -> Level {
        match self {
            Rule::StartMissing
            | Rule::PlanRefused
            | Rule::DataOutside
            | Rule::VariableUnset
            | Rule::HealthProtected
            | Rule::SeveralWriters => Level::Error,
            Rule::PortFixed
            | Rule::LoopbackOnly
            | Rule::HealthUnset
            | Rule::HealthUnanswered
            | Rule::StreamHeldBack
            | Rule::SqliteOld => Level::Warning,
            Rule::LookBounded => Level::Note,
        }
    }
}

/// Something that was found. Holds no value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// How bad it is here.
    pub level: Level,
    /// File relative to the source, when there is one.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// What stands there.
    pub what: String,
    /// What comes of it.
    pub why: String,
    /// What to do about it.
    pub mend: String,
}

impl Finding {
    /// Returns `main.py:14`, `main.py`, or nothing.
    pub fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            (None, _) => String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}; {} ({})", self.what, self.why, self.mend, self.rule.id())
    }
}

/// What a look found, and how much it saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// The worst first, then by place.
    pub list: Vec<Finding>,
    /// Files that were read.
    pub files_read: usize,
}

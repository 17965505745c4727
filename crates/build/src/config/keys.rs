//! The keys of a service: one name each, the names that others give them, and how a value is parsed.

use std::fmt;
use std::time::Duration;

use trackbed_core::cron::CronSchedule;
use trackbed_core::ids::ParseError;
use trackbed_core::settings::{Handover, RestartMode};
use trackbed_core::volume::MountPath;

/// A key that Trackbed knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Builder,
    Dockerfile,
    DockerfileTarget,
    Image,
    BuildCommand,
    StartCommand,
    HealthPath,
    HealthTimeout,
    RestartMode,
    MaxRetries,
    StopGrace,
    DrainTimeout,
    HoldWindow,
    Handover,
    Shared,
    Rehearse,
    PreDeploy,
    PreDeployTrial,
    Cron,
    WatchPatterns,
    Port,
    RequiredMount,
    Memory,
    Cpu,
    StaticRoot,
    StaticSpa,
}

/// A value that was checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Setting {
    /// A command, a path, a builder's name.
    Text(String),
    /// A time.
    Time(Duration),
    /// When to restart.
    Restart(RestartMode),
    /// A count, a port, bytes, or thousandths of a CPU.
    Number(u64),
    /// A place for a volume.
    Mount(MountPath),
    /// How traffic moves.
    Handover(Handover),
    /// Yes or no.
    Flag(bool),
    /// When a job runs.
    Cron(CronSchedule),
    /// Patterns of paths.
    List(Vec<String>),
}

/// Every key, in the order in which `trackbed plan` prints them, with its names; the first is ours.
const KEYS: [(Key, &[&str]); 26] = [
    (Key::Builder, &["build.builder"]),
    (Key::Dockerfile, &["build.dockerfilePath", "build.dockerfile"]),
    (Key::DockerfileTarget, &["build.dockerfileTarget", "build.target"]),
    (Key::Image, &["build.image", "image"]),
    (Key::BuildCommand, &["build.buildCommand", "build.command"]),
    (Key::StartCommand, &["deploy.startCommand", "start"]),
    (Key::HealthPath, &["deploy.healthcheckPath"]),
    (Key::HealthTimeout, &["deploy.healthcheckTimeout"]),
    (Key::RestartMode, &["deploy.restartPolicyType"]),
    (Key::MaxRetries, &["deploy.restartPolicyMaxRetries"]),
    (Key::StopGrace, &["deploy.stopGraceSeconds"]),
    (Key::DrainTimeout, &["deploy.drainingSeconds", "deploy.drainSeconds"]),
    (Key::HoldWindow, &["deploy.holdSeconds"]),
    (Key::Handover, &["deploy.handover"]),
    (Key::Shared, &["deploy.shared"]),
    (Key::Rehearse, &["deploy.rehearse"]),
    (Key::PreDeploy, &["deploy.preDeployCommand", "deploy.pre_deploy"]),
    (Key::PreDeployTrial, &["deploy.preDeployTrial", "deploy.pre_deploy_trial"]),
    (Key::Cron, &["deploy.cronSchedule"]),
    (Key::WatchPatterns, &["build.watchPatterns"]),
    (Key::Port, &["deploy.port", "port"]),
    (Key::RequiredMount, &["deploy.requiredMountPath"]),
    (Key::Memory, &["limits.memory", "deploy.limitOverride.containers.memoryBytes"]),
    (Key::Cpu, &["limits.cpu", "deploy.limitOverride.containers.cpu"]),
    (Key::StaticRoot, &["static.root"]),
    (Key::StaticSpa, &["static.spa"]),
];

/// Longest time that a setting may ask for.
const TIME_MAX_SECONDS: f64 = 7.0 * 86_400.0;

impl Key {
    /// Returns every key.
    pub(crate) fn all() -> impl Iterator<Item = Key> {
        KEYS.iter().map(|(key, _)| *key)
    }

    /// Finds a key by any of its dotted names.
    pub(crate) fn find(name: &str) -> Option<Key> {
        KEYS.iter().find(|(_, names)| names.contains(&name)).map(|(key, _)| *key)
    }

    /// Returns our name.
    pub(crate) fn name(self) -> &'static str {
        KEYS.iter().find(|(key, _)| *key == self).map_or("", |(_, names)| names[0])
    }

    /// Returns whether a file writes the value as a number; numbers in quotes are understood too.
    pub(crate) fn is_number(self) -> bool {
        match self {
            Key::HealthTimeout
            | Key::MaxRetries
            | Key::StopGrace
            | Key::DrainTimeout
            | Key::HoldWindow
            | Key::Port
            | Key::Memory
            | Key::Cpu => true,
            Key::Builder
            | Key::Dockerfile
            | Key::DockerfileTarget
            | Key::Image
            | Key::BuildCommand
            | Key::StartCommand
            | Key::HealthPath
            | Key::RestartMode
            | Key::Handover
            | Key::Shared
            | Key::Rehearse
            | Key::PreDeploy
            | Key::PreDeployTrial
            | Key::Cron
            | Key::WatchPatterns
            | Key::RequiredMount
            | Key::StaticRoot
            | Key::StaticSpa => false,
        }
    }

    /// Returns whether a file writes the value as `true` or `false`.
    pub(crate) fn is_flag(self) -> bool {
        matches!(self, Key::Shared | Key::Rehearse | Key::PreDeployTrial | Key::StaticSpa)
    }

    /// Parses a value; the error says what is expected.
    pub(crate) fn parse(self, text: &str) -> Result<Setting, String> {
        let text = text.trim();
        let number = || text.parse::<u64>().ok().or_else(|| text.strip_suffix(".0")?.parse().ok());
        match self {
            Key::Builder => Ok(Setting::Text(text.to_uppercase())),
            Key::Dockerfile if text.is_empty() => Err("a path such as `Dockerfile`".to_owned()),
            Key::Image if text.is_empty() || text.contains(char::is_whitespace) || text.contains("://") => {
                Err("the name of an image such as `redis:7`".to_owned())
            }
            Key::DockerfileTarget if text.is_empty() || text.contains(char::is_whitespace) => {
                Err("the name of a stage, as after `FROM … AS`".to_owned())
            }
            Key::Dockerfile | Key::DockerfileTarget | Key::Image => Ok(Setting::Text(text.to_owned())),
            Key::StartCommand | Key::BuildCommand | Key::PreDeploy if text.is_empty() => {
                Err("a command".to_owned())
            }
            Key::StartCommand | Key::BuildCommand | Key::PreDeploy => Ok(Setting::Text(text.to_owned())),
            Key::Cron => text.parse().map(Setting::Cron).map_err(|error: ParseError| error.wanted.to_owned()),
            Key::WatchPatterns => {
                Ok(Setting::List(text.split(',').map(|part| part.trim().to_owned()).collect()))
            }
            Key::HealthPath => {
                if text.is_empty() || text.contains(char::is_whitespace) || text.contains("://") {
                    return Err("a path such as `/health`".to_owned());
                }
                Ok(Setting::Text(format!("/{}", text.trim_start_matches('/'))))
            }
            Key::HealthTimeout | Key::StopGrace | Key::DrainTimeout | Key::HoldWindow => {
                let seconds = text.strip_suffix('s').unwrap_or(text).trim();
                let seconds = seconds.parse::<f64>().ok().filter(|seconds| {
                    (0.0..=TIME_MAX_SECONDS).contains(seconds)
                        && (!matches!(self, Key::HealthTimeout | Key::HoldWindow) || *seconds > 0.0)
                });
                seconds
                    .map(|seconds| Setting::Time(Duration::from_secs_f64(seconds)))
                    .ok_or_else(|| "a number of seconds, at most a week".to_owned())
            }
            Key::RestartMode => match text.to_uppercase().replace('-', "_").as_str() {
                "ON_FAILURE" | "ONFAILURE" => Ok(Setting::Restart(RestartMode::OnFailure)),
                "ALWAYS" => Ok(Setting::Restart(RestartMode::Always)),
                "NEVER" => Ok(Setting::Restart(RestartMode::Never)),
                _ => Err("ON_FAILURE, ALWAYS or NEVER".to_owned()),
            },
            Key::Handover => match text {
                "overlap" => Ok(Setting::Handover(Handover::Overlap)),
                "held" => Ok(Setting::Handover(Handover::Held)),
                _ => Err("\"overlap\" or \"held\"".to_owned()),
            },
            Key::Shared | Key::Rehearse | Key::PreDeployTrial | Key::StaticSpa => match text {
                "true" => Ok(Setting::Flag(true)),
                "false" => Ok(Setting::Flag(false)),
                _ => Err("true or false".to_owned()),
            },
            Key::MaxRetries => {
                let count = number().filter(|count| *count <= u64::from(u32::MAX));
                count.map(Setting::Number).ok_or_else(|| "a whole number, 0 or more".to_owned())
            }
            Key::Port => {
                let port = number().filter(|port| (1..=65_535).contains(port));
                port.map(Setting::Number).ok_or_else(|| "a port from 1 to 65535".to_owned())
            }
            Key::StaticRoot => folder(text)
                .map(Setting::Text)
                .ok_or_else(|| "a folder of the source such as `dist`, or `.` for all of it".to_owned()),
            Key::RequiredMount => text
                .parse()
                .map(Setting::Mount)
                .map_err(|_| "an absolute path such as `/data` that is not a system directory".to_owned()),
            Key::Memory => bytes(text)
                .filter(|bytes| *bytes >= 1 << 20)
                .map(Setting::Number)
                .ok_or_else(|| "an amount of memory such as \"512MB\" or \"2GB\"".to_owned()),
            Key::Cpu => {
                let cpus = text.parse::<f64>().ok().filter(|cpus| (0.01..=1024.0).contains(cpus));
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the range is checked"
                )]
                cpus.map(|cpus| Setting::Number((cpus * 1000.0).round() as u64))
                    .ok_or_else(|| "a number of CPUs such as 0.5".to_owned())
            }
        }
    }

    /// Writes a value for `trackbed plan`.
    pub(crate) fn show(self, setting: &Setting) -> String {
        match (self, setting) {
            (Key::Memory, Setting::Number(bytes)) if bytes % (1 << 20) == 0 => format!("{}MB", bytes >> 20),
            (Key::Cpu, Setting::Number(millis)) => format!("{}.{:03}", millis / 1000, millis % 1000)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned(),
            _ => setting.to_string(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Text(text) => f.write_str(text),
            Setting::Time(time) => write!(f, "{}s", time.as_secs_f64()),
            Setting::Restart(RestartMode::OnFailure) => f.write_str("ON_FAILURE"),
            Setting::Restart(RestartMode::Always) => f.write_str("ALWAYS"),
            Setting::Restart(RestartMode::Never) => f.write_str("NEVER"),
            Setting::Number(number) => write!(f, "{number}"),
            Setting::Mount(path) => write!(f, "{path}"),
            Setting::Handover(Handover::Overlap) => f.write_str("overlap"),
            Setting::Handover(Handover::Held) => f.write_str("held"),
            Setting::Flag(yes) => write!(f, "{yes}"),
            Setting::Cron(schedule) => write!(f, "{schedule}"),
            Setting::List(items) => f.write_str(&items.join(", ")),
        }
    }
}

/// Parses a folder within the source: without `..`, and without what stands for nothing.
fn folder(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('/').map(str::trim).filter(|part| !matches!(*part, "" | ".")).collect();
    let is_plain = !text.is_empty() && !parts.iter().any(|part| *part == ".." || part.contains(['\0', '\n']));
    is_plain.then(|| if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Parses an amount: bytes, or with `KB`, `MB`, `GB`, `Ki`, `Mi`, `Gi`, `m`, `g`. All are powers of 1024, as with Docker.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        _ => return None,
    };
    let amount = number.parse::<f64>().ok()? * f64::from(1u32 << shift);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (1.0..1e15).contains(&amount).then_some(amount as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_many_spellings() {
        assert_eq!(Key::Memory.parse("512MB"), Ok(Setting::Number(512 << 20)));
        assert_eq!(Key::Memory.parse("1.5 Gi"), Ok(Setting::Number(3 << 29)));
        assert_eq!(Key::Cpu.parse("0.5"), Ok(Setting::Number(500)));
        assert_eq!(Key::Cpu.show(&Setting::Number(500)), "0.5");
        assert_eq!(Key::Cpu.show(&Setting::Number(2000)), "2");
        assert_eq!(Key::HealthPath.parse("health"), Ok(Setting::Text("/health".to_owned())));
        assert_eq!(Key::RestartMode.parse("on_failure"), Ok(Setting::Restart(RestartMode::OnFailure)));
        assert_eq!(Key::StaticRoot.parse("./web//dist/"), Ok(Setting::Text("web/dist".to_owned())));
        assert_eq!(Key::StaticRoot.parse("/"), Ok(Setting::Text(".".to_owned())));
        assert_eq!(Key::HealthTimeout.parse("300"), Ok(Setting::Time(Duration::from_secs(300))));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for (key, text) in [
            (Key::Port, "0"),
            (Key::Port, "70000"),
            (Key::HealthTimeout, "0"),
            (Key::HealthTimeout, "-1"),
            (Key::HealthTimeout, "NaN"),
            (Key::HoldWindow, "0"),
            (Key::Handover, "blue-green"),
            (Key::Shared, "yes"),
            (Key::StopGrace, "1e300"),
            (Key::MaxRetries, "1.5"),
            (Key::Memory, "lots"),
            (Key::Memory, "1"),
            (Key::Cpu, "0"),
            (Key::RequiredMount, "/etc"),
            (Key::StartCommand, "  "),
            (Key::HealthPath, "http://x/health"),
            (Key::Cron, "every day"),
            (Key::StaticRoot, "../dist"),
            (Key::StaticRoot, ""),
            (Key::StaticSpa, "index.html"),
        ] {
            assert!(key.parse(text).is_err(), "{key:?} {text}");
        }
    }
}

//! The processes that files declare beside the one that serves, and how many copies of each run.
//!
//! Those of `trackbed.toml` are joined with those of the strongest other file. Files of two platforms are never mixed: they
//! call the same process by different names, and it would run twice.

use trackbed_core::ProcessName;
use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::process::{COUNT_MAX, PROCESSES_MAX, SideProcess};
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File, expect_table};
use crate::config::keys::{Key, Setting};
use crate::config::tree::{Member, Value, brief};

/// What a stored count is called, before the name of its process.
pub(crate) const STORED_PREFIX: &str = "scale.";
/// What runs before the others, and is never started beside them.
const RELEASE: &str = "release";

/// A process that a file declares.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) name: ProcessName,
    pub(crate) command: String,
    /// Whether it is the one that gets the requests there.
    pub(crate) is_served: bool,
    pub(crate) origin: Origin,
    /// Where: `Procfile:2`.
    pub(crate) place: String,
}

/// How many copies somebody wants of a process.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) name: ProcessName,
    pub(crate) count: u32,
    pub(crate) origin: Origin,
    pub(crate) place: String,
}

/// The processes of a release.
pub(crate) struct Resolved {
    pub(crate) main: ProcessName,
    pub(crate) others: Vec<SideProcess>,
    pub(crate) settings: Vec<PlannedSetting>,
}

/// Parses a count; the error says what is expected.
pub(crate) fn parse_count(text: &str) -> Result<u32, String> {
    let count = text.trim().parse::<u32>().ok().filter(|count| *count <= COUNT_MAX);
    count.ok_or_else(|| format!("a count from 0 to {COUNT_MAX}"))
}

/// Reads `[processes]` of `trackbed.toml`: `worker = "command"` or `worker = { command = "…", count = 2 }`.
pub(crate) fn read_table(file: File<'_>, table: &Member, draft: &mut Draft) -> Result<(), PortError> {
    expect_table(file.name, table)?;
    for member in table.node.members() {
        let line = member.place.line;
        let wrong = |what: String| {
            PortError::new(format!("{}:{line}: {what}", file.name))
                .hint("write it as:\n[processes]\nworker = \"python worker.py\"")
        };
        let name: ProcessName = member
            .key
            .parse()
            .map_err(|_| wrong(format!("`{}` is not the name of a process", brief(&member.key))))?;
        if name.as_str() == RELEASE {
            let message =
                "`processes.release` is ignored: `preDeployCommand` under [deploy] runs before the start";
            draft.warn(file.name, Some(line), message);
            continue;
        }
        let (command, count) = match &member.node.value {
            Value::Text(_) => (Some(&member.node), None),
            Value::Table(_) => (member.node.get("command"), member.node.member("count")),
            other => {
                return Err(wrong(format!("`processes.{name}` is {other}; expected a command")));
            }
        };
        draft.unknown(file, &member.node, &["command", "count"], &[], &format!("processes.{name}."));
        if let Some(count) = count {
            let text = match &count.node.value {
                Value::Number(text) | Value::Text(text) => text.as_str(),
                _ => "",
            };
            let count = parse_count(text).map_err(|wanted| {
                wrong(format!("`processes.{name}.count` is {}; expected {wanted}", count.node.value))
            })?;
            let place = format!("{}:{line}", file.name);
            draft.counts.push(Counted { name: name.clone(), count, origin: file.origin, place });
        }
        let Some(command) = command else { continue };
        let Some(command) = command.text().map(str::trim).filter(|text| !text.is_empty()) else {
            return Err(wrong(format!("`processes.{name}` is {}; expected a command", command.value)));
        };
        let is_served = name == ProcessName::default();
        if is_served {
            draft.give_at(file, Key::StartCommand, line, Setting::Text(command.to_owned()));
        }
        draft.declare_process(file, name, command, line, is_served);
    }
    Ok(())
}

/// Decides what runs beside the start command.
///
/// # Errors
/// When there are more processes than an instance takes.
pub(crate) fn resolve(draft: &mut Draft) -> Result<Resolved, PortError> {
    let start = draft.find(Key::StartCommand).map(|given| (given.origin, given.place.clone()));
    let declared = std::mem::take(&mut draft.processes);
    let at_start = |process: &&Declared| start.as_ref().is_some_and(|(_, place)| *place == process.place);
    let command = draft.text(Key::StartCommand);
    // Somebody has written down a start command that is a process of another file, too: it must not run twice.
    let same = |process: &&Declared| Some(&process.command) == command.as_ref();
    let main = declared.iter().find(at_start).or_else(|| declared.iter().find(same));
    let (mut others, mut settings): (Vec<SideProcess>, Vec<PlannedSetting>) = Default::default();
    if let Some(main) = main.filter(|main| main.name != ProcessName::default()) {
        settings.push(planned(main));
    }
    let main = main.map(|main| main.name.clone()).unwrap_or_default();
    for process in kept(draft, &declared).into_iter().filter(|process| !process.is_served) {
        if process.name == main || others.iter().any(|known| known.name == process.name) {
            continue;
        }
        let Counted { count, origin, place, .. } = count(draft, process, start.as_ref());
        let (name, is_scaled) = (process.name.clone(), origin == Origin::Stored);
        settings.push(planned(process));
        settings.push(PlannedSetting {
            key: format!("scale.{name}"),
            value: count.to_string(),
            origin,
            place,
        });
        others.push(SideProcess { name, command: process.command.clone(), count, is_scaled });
    }
    warn_of_counts(draft, &main, &others);
    if draft.find(Key::Cron).is_some() && others.iter().any(|process| process.count > 0) {
        draft.warn("", None, "a job runs its start command alone; its other processes are not started");
    }
    let all = 1 + others.iter().map(|process| process.count).sum::<u32>();
    if all > PROCESSES_MAX {
        let counts: Vec<String> =
            others.iter().map(|process| format!("{}={}", process.name, process.count)).collect();
        return Err(PortError::new(format!(
            "{main}, {} are {all} processes; one instance runs at most {PROCESSES_MAX}",
            counts.join(", ")
        ))
        .hint("lower a count: trackbed scale NAME=COUNT, or `count` under [processes] in trackbed.toml"));
    }
    others.sort_by(|one, other| one.name.cmp(&other.name));
    settings.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(Resolved { main, others, settings })
}

fn planned(process: &Declared) -> PlannedSetting {
    PlannedSetting {
        key: format!("processes.{}", process.name),
        value: process.command.clone(),
        origin: process.origin,
        place: process.place.clone(),
    }
}

/// Returns the processes of our own file and of the strongest other one, and names those that are left out.
fn kept<'a>(draft: &mut Draft, declared: &'a [Declared]) -> Vec<&'a Declared> {
    let file = |process: &Declared| process.place.split(':').next().unwrap_or_default().to_owned();
    let is_own = |process: &&Declared| process.origin == Origin::TrackbedToml;
    let foreign =
        declared.iter().filter(|process| !is_own(process)).min_by_key(|process| process.origin).map(file);
    let (kept, left): (Vec<_>, Vec<_>) =
        declared.iter().partition(|process| is_own(process) || Some(file(process)) == foreign);
    for process in left.iter().filter(|process| !process.is_served) {
        if !kept.iter().any(|known| known.name == process.name) {
            let foreign = foreign.as_deref().unwrap_or_default();
            let message = format!("`{}` is not started: the processes are those of {foreign}", process.name);
            draft.warn_at(&process.place, message);
        }
    }
    let mut kept = kept;
    kept.sort_by_key(|process| process.origin);
    kept
}

/// Decides how many copies run: as `trackbed scale` says, else a file, else one. Where a file of Railway gives the start
/// command, other platforms' processes have never run beside it, and may well run in a service of their own.
fn count(draft: &mut Draft, process: &Declared, start: Option<&(Origin, String)>) -> Counted {
    let said = draft.counts.iter().filter(|counted| counted.name == process.name);
    if let Some(said) = said.min_by_key(|counted| (counted.origin != Origin::Stored, counted.origin)) {
        return said.clone();
    }
    let name = process.name.clone();
    let one_process = [Origin::Railway, Origin::Railpack, Origin::Nixpacks];
    match start {
        Some((origin, place)) if one_process.contains(origin) && process.origin != Origin::TrackbedToml => {
            let message = format!(
                "`{name}` is not started: {place} gives the start command, and there a service runs that alone; to run \
                 it, too: trackbed scale {name}=1"
            );
            draft.warn_at(&process.place, message);
            Counted { name, count: 0, origin: *origin, place: place.clone() }
        }
        _ => Counted { name, count: 1, origin: Origin::Default, place: "default".to_owned() },
    }
}

/// Names the counts that come to nothing.
fn warn_of_counts(draft: &mut Draft, main: &ProcessName, others: &[SideProcess]) {
    for counted in std::mem::take(&mut draft.counts) {
        let Counted { name, count, origin, place } = counted;
        if name == *main && count != 1 {
            let message = format!(
                "`{name}` runs once, not {count} times: more of it are workers of its server (gunicorn --workers, \
                 WEB_CONCURRENCY)"
            );
            draft.warn_at(&place, message);
        } else if name != *main && !others.iter().any(|process| process.name == name) {
            let message = match origin {
                Origin::Stored => format!("`trackbed scale` names `{name}`, which nothing declares; ignored"),
                _ => format!("there is no process `{name}`; its count is ignored"),
            };
            draft.warn_at(&place, message);
        }
    }
}

#[cfg(test)]
#[path = "formation_tests.rs"]
mod tests;

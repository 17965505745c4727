//! How many copies of each process of a service run; a change takes effect with the next deployment.

use std::collections::BTreeMap;

use trackbed_core::process::{COUNT_MAX, PROCESSES_MAX};
use trackbed_core::settings::ServiceConfig;
use trackbed_core::{Name, ProcessName};

use crate::control::{Control, ControlError};

/// A process of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// Its name.
    pub name: ProcessName,
    /// Its command in the live release; none when that has no such process.
    pub command: Option<String>,
    /// How many copies the live release runs.
    pub count: u32,
    /// How many its owner wants, whatever the source says; none means what the source says.
    pub wanted: Option<u32>,
}

/// The settings by which a plan hears of the counts.
pub(crate) fn settings(counts: &[(ProcessName, u32)]) -> Vec<(String, String)> {
    counts.iter().map(|(process, count)| (format!("scale.{process}"), count.to_string())).collect()
}

/// Returns whether a release was made with these counts.
pub(crate) fn is_as_wanted(config: &ServiceConfig, counts: &[(ProcessName, u32)]) -> bool {
    let wanted =
        |name: &ProcessName| counts.iter().find(|(process, _)| process == name).map(|(_, count)| *count);
    let mut processes = config.processes.iter();
    processes.all(|process| wanted(&process.name) == process.is_scaled.then_some(process.count))
}

impl Control {
    /// Returns the processes of a service: the main one of the live release, then the others by name.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn scale(&self, project: &Name, service: &Name) -> Result<Vec<Scaled>, ControlError> {
        let found = self.service(project, service).await?;
        let (config, counts) = self
            .inner
            .store
            .with(move |db| {
                let release = found.live.map(|live| db.load_release(&live.release)).transpose()?;
                Ok((release.map(|release| release.config), db.list_process_counts(&found.id)?))
            })
            .await?;
        Ok(listed(config.as_ref(), &counts))
    }

    /// Changes how many copies run, all or none; none as a count takes back what was set. The service is made when it is
    /// new. It takes effect with the next deployment.
    ///
    /// # Errors
    /// When a process is unknown, the main one would not run exactly once, or there would be too many.
    pub async fn change_scale(
        &self,
        project: &Name,
        service: &Name,
        change: BTreeMap<ProcessName, Option<u32>>,
    ) -> Result<(), ControlError> {
        let (project, service, domain, now) =
            (project.clone(), service.clone(), self.inner.config.domain.clone(), self.now());
        self.inner
            .store
            .with(move |db| {
                let found = db.ensure_service(&project, &service, &domain, now)?;
                let live = found.live.as_ref().map(|live| db.load_release(&live.release)).transpose()?;
                let counts = db.list_process_counts(&found.id)?;
                if let Some(refusal) = refusal(live.as_ref().map(|live| &live.config), &counts, &change) {
                    return Ok(Err(refusal));
                }
                let main = live.map(|live| live.config.main).unwrap_or_default();
                for (process, count) in &change {
                    // The main one runs once in any case.
                    db.set_process_count(&found.id, process, count.filter(|_| *process != main))?;
                }
                Ok(Ok(()))
            })
            .await??;
        // The service may be new, and the edge must know its name.
        self.owe_routes();
        self.announce();
        Ok(())
    }
}

fn listed(config: Option<&ServiceConfig>, counts: &[(ProcessName, u32)]) -> Vec<Scaled> {
    let wanted =
        |name: &ProcessName| counts.iter().find(|(process, _)| process == name).map(|(_, count)| *count);
    let mut all = Vec::new();
    if let Some(config) = config {
        let (name, command) = (config.main.clone(), Some(config.start_command.clone()));
        all.push(Scaled { name, command, count: 1, wanted: None });
        all.extend(config.processes.iter().map(|process| Scaled {
            name: process.name.clone(),
            command: Some(process.command.clone()),
            count: process.count,
            wanted: wanted(&process.name),
        }));
    }
    for (name, count) in counts {
        if !all.iter().any(|known| known.name == *name) {
            all.push(Scaled { name: name.clone(), command: None, count: 0, wanted: Some(*count) });
        }
    }
    all
}

/// Says what is wrong with a change, by what is live.
fn refusal(
    live: Option<&ServiceConfig>,
    counts: &[(ProcessName, u32)],
    change: &BTreeMap<ProcessName, Option<u32>>,
) -> Option<ControlError> {
    let conflict =
        |message: String, hint: &str| Some(ControlError::Conflict { message, hint: Some(hint.to_owned()) });
    let main = live.map(|live| live.main.clone()).unwrap_or_default();
    for (process, count) in change {
        match count {
            Some(0) if *process == main => {
                let message = format!("`{process}` is what the service consists of, and runs once");
                return conflict(message, "to stop the service: trackbed down");
            }
            Some(count) if *process == main && *count != 1 => {
                let message = format!("`{process}` runs once: {count} of it would share one port");
                let hint = "let its server have more workers: gunicorn --workers, uvicorn --workers, or WEB_CONCURRENCY";
                return conflict(message, hint);
            }
            Some(count) if *count > COUNT_MAX => {
                return Some(ControlError::Invalid(format!("{process}={count} is more than {COUNT_MAX}")));
            }
            Some(_) | None => {}
        }
        let Some(live) = live else { continue };
        let is_known = *process == main
            || live.processes.iter().any(|known| known.name == *process)
            || counts.iter().any(|(known, _)| known == process);
        if !is_known {
            let names: Vec<String> =
                listed(Some(live), &[]).iter().map(|known| known.name.to_string()).collect();
            let message = format!("the live release has no process `{process}`; it has {}", names.join(", "));
            return conflict(
                message,
                "add it to the Procfile or to [processes] in trackbed.toml, and deploy",
            );
        }
    }
    let live = live?;
    let count = |name: &ProcessName, made_with: u32| match change.get(name) {
        Some(Some(count)) => *count,
        // What the source says is known when it is planned.
        Some(None) => 0,
        None => counts.iter().find(|(process, _)| process == name).map_or(made_with, |(_, count)| *count),
    };
    let all = 1 + live.processes.iter().map(|process| count(&process.name, process.count)).sum::<u32>();
    (all > PROCESSES_MAX).then(|| {
        ControlError::Invalid(format!(
            "that makes {all} processes; one instance runs at most {PROCESSES_MAX}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use trackbed_core::process::SideProcess;

    use super::*;

    fn change(pairs: &[(&str, Option<u32>)]) -> BTreeMap<ProcessName, Option<u32>> {
        pairs.iter().map(|(name, count)| (name.parse().unwrap(), *count)).collect()
    }

    fn live() -> ServiceConfig {
        let side = |name: &str, count| SideProcess {
            name: name.parse().unwrap(),
            command: name.to_owned(),
            count,
            is_scaled: false,
        };
        ServiceConfig {
            processes: vec![side("beat", 1), side("worker", 2)],
            ..trackbed_testkit::App::new("a").config
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_way_out() {
        let live = live();
        let refused = |pairs| match refusal(Some(&live), &[], &change(pairs)) {
            Some(ControlError::Conflict { message, hint }) => format!("{message} | {}", hint.unwrap()),
            Some(other) => other.to_string(),
            None => "fine".to_owned(),
        };
        assert_eq!(refused(&[("worker", Some(14)), ("beat", Some(0)), ("web", Some(1))]), "fine");
        assert!(refused(&[("web", Some(0))]).ends_with("trackbed down"));
        assert!(refused(&[("web", Some(2))]).contains("WEB_CONCURRENCY"));
        assert_eq!(refused(&[("worker", Some(17))]), "worker=17 is more than 16");
        assert!(refused(&[("worker", Some(15))]).starts_with("that makes 17 processes"));
        assert!(refused(&[("wroker", Some(1))]).contains("it has web, beat, worker"));
        assert!(refusal(None, &[], &change(&[("worker", Some(3))])).is_none(), "before the first deployment");
    }

    #[test]
    fn a_release_is_as_wanted_until_a_count_is_set_or_taken_back() {
        let mut config = live();
        let counts = |count| vec![("worker".parse::<ProcessName>().unwrap(), count)];
        assert!(is_as_wanted(&config, &[]));
        assert!(!is_as_wanted(&config, &counts(2)));
        config.processes[1].is_scaled = true;
        assert!(is_as_wanted(&config, &counts(2)));
        assert!(!is_as_wanted(&config, &counts(3)) && !is_as_wanted(&config, &[]));
    }
}

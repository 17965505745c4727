//! What is known about a service apart from its code: its plan, its variables, its volumes.

use std::collections::BTreeMap;
use std::path::Path;

use trackbed_core::finding::{Finding, Level, Rule};
use trackbed_core::plan::Plan;
use trackbed_core::ports::PortError;
use trackbed_core::process::SideProcess;
use trackbed_core::settings::Origin;

use crate::check::app::{Facts, Side};
use crate::config;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::python::plan::Recipe;
use crate::text;

/// What a box knows about a service; nothing where no box was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Whether a service was found.
    pub(crate) is_service: bool,
    /// Its variables.
    pub(crate) variables: Vec<(String, String)>,
    /// Where its volumes are mounted.
    pub(crate) mounts: Vec<String>,
}

/// Gathers what rules need from a plan, or from the files that say something when there is none. Also returns what is wrong
/// when there is no plan because of the source.
pub(crate) fn facts(
    folder: &Path,
    plan: Result<&Plan, Option<&PortError>>,
    known: &Known,
    has: &dyn Fn(&str) -> bool,
) -> (Facts, Option<Finding>) {
    let mut facts = Facts {
        is_service: known.is_service,
        mounts: known.mounts.clone(),
        variables: dotenv(folder, has),
        ..Facts::default()
    };
    let refused = match plan {
        Ok(plan) => {
            of_plan(&mut facts, plan);
            None
        }
        Err(error) => {
            let draft = config::read(folder, &[], &[], &[]).unwrap_or_default();
            of_draft(&mut facts, &draft);
            error.map(|error| refusal(folder, error, facts.start.is_some()))
        }
    };
    facts.variables.extend(known.variables.iter().cloned());
    facts.mounts.sort();
    facts.mounts.dedup();
    (facts, refused)
}

fn of_plan(facts: &mut Facts, plan: &Plan) {
    let place = |key: Key| {
        let setting = plan.settings.iter().find(|setting| setting.key == key.name());
        setting.map(|setting| setting.place.clone()).unwrap_or_default()
    };
    facts.provider.clone_from(&plan.provider);
    facts.start = Some((plan.config.start_command.clone(), place(Key::StartCommand)));
    let running = plan.config.processes.iter().filter(|process| process.count > 0);
    let side = |process: &SideProcess| Side {
        name: process.name.to_string(),
        command: process.command.clone(),
        count: process.count,
    };
    facts.sides = running.map(side).collect();
    facts.health = plan.config.health.path.clone().map(|path| (path, place(Key::HealthPath)));
    facts.port = plan.config.port;
    facts.mounts.extend(plan.config.volumes.iter().map(|volume| volume.mount.to_string()));
    facts.variables.extend(plan.config.variables.iter().cloned());
    if plan.provider == "python"
        && let Ok(recipe) = serde_json::from_value::<Recipe>(plan.recipe.clone())
    {
        facts.sqlite = Some(recipe.python.sqlite).filter(|version| !version.is_empty());
    }
}

fn of_draft(facts: &mut Facts, draft: &Draft) {
    let given = |key: Key| draft.find(key).filter(|given| given.origin != Origin::Default);
    let with_place = |key: Key| Some((draft.text(key)?, given(key)?.place.clone()));
    facts.start = with_place(Key::StartCommand);
    facts.health = with_place(Key::HealthPath);
    facts.mounts.extend(draft.volumes.iter().map(|(volume, ..)| volume.mount.to_string()));
    let declared = draft.variables.iter();
    facts.variables.extend(declared.map(|declared| (declared.name.to_string(), declared.value.clone())));
}

/// A plan that failed, as a finding: the same words, and the file and line that they begin with.
fn refusal(folder: &Path, error: &PortError, has_start: bool) -> Finding {
    let mut lines = error.message.lines();
    let first = lines.next().unwrap_or_default();
    let is_start = !has_start
        && (error.message.contains("found no way to start") || error.message.contains("start command"));
    let mut parts = first.splitn(3, ':');
    let file = parts.next().filter(|file| !file.is_empty() && folder.join(file).is_file());
    let line = file.and_then(|_| parts.next()?.parse().ok());
    Finding {
        rule: if is_start { Rule::StartMissing } else { Rule::PlanRefused },
        // What this machine lacks, another may have.
        level: if first.contains("not on this box") { Level::Note } else { Level::Error },
        file: file.map(str::to_owned),
        line,
        what: first.trim_end_matches(':').to_owned(),
        why: "a deploy is refused".to_owned(),
        mend: match &error.hint {
            Some(_) if is_start => {
                "put startCommand under deploy in railway.json, a line `web: …` in a Procfile, or say it \
                                    by trackbed up --start"
                    .to_owned()
            }
            Some(hint) => hint.split('\n').map(str::trim).collect::<Vec<_>>().join(" "),
            None => "`trackbed plan` says more".to_owned(),
        },
    }
}

/// The names that files with variables set which go along with the source. Their values are not looked at.
fn dotenv(folder: &Path, has: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in [".env", ".env.production", ".env.local"].into_iter().filter(|name| has(name)) {
        let Ok(Some(text)) = text::find(folder, name) else { continue };
        for line in text.lines() {
            let line = line.trim().trim_start_matches("export ");
            if let Some((name, value)) = line.split_once('=')
                && !name.starts_with('#')
                && !value.trim().is_empty()
            {
                found.insert(name.trim().to_owned(), String::new());
            }
        }
    }
    found
}

//! Source → plan: settings, then the provider, then what is left to default. Runs nothing of the source.

use std::path::Path;

use trackbed_core::plan::Plan;
use trackbed_core::ports::{PlanRequest, PortError};

use crate::config;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::python::interpreters::Interpreter;
use crate::python::plan::{self as python, Found};
use crate::python::wanted::Wanted;

/// A plan, or the one thing that is missing and might be fetched.
pub(crate) enum Outcome {
    /// A plan.
    Ready(Box<Plan>),
    /// A Python that the source asks for.
    NoPython {
        /// What it asks for.
        wanted: Wanted,
        /// The error, if it cannot be fetched.
        error: PortError,
    },
}

/// Plans with the given interpreters. Blocking.
pub(crate) fn plan(request: &PlanRequest, pythons: &[Interpreter]) -> Result<Outcome, PortError> {
    let folder = &request.source.path;
    let mut draft = config::read(folder, &request.overrides, &request.stored, &request.variables)?;
    warn_of_docker(folder, &mut draft);
    if folder.join(".env").is_file() {
        draft.warn(".env", None, "`.env` is not read; `trackbed variables import .env` does");
    }
    let decided = match python::find(folder, &mut draft, pythons)? {
        Found::Yes(decided) => decided,
        Found::NoPython { wanted, error } => return Ok(Outcome::NoPython { wanted, error }),
        Found::No => return Err(unsupported(folder)),
    };
    let (config, mut settings) = config::resolve::resolve(&mut draft);
    settings.extend(decided.settings);
    let recipe = serde_json::to_value(&decided.recipe)
        .map_err(|error| PortError::new(format!("cannot keep the recipe: {error}")))?;
    Ok(Outcome::Ready(Box::new(Plan {
        provider: "python".to_owned(),
        summary: decided.summary,
        settings,
        config,
        recipe,
        warnings: draft.warnings,
    })))
}

fn warn_of_docker(folder: &Path, draft: &mut Draft) {
    let asked = draft.find(Key::Builder).map(|given| (given.setting.to_string(), given.place.clone()));
    if let Some((builder, place)) = asked
        && builder == "DOCKERFILE"
    {
        let (file, line) = place.split_once(':').unwrap_or((&place, ""));
        let message = "builder DOCKERFILE is not used (no Docker engine); going on with detection";
        draft.warn(file, line.parse().ok(), message);
    }
    if folder.join("Dockerfile").is_file() {
        let message = "Dockerfile found, not used (no Docker engine); going on with detection";
        draft.warn("Dockerfile", None, message);
    }
}

fn unsupported(folder: &Path) -> PortError {
    let signs = [
        ("package.json", "Node"),
        ("go.mod", "Go"),
        ("Cargo.toml", "Rust"),
        ("Gemfile", "Ruby"),
        ("composer.json", "PHP"),
        ("pom.xml", "Java"),
        ("index.html", "a static site"),
        ("Dockerfile", "Docker"),
    ];
    let found: Vec<String> = signs
        .iter()
        .filter(|(file, _)| folder.join(file).is_file())
        .map(|(file, what)| format!("{file} ({what})"))
        .collect();
    let found = if found.is_empty() { "none of the files it knows".to_owned() } else { found.join(", ") };
    PortError::new(format!(
        "cannot build this source: Trackbed builds Python so far, and found {found}; \
         looked for requirements.txt, pyproject.toml, Pipfile and setup.py at the root and up to two folders down, \
         and for *.py at the root and in the folder that the start command enters by `cd`"
    ))
    .hint("deploy the folder that holds the Python service: trackbed up PATH")
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;

//! Source → plan: settings, then the provider, then what is left to default. Runs nothing of the source.

use std::path::Path;

use trackbed_core::plan::Plan;
use trackbed_core::ports::{PlanRequest, PortError};

use crate::config;
use crate::config::draft::Draft;
use crate::dockerfile;
use crate::provider::{Decided, Found, Look, PROVIDERS};
use crate::python::interpreters::Interpreter;
use crate::python::wanted::Wanted;
use crate::site;
use crate::toolchain::Programs;

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
    /// A container engine is meant, and nobody has looked yet whether there is one.
    AsksEngine,
}

/// Plans with the given interpreters. Blocking.
pub(crate) fn plan(
    request: &PlanRequest,
    pythons: &[Interpreter],
    programs: &dyn Programs,
    engine: Option<&Result<String, PortError>>,
) -> Result<Outcome, PortError> {
    let folder = &request.source.path;
    let mut draft = config::read(folder, &request.overrides, &request.stored, &request.variables)?;
    if folder.join(".env").is_file() {
        draft.warn(".env", None, "`.env` is not read; `trackbed variables import .env` does");
    }
    let wish = dockerfile::find_wish(folder, &draft);
    let contained = match (&wish, engine) {
        (None, _) => Found::No,
        (Some(_), None) => return Ok(Outcome::AsksEngine),
        (Some(wish), Some(engine)) => dockerfile::decide(folder, wish, engine, &mut draft)?,
    };
    let look = Look { source: folder, pythons, programs };
    let found = match contained {
        Found::No => first(look, &mut draft)?,
        found => found,
    };
    let decided = match found {
        Found::Yes(decided) => decided,
        Found::NoPython { wanted, error } => return Ok(Outcome::NoPython { wanted, error }),
        Found::No => return Err(unsupported(folder)),
    };
    let Decided { provider, summary, recipe, settings: own } = *decided;
    let (config, mut settings) = config::resolve::resolve(&mut draft)?;
    settings.extend(own);
    Ok(Outcome::Ready(Box::new(Plan {
        provider: provider.to_owned(),
        summary,
        settings,
        config,
        recipe,
        warnings: draft.warnings,
    })))
}

/// Asks the providers, in order.
fn first(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    // Who says where the files of a site are means that site, whatever else the source holds; Node has sites to build.
    if site::is_asked_for(draft) && !look.source.join("package.json").is_file() {
        return site::find(look, draft);
    }
    for (_, find) in PROVIDERS {
        match find(look, draft)? {
            Found::No => {}
            found => return Ok(found),
        }
    }
    Ok(Found::No)
}

fn unsupported(folder: &Path) -> PortError {
    let signs = [
        ("gleam.toml", "Gleam"),
        ("CMakeLists.txt", "C or C++"),
        ("global.json", ".NET"),
        ("Package.swift", "Swift"),
        ("Dockerfile", "Docker"),
    ];
    let found: Vec<String> = signs
        .iter()
        .filter(|(file, _)| folder.join(file).is_file())
        .map(|(file, what)| format!("{file} ({what})"))
        .collect();
    let found = if found.is_empty() { "none of the files it knows".to_owned() } else { found.join(", ") };
    PortError::new(format!(
        "cannot build this source: Trackbed builds Python, Node, Go, Rust, Ruby, PHP, Java, Elixir, Deno and static \
         sites, and starts a `start.sh`; found {found}. Looked at the root for package.json, go.mod, Cargo.toml, Gemfile, composer.json, \
         index.php, pom.xml, build.gradle, mix.exs, deno.json, index.html, public/, Staticfile and start.sh; for requirements.txt, pyproject.toml, \
         Pipfile and setup.py there and up to two folders down; and for *.py at the root and in the folder that the \
         start command enters by `cd`"
    ))
    .hint("deploy the folder that holds the service: trackbed up PATH")
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;

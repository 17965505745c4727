//! The Python provider's half of a plan: interpreter, dependencies, start command.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::Draft;
use crate::config::keys::{Key, Setting};
use crate::provider::{Decided, Found, Look, give_start};
use crate::python::dependencies::{self, Dependencies, Install, join};
use crate::python::interpreters::{self, Interpreter};
use crate::python::wanted::{self, Wanted};
use crate::python::{code, scan, start};

/// What is remembered between plan and build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Raised when the fields change their meaning.
    pub(crate) version: u32,
    /// The interpreter.
    pub(crate) python: Interpreter,
    /// The folder of the dependencies, relative to the source.
    pub(crate) folder: String,
    /// What is installed.
    pub(crate) install: Install,
    /// Requirements added by Trackbed, each with the reason.
    pub(crate) extra: Vec<(String, String)>,
    /// Run after the dependencies are there.
    pub(crate) build_command: Option<String>,
}

/// The recipe's version.
pub(crate) const RECIPE_VERSION: u32 = 1;

/// Decides. Adds the start command that it finds, and warnings, to the draft.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Look { source, pythons, .. } = look;
    let Some(deps) = find_dependencies(source, draft)? else { return Ok(Found::No) };
    let here = source.join(&deps.folder);
    let mut notes = deps.notes.clone();
    let mut wanted = wanted::find(source, wanted::pyproject(source)?.as_ref(), &mut notes)?;
    if wanted.is_none() && !deps.folder.is_empty() {
        wanted = wanted::find(&here, wanted::pyproject(&here)?.as_ref(), &mut notes)?;
        if let Some(wanted) = &mut wanted {
            wanted.place = join(&deps.folder, &wanted.place);
        }
    }
    for (file, line, message) in notes {
        draft.warn(&file, Some(line), message);
    }
    let Some(python) = interpreters::choose(pythons, wanted.as_ref()) else {
        let error = none_fits(wanted.as_ref(), pythons);
        return match wanted {
            Some(wanted) => Ok(Found::NoPython { wanted, error }),
            None => Err(error),
        };
    };
    warn_of_python(draft, python, wanted.as_ref());
    find_start(source, draft, &deps)?;
    let build_command =
        match draft.find(Key::BuildCommand).map(|given| (given.setting.clone(), given.place.clone())) {
            Some((Setting::Text(command), place))
                if only_installs(&command) && deps.install == Install::Requirements =>
            {
                let (file, line) = place.split_once(':').unwrap_or((&place, ""));
                let message =
                    "this build command only installs the requirements, which is done already; not run";
                draft.warn(file, line.parse().ok(), message);
                None
            }
            Some((Setting::Text(command), _)) => Some(command),
            _ => None,
        };
    let place = wanted.as_ref().map_or("default", |wanted| wanted.place.as_str()).to_owned();
    let from = match deps.install {
        Install::Nothing => "no dependencies".to_owned(),
        install => format!("{}, uv", join(&deps.folder, install.file())),
    };
    let settings = vec![PlannedSetting {
        key: "python.version".to_owned(),
        value: format!("{} ({})", python.version, python.program.display()),
        origin: if wanted.is_some() { Origin::Detection } else { Origin::Default },
        place: place.clone(),
    }];
    let recipe = Recipe {
        version: RECIPE_VERSION,
        python: python.clone(),
        folder: deps.folder,
        install: deps.install,
        extra: deps.extra,
        build_command,
    };
    Decided::of("python", format!("python {} ({place}), {from}", python.version), &recipe, settings)
}

/// Looks at the root; else where the start or build command goes (`cd backend && …`); else in the only folder that has
/// dependencies; else takes a source of bare Python files, at the root or where the command goes, as one that needs none.
fn find_dependencies(source: &Path, draft: &mut Draft) -> Result<Option<Dependencies>, PortError> {
    if let Some(found) = dependencies::find(source, "")? {
        return Ok(Some(found));
    }
    let mut folders = Vec::new();
    let mut entered = Vec::new();
    for key in [Key::StartCommand, Key::BuildCommand] {
        if let Some(Setting::Text(command)) = draft.find(key).map(|given| &given.setting)
            && let Some(folder) =
                command.strip_prefix("cd ").and_then(|rest| rest.split(['&', ';', ' ']).next())
            && !folder.starts_with('/')
            && !folder.contains("..")
        {
            entered.push(folder.trim_start_matches("./").trim_end_matches('/').to_owned());
        }
    }
    folders.extend(entered.iter().cloned());
    let below = dependencies::folders_with_dependencies(source);
    if below.len() == 1 {
        folders.extend(below.iter().cloned());
    }
    for folder in folders {
        if let Some(found) = dependencies::find(source, &folder)? {
            let file = join(&folder, found.install.file());
            draft.warn("", None, format!("the root has no dependencies; those of {file} are installed"));
            return Ok(Some(found));
        }
    }
    let scripts = code::files(source).iter().any(|file| !file.path.contains('/'))
        || entered.iter().any(|folder| has_script(&source.join(folder)));
    if !scripts {
        if below.len() > 1 {
            return Err(PortError::new(format!(
                "the root of this source has no dependencies of its own; these folders have: {}",
                below.join(", ")
            ))
            .hint(format!("deploy one of them, such as: trackbed up {}", below[0])));
        }
        return Ok(None);
    }
    Ok(Some(Dependencies {
        folder: String::new(),
        install: Install::Nothing,
        project: false,
        local: false,
        files: Vec::new(),
        list: Vec::new(),
        extra: Vec::new(),
        notes: Vec::new(),
    }))
}

/// Whether a folder that a command enters holds a Python file. Its name does not matter: the owner chose it.
fn has_script(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "py"))
}

fn find_start(source: &Path, draft: &mut Draft, deps: &Dependencies) -> Result<(), PortError> {
    if let Some(given) = draft.find(Key::StartCommand) {
        let (setting, place) = (given.setting.to_string(), given.place.clone());
        warn_of_command(draft, &setting, &place, deps);
        return Ok(());
    }
    let files = code::files(source);
    let apps = scan::apps(&files);
    // What a project's build backend will bring is not known yet: then everything may be there.
    let open = deps.install == Install::Project && deps.list.is_empty();
    let found = start::find(&apps, &files, &|name| open || deps.has(name))?;
    if let Some(warning) = found.warning {
        let (file, line) = found.place.split_once(':').unwrap_or((&found.place, ""));
        draft.warn(file, line.parse().ok(), warning);
    }
    give_start(draft, found.command, found.place);
    Ok(())
}

/// Notices a start command whose program nothing brings.
fn warn_of_command(draft: &mut Draft, command: &str, place: &str, deps: &Dependencies) {
    const SERVERS: [&str; 8] =
        ["gunicorn", "uvicorn", "hypercorn", "streamlit", "daphne", "waitress-serve", "celery", "granian"];
    let (file, line) = place.split_once(':').unwrap_or(("", ""));
    let line = line.parse().ok();
    let step = command.rsplit("&&").next().unwrap_or(command).trim().trim_start_matches("exec ");
    let program = step.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default();
    let package = if program == "waitress-serve" { "waitress" } else { program };
    if SERVERS.contains(&program) && deps.install != Install::Project && !deps.local && !deps.has(package) {
        let message = format!(
            "the start command runs `{program}`, which {} does not ask for: add a line `{package}` there unless another package brings it",
            deps.install.file()
        );
        draft.warn(file, line, message);
    }
    if command.starts_with("pip ") || command.contains("&& pip ") {
        draft.warn(file, line, "the start command runs pip, which is not in the image: dependencies are installed before, take it out");
    }
}

fn warn_of_python(draft: &mut Draft, python: &Interpreter, wanted: Option<&Wanted>) {
    if let Some(wanted) = wanted
        && wanted.exact.is_some_and(|exact| exact != python.version)
    {
        let (file, line) = wanted.place.split_once(':').unwrap_or((&wanted.place, ""));
        let message =
            format!("asks for {}, which is not on this box; {} is used", wanted.text, python.version);
        draft.warn(file, line.parse().ok(), message);
    }
    if python.sqlite.is_empty() {
        let program = python.program.display();
        draft.warn(
            "",
            None,
            format!("{program} was built without sqlite3: an application that imports it fails"),
        );
    }
}

fn none_fits(wanted: Option<&Wanted>, pythons: &[Interpreter]) -> PortError {
    let here: Vec<String> =
        pythons.iter().map(|python| format!("{} ({})", python.version, python.program.display())).collect();
    let here =
        if here.is_empty() { "found none at all".to_owned() } else { format!("found {}", here.join(", ")) };
    match wanted {
        Some(wanted) => {
            let version = wanted.text.trim_start_matches("python-");
            PortError::new(format!(
                "this source asks for Python {version} ({}), which is not on this box; {here}",
                wanted.place
            ))
            .hint(format!(
                "install it on the box (`uv python install {version}` or `pyenv install {version}`), or change {}",
                wanted.place
            ))
        }
        None => PortError::new(format!("this source needs Python 3.9 or newer; {here}"))
            .hint("install one on the box, for example with `apt install python3`"),
    }
}

/// Whether a build command does nothing but what Trackbed has done: `pip install --upgrade pip && pip install -r requirements.txt`.
fn only_installs(command: &str) -> bool {
    command.split("&&").map(str::trim).all(|step| {
        let step =
            step.strip_prefix("python -m ").or_else(|| step.strip_prefix("python3 -m ")).unwrap_or(step);
        let Some(rest) = step.strip_prefix("pip install ").or_else(|| step.strip_prefix("pip3 install "))
        else {
            return false;
        };
        rest.split_whitespace().all(|word| {
            matches!(
                word,
                "-r" | "requirements.txt"
                    | "./requirements.txt"
                    | "-U"
                    | "--upgrade"
                    | "pip"
                    | "setuptools"
                    | "wheel"
                    | "--no-cache-dir"
                    | "-q"
            )
        })
    })
}

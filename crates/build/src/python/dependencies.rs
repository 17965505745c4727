//! Decides what a Python source's dependencies are installed from, and what they contain. Installs nothing.
//!
//! Order as Railpack's: `requirements.txt`, then the locks, then `pyproject.toml`, then `setup.py`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use trackbed_core::ports::PortError;

use crate::config::toml;
use crate::config::tree::{Node, Value};
use crate::python::requirements::{self, Requirement, Requirements};
use crate::python::version::Version;
use crate::python::{code, pdm, poetry, wanted};
use crate::text;

/// What is installed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Install {
    /// `requirements.txt`.
    Requirements,
    /// `uv.lock`, exactly.
    UvLock,
    /// The main group of `poetry.lock`, exactly.
    PoetryLock,
    /// The default group of `pdm.lock`, exactly.
    PdmLock,
    /// The default section of `Pipfile.lock`, exactly.
    PipfileLock,
    /// The dependencies in `pyproject.toml`, resolved now.
    Pyproject,
    /// The project itself, with what its build backend says it needs.
    Project,
    /// Nothing: the standard library is enough.
    Nothing,
}

impl Install {
    /// Returns the file that decides.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Install::Requirements => "requirements.txt",
            Install::UvLock => "uv.lock",
            Install::PoetryLock => "poetry.lock",
            Install::PdmLock => "pdm.lock",
            Install::PipfileLock => "Pipfile.lock",
            Install::Pyproject => "pyproject.toml",
            Install::Project => "pyproject.toml or setup.py",
            Install::Nothing => "no dependencies",
        }
    }
}

/// The dependencies of a source.
#[derive(Debug, Clone)]
pub(crate) struct Dependencies {
    /// The folder that holds the files, relative to the source; empty for the root.
    pub(crate) folder: String,
    /// What is installed.
    pub(crate) install: Install,
    /// Whether the project itself is installed too, so that the layer depends on all of the source.
    pub(crate) project: bool,
    /// Whether something else in the source is installed.
    pub(crate) local: bool,
    /// The files that decide, as UTF-8, paths relative to the source.
    pub(crate) files: Vec<(String, String)>,
    /// What is asked for, as far as it can be read without resolving.
    pub(crate) list: Vec<Requirement>,
    /// Requirements added by Trackbed, each with the reason.
    pub(crate) extra: Vec<(String, String)>,
    /// What is odd: file, line, message.
    pub(crate) notes: Vec<(String, u32, String)>,
}

/// Packages that import `pkg_resources`, which no fresh environment has and setuptools 81 is the last to bring.
const NEED_PKG_RESOURCES: [(&str, Version); 4] = [
    ("gunicorn", Version { major: 21, minor: 0, patch: 0 }),
    ("apscheduler", Version { major: 3, minor: 11, patch: 0 }),
    ("djangorestframework-simplejwt", Version { major: 5, minor: 3, patch: 0 }),
    ("razorpay", Version { major: 1, minor: 4, patch: 2 }),
];

impl Dependencies {
    /// Returns whether a package will be there, as far as the files say.
    pub(crate) fn has(&self, name: &str) -> bool {
        let brings = |requirement: &Requirement| match name {
            // Extras that bring a server.
            "uvicorn" => requirement.name == "fastapi" && requirement.has_extra("standard"),
            _ => false,
        };
        self.list.iter().any(|requirement| requirement.name == name || brings(requirement))
    }
}

/// Reads the dependencies in one folder of the source; none when it has no file of them.
pub(crate) fn find(source: &Path, folder: &str) -> Result<Option<Dependencies>, PortError> {
    let here = source.join(folder);
    let pyproject = wanted::pyproject(&here)?;
    let mut found = Dependencies {
        folder: folder.to_owned(),
        install: Install::Nothing,
        project: false,
        local: false,
        files: Vec::new(),
        list: Vec::new(),
        extra: Vec::new(),
        notes: Vec::new(),
    };
    let keep = |name: &str| -> Result<Option<(String, String)>, PortError> {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        Ok(text::find(&here, name)?.map(|text| (path, text)))
    };
    let requirements = requirements::read(source, &join(folder, "requirements.txt"))?;
    let locked = ["uv.lock", "poetry.lock", "pdm.lock"].iter().any(|lock| here.join(lock).is_file());
    if let Some(all) = requirements.filter(|all| !all.list.is_empty() || !locked) {
        if locked {
            let message = "used for the dependencies; the lock file beside it is not, as on Railway";
            found.notes.push((join(folder, "requirements.txt"), 1, message.to_owned()));
        }
        add_pkg_resources(&mut found.extra, &all);
        found.install = Install::Requirements;
        (found.files, found.list, found.local) = (all.files, all.list, all.local);
        found.notes.extend(all.notes);
        return Ok(Some(found));
    }
    let Some(tree) = pyproject else { return without_pyproject(&here, found, keep) };
    found.files.extend(keep("pyproject.toml")?);
    found.project = tree.get("build-system").is_some()
        && (here.join("src").is_dir()
            || tree.at(&["project", "scripts"]).is_some()
            || tree.at(&["tool", "uv", "package"]).is_some_and(|node| node.value == Value::Bool(true)));
    let asked = tree.at(&["project", "dependencies"]).map(Node::items).unwrap_or_default();
    for item in asked {
        let Some(line) = item.text() else { continue };
        found.list.push(Requirement {
            name: requirements::name_of(line),
            line: line.to_owned(),
            place: format!("pyproject.toml:{}", item.place.line),
        });
    }
    if let Some((path, lock)) = keep("uv.lock")? {
        found.install = Install::UvLock;
        let tree = toml::parse(&path, &lock)?;
        let packages = tree.get("package").map(Node::items).unwrap_or_default();
        found.local = packages.iter().filter_map(|package| package.get("source")).any(|source| {
            let place = ["editable", "directory", "virtual", "path"].iter().find_map(|key| source.get(key));
            place.and_then(Node::text).is_some_and(|place| place != ".")
        });
        found.list.extend(names(packages, &path));
        found.files.push((path, lock));
    } else if let Some((path, lock)) = keep("poetry.lock")? {
        found.install = Install::PoetryLock;
        found.project = false;
        let lines = poetry::lines_of_poetry(&lock, &tree)?;
        found.list.extend(exact(&lines, &path));
        found.files = vec![(join(folder, LOCKED), lines.join("\n") + "\n")];
    } else if let Some((path, lock)) = keep("pdm.lock")? {
        found.install = Install::PdmLock;
        found.project = false;
        let lines = pdm::lines(&lock)?;
        found.list.extend(exact(&lines, &path));
        found.files = vec![(join(folder, LOCKED), lines.join("\n") + "\n")];
    } else if !asked.is_empty() {
        found.install = Install::Pyproject;
    } else if tree.at(&["tool", "poetry", "dependencies"]).is_some() || tree.get("build-system").is_some() {
        found.install = Install::Project;
        found.project = true;
        let members = tree.at(&["tool", "poetry", "dependencies"]).map(Node::members).unwrap_or_default();
        found.list.extend(members.iter().map(|member| Requirement {
            name: requirements::normalise(&member.key),
            line: member.key.clone(),
            place: format!("pyproject.toml:{}", member.place.line),
        }));
    } else if tree.get("project").is_none() {
        // A pyproject.toml that only configures tools says nothing about dependencies.
        return without_pyproject(&here, found, keep);
    }
    Ok(Some(found))
}

/// The name under which exact requirements made from a foreign lock are handed to uv.
pub(crate) const LOCKED: &str = ".trackbed-locked.txt";

fn without_pyproject(
    here: &Path,
    mut found: Dependencies,
    keep: impl Fn(&str) -> Result<Option<(String, String)>, PortError>,
) -> Result<Option<Dependencies>, PortError> {
    if let Some((path, lock)) = keep("Pipfile.lock")? {
        let lines = poetry::lines_of_pipfile(&lock)?;
        found.install = Install::PipfileLock;
        found.list = exact(&lines, &path);
        found.files = vec![(join(&found.folder, LOCKED), lines.join("\n") + "\n")];
        return Ok(Some(found));
    }
    if here.join("Pipfile").is_file() {
        return Err(PortError::new(format!("{} has no lock beside it", join(&found.folder, "Pipfile"))).hint(
            "run `pipenv lock` and add Pipfile.lock, or `pipenv requirements > requirements.txt`; then deploy again",
        ));
    }
    if here.join("setup.py").is_file() {
        found.install = Install::Project;
        found.project = true;
        return Ok(Some(found));
    }
    Ok(None)
}

fn names(packages: &[Node], file: &str) -> Vec<Requirement> {
    packages
        .iter()
        .filter_map(|package| {
            let name = package.get("name")?.text()?;
            let version = package.get("version").and_then(Node::text).unwrap_or_default();
            Some(Requirement {
                name: requirements::normalise(name),
                line: format!("{name}=={version}"),
                place: format!("{file}:{}", package.place.line),
            })
        })
        .collect()
}

fn exact(lines: &[String], file: &str) -> Vec<Requirement> {
    let requirement = |line: &String| Requirement {
        name: requirements::name_of(line),
        line: line.clone(),
        place: file.to_owned(),
    };
    lines.iter().map(requirement).collect()
}

fn add_pkg_resources(extra: &mut Vec<(String, String)>, all: &Requirements) {
    if all.hashed || all.list.iter().any(|requirement| requirement.name == "setuptools") {
        return;
    }
    let needs = all.list.iter().find(|requirement| {
        let known = NEED_PKG_RESOURCES.iter().find(|(name, _)| *name == requirement.name);
        known.is_some_and(|(_, fixed)| requirement.pinned().is_some_and(|version| version < *fixed))
    });
    if let Some(requirement) = needs {
        extra.push((
            "setuptools<81".to_owned(),
            format!("{} ({}) needs pkg_resources", requirement.line, requirement.place),
        ));
    }
}

/// Lists the folders one and two levels down that hold dependencies of their own.
pub(crate) fn folders_with_dependencies(source: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![(String::new(), 0)];
    while let Some((at, depth)) = todo.pop() {
        let is_folder = |name: &str, entry: &fs::DirEntry| {
            !name.starts_with('.') && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        for (name, entry) in code::list(&source.join(&at), is_folder) {
            let path = join(&at, &name);
            let marked = ["requirements.txt", "pyproject.toml", "Pipfile"]
                .iter()
                .any(|file| entry.path().join(file).is_file());
            if marked {
                found.push(path);
            } else if depth == 0 {
                todo.push((path, depth + 1));
            }
        }
    }
    found.sort();
    found
}

/// Joins a folder, which may be empty, and a name.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

//! The Pythons of this box: the system's, and those of pyenv, asdf, mise and uv; each one asked what it is.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::host::{self, Host};
use crate::python::version::Version;
use crate::python::wanted::Wanted;

/// Answering what one is takes 20 ms; one that needs longer is broken.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Oldest Python taken when the source asks for none: what FastAPI and its kin still support.
const OLDEST: Version = Version { major: 3, minor: 9, patch: 0 };
/// What an interpreter is asked. `-I` keeps the environment and the working directory out of it.
const QUESTION: &str = "\
import os, sys
try:
    import sqlite3; sqlite = sqlite3.sqlite_version
except Exception:
    sqlite = ''
try:
    libc = os.confstr('CS_GNU_LIBC_VERSION') or ''
except Exception:
    libc = ''
print('.'.join(map(str, sys.version_info[:3])), sys.base_prefix, sqlite, libc, sys.implementation.name, sep='\\n')
";

/// A Python that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interpreter {
    /// Its version.
    pub(crate) version: Version,
    /// The program.
    pub(crate) program: PathBuf,
    /// Where its library lives.
    pub(crate) prefix: PathBuf,
    /// Version of its SQLite; empty when it was built without.
    pub(crate) sqlite: String,
    /// Version of the C library it runs on.
    pub(crate) libc: String,
}

impl Interpreter {
    /// Returns whether every sandbox sees it already, because it lies below `/usr`.
    pub(crate) fn is_system(&self) -> bool {
        self.prefix.starts_with("/usr")
    }
}

type Answer = Option<Interpreter>;

/// Looks for Pythons, and remembers what each one answered until its file changes.
#[derive(Debug, Default)]
pub(crate) struct Interpreters {
    answers: Mutex<HashMap<(PathBuf, Option<SystemTime>), Answer>>,
}

impl Interpreters {
    /// Returns every Python of the box, the best last: by version, the system's before others of the same version.
    pub(crate) fn list(&self, host: &Host, data_dir: &Path) -> Vec<Interpreter> {
        let programs = candidates(host, data_dir);
        let mut found: Vec<Interpreter> = std::thread::scope(|scope| {
            let asked: Vec<_> =
                programs.iter().map(|program| scope.spawn(move || self.ask(program))).collect();
            asked.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
        });
        found.sort_by_key(|python| (python.version, python.is_system()));
        found
    }

    fn ask(&self, program: &Path) -> Answer {
        let changed = fs::metadata(program).and_then(|metadata| metadata.modified()).ok();
        let key = (program.to_owned(), changed);
        if let Some(answer) = self.answers.lock().expect("no holder of this lock panics").get(&key) {
            return answer.clone();
        }
        let answer = host::run(program, &["-I", "-c", QUESTION], &[], ASK_LIMIT)
            .ok()
            .and_then(|answer| understand(program, &answer));
        self.answers.lock().expect("no holder of this lock panics").insert(key, answer.clone());
        answer
    }
}

fn understand(program: &Path, answer: &str) -> Answer {
    let mut lines = answer.lines();
    let version = Version::parse(lines.next()?)?;
    let prefix = fs::canonicalize(lines.next()?).ok()?;
    let sqlite = lines.next()?.to_owned();
    let libc = lines.next()?.to_owned();
    (lines.next()? == "cpython").then(|| Interpreter {
        version,
        program: program.to_owned(),
        prefix,
        sqlite,
        libc,
    })
}

/// Lists programs that look like Python 3, without running them, links resolved.
fn candidates(host: &Host, data_dir: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")];
    folders.extend(host.path());
    let mut managed = vec![data_dir.join("tools/python")];
    managed.extend(host.get("PYENV_ROOT").map(|root| Path::new(root).join("versions")));
    for home in host.homes() {
        for place in [
            ".pyenv/versions",
            ".asdf/installs/python",
            ".local/share/mise/installs/python",
            ".local/share/uv/python",
        ] {
            managed.push(home.join(place));
        }
    }
    for place in managed {
        let versions = fs::read_dir(place).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    let mut programs = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let minor = name.to_str().and_then(|name| name.strip_prefix("python3."));
            let fits =
                minor.is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()));
            if !fits || !host::is_program(&entry.path()) {
                continue;
            }
            if let Ok(program) = fs::canonicalize(entry.path())
                && !programs.contains(&program)
            {
                programs.push(program);
            }
        }
    }
    programs
}

/// Chooses. A pinned patch is taken when it is here, else the newest patch of its minor. A range takes the system's
/// Python when that will do, else the lowest minor that will (what the author most likely ran; wheels exist for it).
/// When nothing is asked: the system's when it is 3.9 or newer, else the newest.
pub(crate) fn choose<'a>(found: &'a [Interpreter], wanted: Option<&Wanted>) -> Option<&'a Interpreter> {
    let Some(wanted) = wanted else {
        let recent = || found.iter().filter(|python| python.version >= OLDEST);
        return recent().rfind(|python| python.is_system()).or_else(|| recent().next_back());
    };
    if let Some(exact) = wanted.exact
        && let Some(python) = found.iter().rfind(|python| python.version == exact)
    {
        return Some(python);
    }
    let fits = || found.iter().filter(|python| wanted.specifiers.admit(python.version));
    if let Some(python) = fits().rfind(|python| python.is_system()) {
        return Some(python);
    }
    let lowest = fits().find(|python| python.version >= OLDEST).or_else(|| fits().next_back())?.version;
    fits().rfind(|python| (python.version.major, python.version.minor) == (lowest.major, lowest.minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::version::Specifiers;

    fn pythons() -> Vec<Interpreter> {
        [("3.8.18", "/p"), ("3.11.2", "/usr"), ("3.11.7", "/p"), ("3.12.1", "/p"), ("3.13.0", "/p")]
            .map(|(version, prefix)| Interpreter {
                version: Version::parse(version).unwrap(),
                program: PathBuf::from(prefix),
                prefix: PathBuf::from(prefix),
                sqlite: String::new(),
                libc: String::new(),
            })
            .to_vec()
    }

    fn chosen(text: &str) -> Option<String> {
        let exact = Version::parse(text).filter(|_| text.split('.').count() == 3 && !text.starts_with('>'));
        let minor = exact.map_or(text.to_owned(), |v| format!("{}.{}", v.major, v.minor));
        let specifiers = Specifiers::parse(&minor).unwrap();
        let wanted = Wanted { text: text.to_owned(), place: String::new(), specifiers, exact };
        choose(&pythons(), Some(&wanted)).map(|python| python.version.to_string())
    }

    #[test]
    fn the_choice_is_the_pinned_one_then_the_system_then_the_lowest_that_fits() {
        assert_eq!(choose(&pythons(), None).unwrap().version.to_string(), "3.11.2");
        assert_eq!(chosen("3.11.7").as_deref(), Some("3.11.7"));
        assert_eq!(chosen("3.12.4").as_deref(), Some("3.12.1"));
        assert_eq!(chosen(">=3.10").as_deref(), Some("3.11.2"));
        assert_eq!(chosen(">=3.12").as_deref(), Some("3.12.1"));
        assert_eq!(chosen("3.14"), None);
    }
}

//! The toolchains of this box beside Python: where a program lies and which version it is, asked once per file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use trackbed_core::ports::PortError;

use crate::fetch::{self, Fetcher};
use crate::host::{self, Host};
use crate::python::version::Version;
use crate::range::Range;
use crate::text;
pub(crate) use crate::tool::Tool;

/// `go version` takes 10 ms, `npm --version` 150; one that needs longer is broken.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A program that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Which.
    pub(crate) tool: Tool,
    /// Its version.
    pub(crate) version: Version,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Whether it calls itself a nightly, a beta or the like: taken only when a source asks for one by that word.
    #[serde(default)]
    pub(crate) preview: bool,
}

impl Program {
    /// Returns the folder of the program.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/usr/bin"))
    }

    /// Returns the tree that must be visible for it to work; none when every sandbox sees it.
    pub(crate) fn root(&self) -> Option<&Path> {
        let root = self.folder().parent()?;
        (!root.starts_with("/usr")).then_some(root)
    }

    /// Returns everything that must be visible for it to work and is not in every sandbox: its tree, or of the system's
    /// its settings.
    pub(crate) fn shown(&self) -> Vec<PathBuf> {
        if let Some(root) = self.root() {
            return vec![root.to_owned()];
        }
        let begins = |name: &str| self.tool.facts().settings.iter().any(|start| name.starts_with(start));
        let settings = fs::read_dir("/etc").into_iter().flatten().flatten();
        let mut shown: Vec<PathBuf> = settings
            .filter(|entry| entry.file_name().to_str().is_some_and(begins))
            .map(|entry| entry.path())
            .collect();
        shown.sort();
        shown
    }
}

/// Knows the programs of a box.
pub(crate) trait Programs {
    /// Returns every version of a tool that is here, the oldest first.
    fn list(&self, tool: Tool) -> Vec<Program>;

    /// Fetches a version of a tool, or its newest, so that it is listed from then on. Blocking.
    ///
    /// # Errors
    /// For people: why it was not fetched.
    fn fetch(&self, tool: Tool, version: Option<&str>) -> Result<(), String>;
}

type Asked = (PathBuf, Option<SystemTime>);

/// The programs of this box.
#[derive(Debug)]
pub(crate) struct HostPrograms {
    host: Host,
    data_dir: PathBuf,
    fetcher: Fetcher,
    answers: Mutex<HashMap<Asked, Option<(Version, bool)>>>,
}

impl HostPrograms {
    /// Looks on the box of this environment, and at what was fetched into the data directory.
    pub(crate) fn new(host: Host, data_dir: PathBuf) -> Self {
        let fetcher = Fetcher::new(host.clone(), data_dir.clone());
        Self { host, data_dir, fetcher, answers: Mutex::default() }
    }

    fn ask(&self, tool: Tool, path: &Path) -> Option<(Version, bool)> {
        let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let key = (path.to_owned(), changed);
        if let Some(answer) = self.answers.lock().expect("no holder of this lock panics").get(&key) {
            return *answer;
        }
        // Package managers are scripts of Node's: they find it beside themselves or in the usual places.
        let folder = path.parent().unwrap_or(Path::new("/")).display().to_string();
        let search = ("PATH".to_owned(), format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
        let home = ("HOME".to_owned(), "/nonexistent".to_owned());
        let answer = host::run(path, tool.facts().question, &[search, home], ASK_LIMIT).ok();
        let answer = answer.and_then(|answer| Some((version_in(&answer)?, is_preview(&answer))));
        self.answers.lock().expect("no holder of this lock panics").insert(key, answer);
        answer
    }
}

impl Programs for HostPrograms {
    fn list(&self, tool: Tool) -> Vec<Program> {
        let mut folders = self.host.path();
        folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
        for place in tool.facts().places {
            match place.split_once('/') {
                Some(("~", below)) => {
                    folders.extend(self.host.homes().iter().flat_map(|home| expand(home, below)))
                }
                Some(("", below)) => folders.extend(expand(Path::new("/"), below)),
                Some((variable, below)) => {
                    let named = self.host.get(variable.trim_start_matches('$'));
                    folders.extend(named.into_iter().flat_map(|folder| expand(Path::new(folder), below)));
                }
                None => {}
            }
        }
        if let Some(name) = tool.facts().mise.or_else(|| (tool == Tool::Npm).then_some("node")) {
            let fetched = fetch::installs(&self.data_dir).join(name);
            folders.extend(["*/bin", "*/*/bin"].iter().flat_map(|inside| expand(&fetched, inside)));
        }
        // Pointers to whatever is chosen elsewhere; the programs themselves are found above.
        folders.retain(|folder| !folder.ends_with(".cargo/bin") && !folder.ends_with("shims"));
        let mut found: Vec<Program> = Vec::new();
        for folder in folders {
            let mut path = folder.join(tool.program());
            if tool == Tool::Java {
                // Its home is told by where it really lies.
                path = fs::canonicalize(&path).unwrap_or(path);
            }
            let known = found.iter().any(|other| other.path == path);
            if known || !host::is_program(&path) {
                continue;
            }
            let answer = self.ask(tool, &path);
            found.extend(answer.map(|(version, preview)| Program { tool, version, path, preview }));
        }
        found.sort_by_key(|program| (program.version, program.root().is_none()));
        found
    }

    fn fetch(&self, tool: Tool, version: Option<&str>) -> Result<(), String> {
        self.fetcher.fetch(tool, version)
    }
}

/// Lists the folders of a pattern in which `*` stands for any one name. Links are left out: they name what is found anyway,
/// and may name something else tomorrow.
fn expand(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut folders = vec![base.to_owned()];
    for part in pattern.split('/') {
        if part == "*" {
            let below =
                folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
            let real = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders = real.map(|entry| entry.path()).collect();
        } else {
            folders.iter_mut().for_each(|folder| folder.push(part));
        }
    }
    folders
}

/// Finds the first version in what a program says of itself: `v20.1.0`, `go version go1.22.1 linux/amd64`.
fn version_in(answer: &str) -> Option<Version> {
    let numbers = || {
        let words =
            answer.split_whitespace().map(|word| word.trim_start_matches(|c: char| c.is_ascii_alphabetic()));
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    };
    let dotted = numbers().filter(|word| word.contains('.')).find_map(Version::parse);
    // `javac 21`
    dotted.or_else(|| numbers().find_map(|word| Version::parse(&format!("{word}.0"))))
}

const PREVIEWS: [&str; 4] = ["nightly", "beta", "canary", "-rc"];

/// Returns whether a text names something that is not released yet.
fn is_preview(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    PREVIEWS.iter().any(|word| first.contains(word))
}

/// What a source asks of a tool.
#[derive(Debug, Clone)]
pub(crate) struct Asks {
    /// As it stands.
    pub(crate) text: String,
    /// Where: `package.json:4`.
    pub(crate) place: String,
    /// What it means; none when it names no version.
    pub(crate) range: Option<Range>,
}

/// Chooses the newest program that satisfies what is asked, the system's before others of the same version. Fetches one
/// when none does.
///
/// # Errors
/// When there is none: names what was looked for, which versions are here, and why none was fetched.
pub(crate) fn choose(programs: &dyn Programs, tool: Tool, asks: Option<&Asks>) -> Result<Program, PortError> {
    let error = match choose_here(programs, tool, asks) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    let version = asks.and_then(|asks| lowest(&asks.text));
    match programs.fetch(tool, version.as_deref()) {
        Ok(()) => choose_here(programs, tool, asks),
        Err(cause) => Err(PortError {
            message: format!("{}; it was not fetched: {cause}", error.message),
            hint: error.hint,
        }),
    }
}

/// The first version in what is asked, which is its lower bound or itself: `20.1` of `^20.1 || ^22`.
fn lowest(text: &str) -> Option<String> {
    let text = &text[text.find(|c: char| c.is_ascii_digit())?..];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some(text[..end].trim_end_matches('.').to_owned())
}

fn choose_here(programs: &dyn Programs, tool: Tool, asks: Option<&Asks>) -> Result<Program, PortError> {
    let all = programs.list(tool);
    let range = asks.and_then(|asks| asks.range.as_ref());
    let preview = asks.is_some_and(|asks| is_preview(&asks.text));
    let fits = |program: &&Program| {
        program.preview == preview && range.is_none_or(|range| range.admits(program.version))
    };
    if let Some(program) = all.iter().rev().find(fits) {
        return Ok(program.clone());
    }
    let here: Vec<String> =
        all.iter().map(|program| format!("{} ({})", program.version, program.path.display())).collect();
    let here =
        if here.is_empty() { "there is none".to_owned() } else { format!("found {}", here.join(", ")) };
    let title = tool.title();
    Err(match asks {
        Some(asks) => PortError::new(format!(
            "this source asks for {title} {} ({}), which is not on this box: {here}",
            asks.text, asks.place
        ))
        .hint(format!("{}; or change {}", tool.facts().remedy, asks.place)),
        None => PortError::new(format!("this source needs {title}, which is not on this box: {here}"))
            .hint(tool.facts().remedy),
    })
}

/// Chooses a tool that comes with another one: from the same folder, else the newest.
///
/// # Errors
/// When there is none.
pub(crate) fn choose_beside(
    programs: &dyn Programs,
    tool: Tool,
    other: &Program,
) -> Result<Program, PortError> {
    let beside = programs.list(tool).into_iter().find(|program| program.folder() == other.folder());
    beside.map_or_else(|| choose(programs, tool, None), Ok)
}

/// Finds what `.tool-versions` asks of a tool, under any of its names.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn tool_versions(source: &Path, names: &[&str]) -> Result<Option<Asks>, PortError> {
    let file = ".tool-versions";
    let text = text::find(source, file)?.unwrap_or_default();
    Ok((1..).zip(text.lines()).find_map(|(number, line)| {
        let mut words = line.split_whitespace();
        let version = words.next().filter(|name| names.contains(name)).and_then(|_| words.next())?;
        // `1.17.3-otp-27` is built for an Erlang, `temurin-21.0.5` by a vendor.
        let plain = version.trim_start_matches(|c: char| !c.is_ascii_digit()).split("-otp").next()?;
        Some(Asks { text: version.to_owned(), place: format!("{file}:{number}"), range: Range::parse(plain) })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_their_version_in_many_ways() {
        for (said, version) in [
            ("v20.20.2\n", "20.20.2"),
            ("go version go1.22.1 linux/amd64", "1.22.1"),
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", "1.95.0"),
            ("11.19.1", "11.19.1"),
            ("javac 21", "21.0.0"),
            ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a) [x86_64-linux-gnu]", "3.1.2"),
            ("Erlang/OTP 25 [erts-13.1.5] [source]\n\nElixir 1.14.0 (compiled with Erlang/OTP 24)", "1.14.0"),
            ("Composer version 2.5.5 2023-03-21 11:50:05", "2.5.5"),
            ("PHP 8.2.29 (cli) (built: Jul  3 2025 16:16:05) (NTS)", "8.2.29"),
            ("Apache Maven 3.8.7\nMaven home: /usr/share/maven\nJava version: 17.0.16", "3.8.7"),
        ] {
            assert_eq!(version_in(said).unwrap().to_string(), version);
        }
        assert_eq!(version_in("command not found"), None);
        assert_eq!(lowest("^20.1 || ^22"), Some("20.1".to_owned()));
        assert_eq!((lowest("20.x").as_deref(), lowest("lts/*")), (Some("20"), None));
        assert!(is_preview("cargo 1.97.0-nightly (f2d3ce0bd 2026-03-21)") && !is_preview("v20.20.2"));
    }
}

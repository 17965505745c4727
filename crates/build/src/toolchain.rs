//! The toolchains of this box beside Python: where a program lies and which version it is, asked once per file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use trackbed_core::ports::PortError;

use crate::host::{self, Host};
use crate::python::version::Version;
use crate::range::Range;

/// `go version` takes 10 ms, `npm --version` 150; one that needs longer is broken.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A program that builds or runs sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tool {
    /// Node.js.
    Node,
    /// Its package managers.
    Npm,
    /// pnpm.
    Pnpm,
    /// Yarn.
    Yarn,
    /// Bun, which is runtime and package manager.
    Bun,
    /// Go.
    Go,
    /// Cargo, with the compiler beside it.
    Cargo,
}

impl Tool {
    /// Returns the name of the program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Tool::Node => "node",
            Tool::Npm => "npm",
            Tool::Pnpm => "pnpm",
            Tool::Yarn => "yarn",
            Tool::Bun => "bun",
            Tool::Go => "go",
            Tool::Cargo => "cargo",
        }
    }

    /// Returns what people call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Tool::Node => "Node.js",
            Tool::Npm => "npm",
            Tool::Pnpm => "pnpm",
            Tool::Yarn => "Yarn",
            Tool::Bun => "Bun",
            Tool::Go => "Go",
            Tool::Cargo => "Rust",
        }
    }

    /// How it is put on a box.
    fn remedy(self) -> &'static str {
        match self {
            Tool::Node | Tool::Npm => {
                "install it on the box: `apt install nodejs npm`, or a newer one from nodejs.org into /usr/local"
            }
            Tool::Pnpm => "install it on the box: `npm install --global pnpm`",
            Tool::Yarn => "install it on the box: `npm install --global yarn`",
            Tool::Bun => "install it on the box: `npm install --global bun`",
            Tool::Go => {
                "install it on the box: `apt install golang`, or a newer one from go.dev/dl into /usr/local/go"
            }
            Tool::Cargo => "install it on the box: `apt install cargo`, or by rustup.rs",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Tool::Go => &["version"],
            Tool::Node | Tool::Npm | Tool::Pnpm | Tool::Yarn | Tool::Bun | Tool::Cargo => &["--version"],
        }
    }

    /// Folders below a home in which version managers keep one folder a version, and where the programs are in it.
    fn managed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Tool::Node | Tool::Npm | Tool::Pnpm | Tool::Yarn => {
                &[(".nvm/versions/node", "bin"), (".local/share/mise/installs/node", "bin")]
            }
            Tool::Bun => &[(".local/share/mise/installs/bun", "bin")],
            Tool::Go => &[(".local/share/mise/installs/go", "bin")],
            // Not `.cargo/bin`: what lies there only points to one of these.
            Tool::Cargo => &[(".rustup/toolchains", "bin")],
        }
    }

    /// Further folders.
    fn places(self) -> &'static [&'static str] {
        match self {
            Tool::Go => &["/usr/local/go/bin", "/usr/lib/go/bin"],
            Tool::Node | Tool::Npm | Tool::Pnpm | Tool::Yarn | Tool::Bun | Tool::Cargo => &[],
        }
    }
}

/// A program that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Which.
    pub(crate) tool: Tool,
    /// Its version.
    pub(crate) version: Version,
    /// Where it lies.
    pub(crate) path: PathBuf,
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
}

/// Knows the programs of a box.
pub(crate) trait Programs {
    /// Returns every version of a tool that is here, the oldest first.
    fn list(&self, tool: Tool) -> Vec<Program>;
}

type Asked = (PathBuf, Option<SystemTime>);

/// The programs of this box.
#[derive(Debug)]
pub(crate) struct HostPrograms {
    host: Host,
    answers: Mutex<HashMap<Asked, Option<Version>>>,
}

impl HostPrograms {
    /// Looks on the box of this environment.
    pub(crate) fn new(host: Host) -> Self {
        Self { host, answers: Mutex::default() }
    }

    fn ask(&self, tool: Tool, path: &Path) -> Option<Version> {
        let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let key = (path.to_owned(), changed);
        if let Some(answer) = self.answers.lock().expect("no holder of this lock panics").get(&key) {
            return *answer;
        }
        // Package managers are scripts of Node's: they find it beside themselves or in the usual places.
        let folder = path.parent().unwrap_or(Path::new("/")).display().to_string();
        let search = ("PATH".to_owned(), format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
        let home = ("HOME".to_owned(), "/nonexistent".to_owned());
        let answer = host::run(path, tool.arguments(), &[search, home], ASK_LIMIT).ok();
        let answer = answer.and_then(|answer| version_in(&answer));
        self.answers.lock().expect("no holder of this lock panics").insert(key, answer);
        answer
    }
}

impl Programs for HostPrograms {
    fn list(&self, tool: Tool) -> Vec<Program> {
        let mut folders = self.host.path();
        folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
        folders.extend(tool.places().iter().map(PathBuf::from));
        for home in self.host.homes() {
            for (place, inside) in tool.managed() {
                let versions = fs::read_dir(home.join(place)).into_iter().flatten().flatten();
                folders.extend(versions.map(|version| version.path().join(inside)));
            }
        }
        // Pointers to whatever is chosen elsewhere; the programs themselves are found above.
        folders.retain(|folder| !folder.ends_with(".cargo/bin") && !folder.ends_with("shims"));
        let mut found: Vec<Program> = Vec::new();
        for folder in folders {
            let path = folder.join(tool.program());
            let known = found.iter().any(|other| other.path == path);
            if known || !host::is_program(&path) {
                continue;
            }
            found.extend(self.ask(tool, &path).map(|version| Program { tool, version, path }));
        }
        found.sort_by_key(|program| (program.version, program.root().is_none()));
        found
    }
}

/// Finds the first version in what a program says of itself: `v20.1.0`, `go version go1.22.1 linux/amd64`.
fn version_in(answer: &str) -> Option<Version> {
    answer.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        (word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
            .then(|| Version::parse(word))
            .flatten()
    })
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

/// Chooses the newest program that satisfies what is asked, the system's before others of the same version.
///
/// # Errors
/// When there is none: names what was looked for, and which versions are here.
pub(crate) fn choose(programs: &dyn Programs, tool: Tool, asks: Option<&Asks>) -> Result<Program, PortError> {
    let all = programs.list(tool);
    let range = asks.and_then(|asks| asks.range.as_ref());
    let fits = |program: &&Program| range.is_none_or(|range| range.admits(program.version));
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
        .hint(format!("{}; or change {}", tool.remedy(), asks.place)),
        None => PortError::new(format!("this source needs {title}, which is not on this box: {here}"))
            .hint(tool.remedy()),
    })
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
        ] {
            assert_eq!(version_in(said).unwrap().to_string(), version);
        }
        assert_eq!(version_in("command not found"), None);
    }
}

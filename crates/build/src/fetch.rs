//! Fetches a toolchain that a source asks for and the box has not: by mise, into the data directory, for all services.
//!
//! mise is the box's own, or fetched once by the box's npm and taken only when it has the checksum that stands here. What
//! mise fetches it checks itself against the checksums of each tool's makers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use trackbed_core::image::Image;
use trackbed_stdx::files;

use crate::collect;
use crate::host::{self, Host};
use crate::tool::Tool;

/// The mise that is fetched when the box has none.
const MISE_PINNED: &str = "2026.9.15";
/// Architecture, npm's name of it, and the checksum of the program (SHA-256, of the package on registry.npmjs.org). On
/// others the box's own mise is used.
const MISE_SUMS: [(&str, &str, &str); 1] =
    [("x86_64", "x64", "09ea631d6f3e7031d63606a0892dc4c796f9fb57f493bc45937f9f7113c88216")];
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// 52 MB over a slow line.
const MISE_LIMIT: Duration = Duration::from_secs(300);
/// A JDK is 200 MB.
const TOOL_LIMIT: Duration = Duration::from_secs(300);
/// Age from which on a fetched tool that no image runs with may go. Builds renew it.
const TOOL_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where fetched tools are, one folder a tool, one folder a version.
pub(crate) fn installs(data_dir: &Path) -> PathBuf {
    data_dir.join("tools/mise/data/installs")
}

/// Fetches. One at a time.
#[derive(Debug)]
pub(crate) struct Fetcher {
    host: Host,
    data_dir: PathBuf,
    turn: Mutex<()>,
}

impl Fetcher {
    /// Uses `tools` below the data directory. Touches nothing yet.
    pub(crate) fn new(host: Host, data_dir: PathBuf) -> Self {
        Self { host, data_dir, turn: Mutex::default() }
    }

    /// Fetches a version of a tool, or its newest; of Node the newest that is supported for long. Blocking, up to several
    /// minutes.
    ///
    /// # Errors
    /// For people: what could not be fetched, and why.
    pub(crate) fn fetch(&self, tool: Tool, version: Option<&str>) -> Result<(), String> {
        let name = tool.facts().mise.ok_or_else(|| format!("Trackbed does not fetch {}", tool.title()))?;
        let _turn = self.turn.lock().expect("no holder of this lock panics");
        let mise = self.mise()?;
        let folder = self.data_dir.join("tools/mise");
        let mut env = self.host.passed();
        let mirror = "MISE_NODE_MIRROR_URL";
        env.extend(self.host.get(mirror).map(|value| (mirror.to_owned(), value.to_owned())));
        for (name, below) in [
            ("HOME", "home"),
            ("MISE_DATA_DIR", "data"),
            ("MISE_CACHE_DIR", "cache"),
            ("MISE_STATE_DIR", "state"),
            ("MISE_CONFIG_DIR", "config"),
        ] {
            env.push((name.to_owned(), folder.join(below).display().to_string()));
        }
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("MISE_YES", "1"),
            ("MISE_HTTP_TIMEOUT", "15s"),
            ("MISE_NODE_COMPILE", "0"),
        ] {
            env.push((name.to_owned(), value.to_owned()));
        }
        let newest = if tool == Tool::Node { "lts" } else { "latest" };
        let wanted = format!("{name}@{}", version.unwrap_or(newest));
        host::run(&mise, &["install", &wanted], &env, TOOL_LIMIT)
            .map(|_| ())
            .map_err(|error| format!("{} install {wanted}: {error}", mise.display()))
    }

    /// Finds mise, or fetches it.
    fn mise(&self) -> Result<PathBuf, String> {
        let own = self.data_dir.join("tools/mise/bin/mise");
        let mut places: Vec<PathBuf> = self.host.path().iter().map(|folder| folder.join("mise")).collect();
        places.extend(self.host.homes().iter().map(|home| home.join(".local/bin/mise")));
        places.push(PathBuf::from("/usr/local/bin/mise"));
        places.push(own.clone());
        let works = |place: &&PathBuf| {
            host::is_program(place) && host::run(place, &["--version"], &[], ASK_LIMIT).is_ok()
        };
        if let Some(found) = places.iter().find(works) {
            return Ok(found.clone());
        }
        let why = "mise, which fetches toolchains, is not on this box";
        let npm =
            self.host.path().into_iter().chain([PathBuf::from("/usr/local/bin"), PathBuf::from("/usr/bin")]);
        let npm = npm.map(|folder| folder.join("npm")).find(|npm| host::is_program(npm));
        let npm = npm.ok_or_else(|| format!("{why}, nor is npm to fetch it with"))?;
        self.fetch_mise(&npm, &own).map_err(|error| format!("{why}, and fetching it failed: {error}"))?;
        Ok(own)
    }

    fn fetch_mise(&self, npm: &Path, own: &Path) -> Result<(), String> {
        let arch = MISE_SUMS.iter().find(|(arch, ..)| *arch == std::env::consts::ARCH);
        let (_, arch, sum) = arch.ok_or_else(|| format!("there is none for {}", std::env::consts::ARCH))?;
        let text = |error: io::Error| error.to_string();
        let beside = files::temporary_beside(own).map_err(text)?;
        fs::create_dir_all(&beside).map_err(text)?;
        let folder = beside.display().to_string();
        let package = format!("@jdxcode/mise-linux-{arch}@{MISE_PINNED}");
        let search = npm.parent().unwrap_or(Path::new("/usr/bin")).display().to_string();
        let mut env = self.host.passed();
        env.push(("PATH".to_owned(), format!("{search}:/usr/local/bin:/usr/bin:/bin")));
        env.push(("HOME".to_owned(), folder.clone()));
        let arguments = [
            "install",
            "--no-save",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
            &folder,
            &package,
        ];
        let fetched = host::run(npm, &arguments, &env, MISE_LIMIT).and_then(|_| {
            let program = beside.join(format!("node_modules/@jdxcode/mise-linux-{arch}/bin/mise"));
            let bytes = fs::read(&program).map_err(text)?;
            let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if found != *sum {
                return Err(format!("{package} has the checksum {found}, expected {sum}"));
            }
            fs::rename(&program, own).map_err(text)
        });
        let _ = files::remove_tree(&beside);
        fetched
    }
}

/// Makes a fetched tool count as just used. Others are not ours.
pub(crate) fn renew(data_dir: &Path, program: &Path) {
    if let Some(folder) = version_folder(data_dir, program) {
        // An older mark only means that it is fetched again one day.
        let _ = collect::renew(&folder);
    }
}

/// Removes fetched tools that no image runs with and no build used lately. Returns how many.
pub(crate) fn let_go(data_dir: &Path, keep: &[Image]) -> io::Result<u64> {
    let needed: Vec<PathBuf> = keep
        .iter()
        .flat_map(|image| &image.host_paths)
        .filter_map(|path| version_folder(data_dir, Path::new(path)))
        .collect();
    let mut gone = 0;
    for tool in fs::read_dir(installs(data_dir)).into_iter().flatten().flatten() {
        for version in fs::read_dir(tool.path()).into_iter().flatten().flatten() {
            let path = version.path();
            let is_folder = version.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !needed.contains(&path) && !collect::is_newer(&path, TOOL_AGE)? {
                collect::remove_at_once(&path, &data_dir.join("build"), "tool-")?;
                gone += 1;
            }
        }
    }
    Ok(gone)
}

fn version_folder(data_dir: &Path, path: &Path) -> Option<PathBuf> {
    let installs = installs(data_dir);
    let below = path.strip_prefix(&installs).ok()?;
    let parts: PathBuf = below.components().take(2).collect();
    (parts.components().count() == 2).then(|| installs.join(parts))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

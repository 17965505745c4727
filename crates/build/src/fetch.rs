//! Fetches a toolchain that a source asks for and the box has not: by mise, into the data directory, for all services.
//!
//! mise is the box's own, or fetched once, and taken only when it has the checksum that stands here: by the box's npm, which
//! knows the box's own registry, else from where its makers release it. What mise fetches it checks itself against the
//! checksums of each tool's makers.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use trackbed_core::image::Image;
use trackbed_https::File;
use trackbed_stdx::files;

use crate::collect;
use crate::host::{self, Host};
use crate::tool::Tool;

/// The mise that is fetched when the box has none.
const MISE_PINNED: &str = "2026.9.12";
/// Architecture, mise's name of it, and the checksum of the program: SHA-256, of the release's SHASUMS256.txt, whose signature
/// was verified against the makers' key (minisign 64113EDF160FDEC2). npm's package has the same program. On others the box's
/// own mise is used.
const MISE_SUMS: [(&str, &str, &str); 2] = [
    ("x86_64", "x64", "e79ae57945034903aee8aa2ea66b4c7ca9cd4f4edd5a8a78a589cbae6d0f428a"),
    ("aarch64", "arm64", "f344c6961190ed2f68e595ed7cb4f03c36c17812bd608886bec799a3082180ff"),
];
const MISE_RELEASES: &str = "https://github.com/jdx/mise/releases/download";
/// Twice what it has now.
const MISE_MAX_BYTES: u64 = 300_000_000;
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// 135 MB over a slow line; 52 MB by npm.
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
        self.fetch_mise(&own).map_err(|error| {
            format!("mise, which fetches toolchains, is not on this box, and fetching it failed: {error}")
        })?;
        Ok(own)
    }

    fn fetch_mise(&self, own: &Path) -> Result<(), String> {
        let arch = std::env::consts::ARCH;
        let pinned = MISE_SUMS.iter().find(|(known, ..)| *known == arch);
        let (_, arch, sum) = pinned.ok_or_else(|| format!("there is none for {arch}"))?;
        let places = self.host.path().into_iter().chain(["/usr/local/bin".into(), "/usr/bin".into()]);
        let npm = places.map(|folder| folder.join("npm")).find(|npm| host::is_program(npm));
        let by_npm = match npm {
            Some(npm) => put(own, |beside| self.fetch_by_npm(&npm, arch, sum, beside)),
            None => Err("npm is not on this box".to_owned()),
        };
        let Err(why) = by_npm else { return Ok(()) };
        let address = format!("{MISE_RELEASES}/v{MISE_PINNED}/mise-v{MISE_PINNED}-linux-{arch}");
        let release = File { address: &address, sha256: sum, max_bytes: MISE_MAX_BYTES };
        put(own, |beside| self.fetch_release(&release, beside)).map_err(|error| format!("{why}; {error}"))
    }

    fn fetch_by_npm(&self, npm: &Path, arch: &str, sum: &str, beside: &Path) -> Result<PathBuf, String> {
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
        host::run(npm, &arguments, &env, MISE_LIMIT)?;
        let program = beside.join(format!("node_modules/@jdxcode/mise-linux-{arch}/bin/mise"));
        let bytes = fs::read(&program).map_err(|error| error.to_string())?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != sum {
            return Err(format!("{package} has the checksum {found}, expected {sum}"));
        }
        Ok(program)
    }

    fn fetch_release(&self, release: &File<'_>, beside: &Path) -> Result<PathBuf, String> {
        let program = beside.join("mise");
        let mut file = fs::File::create_new(&program).map_err(|error| error.to_string())?;
        trackbed_https::download(release, self.host.proxies(), MISE_LIMIT, &mut file)?;
        let executable = fs::Permissions::from_mode(0o755);
        file.set_permissions(executable).map_err(|error| error.to_string())?;
        Ok(program)
    }
}

/// Puts the program to `own` that `get` leaves in a folder beside it, which is removed.
fn put(own: &Path, get: impl FnOnce(&Path) -> Result<PathBuf, String>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let beside = files::temporary_beside(own).map_err(text)?;
    let got = fs::create_dir_all(&beside).map_err(text).and_then(|()| get(&beside));
    let put = got.and_then(|program| fs::rename(program, own).map_err(text));
    let _ = files::remove_tree(&beside);
    put
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

//! Finds uv, the installer, on this box; when there is none, gets it once with the box's own pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trackbed_core::ports::PortError;
use trackbed_stdx::files;

use crate::host::{self, Host};
use crate::python::interpreters::Interpreter;

/// The version that is fetched when the box has none.
const UV_PINNED: &str = "0.13.9";
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// 25 MB over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(300);
/// A Python is 30 MB.
const PYTHON_LIMIT: Duration = Duration::from_secs(180);

/// The installer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uv {
    /// The program.
    pub(crate) program: PathBuf,
    /// What it says it is: `0.13.9`.
    pub(crate) version: String,
}

/// Finds uv, or fetches it. Blocking.
pub(crate) fn ensure_uv(host: &Host, data_dir: &Path, pythons: &[Interpreter]) -> Result<Uv, PortError> {
    let own = data_dir.join("tools/uv/bin/uv");
    let mut places: Vec<PathBuf> = host.path().into_iter().map(|folder| folder.join("uv")).collect();
    for home in host.homes() {
        places.push(home.join(".local/bin/uv"));
        places.push(home.join(".cargo/bin/uv"));
    }
    places.push(PathBuf::from("/usr/local/bin/uv"));
    places.push(own.clone());
    if let Some(uv) = places.iter().find_map(|place| ask(place)) {
        return Ok(uv);
    }
    let mut why = String::from("no Python with pip");
    // The newest first: it has the newest pip.
    for python in pythons.iter().rev() {
        match fetch(host, data_dir, &python.program) {
            Ok(()) => {
                return ask(&own).ok_or_else(|| {
                    PortError::new(format!("{} was installed by pip but does not run", own.display()))
                });
            }
            Err(error) => why = format!("{} -m pip: {error}", python.program.display()),
        }
    }
    Err(PortError::new(format!("uv, which installs Python packages, is not on this box, and fetching it failed: {why}"))
        .hint("install it: `curl -LsSf https://astral.sh/uv/install.sh | sh`, or `pip install uv`, or put the program into /usr/local/bin"))
}

fn ask(place: &Path) -> Option<Uv> {
    if !host::is_program(place) {
        return None;
    }
    // A wrapper script would not run in the sandbox, where its own files are missing: the program itself is wanted.
    let program = fs::canonicalize(place).ok()?;
    let mut magic = [0; 4];
    std::io::Read::read_exact(&mut fs::File::open(&program).ok()?, &mut magic).ok()?;
    if magic != *b"\x7fELF" {
        return None;
    }
    let answer = host::run(&program, &["--version"], &[], ASK_LIMIT).ok()?;
    let version = answer.split_whitespace().nth(1)?.to_owned();
    Some(Uv { program, version })
}

fn fetch(host: &Host, data_dir: &Path, python: &Path) -> Result<(), String> {
    let tools = data_dir.join("tools");
    let target = tools.join("uv");
    let beside = files::temporary_beside(&target).map_err(|error| error.to_string())?;
    fs::create_dir_all(&tools).map_err(|error| error.to_string())?;
    let mut env = host.passed();
    env.push(("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()));
    env.push(("PIP_DISABLE_PIP_VERSION_CHECK".to_owned(), "1".to_owned()));
    let package = format!("uv=={UV_PINNED}");
    let folder = beside.display().to_string();
    let arguments = [
        "-I",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--target",
        &folder,
        &package,
    ];
    let fetched = host::run(python, &arguments, &env, FETCH_LIMIT).and_then(|_| {
        files::remove_tree(&target).map_err(|error| error.to_string())?;
        fs::rename(&beside, &target).map_err(|error| error.to_string())
    });
    let _ = files::remove_tree(&beside);
    fetched
}

/// Tries to fetch a Python into the data directory. Blocking; the error is for people.
pub(crate) fn fetch_python(host: &Host, data_dir: &Path, uv: &Uv, version: &str) -> Result<(), String> {
    let mut env = host.passed();
    let folder = data_dir.join("tools/python").display().to_string();
    env.push(("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()));
    env.push(("HOME".to_owned(), folder.clone()));
    env.push(("UV_PYTHON_INSTALL_DIR".to_owned(), folder));
    env.push(("UV_HTTP_TIMEOUT".to_owned(), "15".to_owned()));
    env.push(("UV_NO_PROGRESS".to_owned(), "1".to_owned()));
    let arguments = ["--no-config", "--no-cache", "python", "install", "--no-bin", version];
    host::run(&uv.program, &arguments, &env, PYTHON_LIMIT).map(|_| ())
}

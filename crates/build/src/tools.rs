//! Finds uv, the installer, on this box; when there is none, fetches it once, by its checksum: with the box's own pip, which
//! knows the box's own index, else from PyPI.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trackbed_core::ports::PortError;
use trackbed_https::File;
use trackbed_stdx::files;
use zip::ZipArchive;

use crate::host::{self, Host};
use crate::python::interpreters::Interpreter;

/// The version that is fetched when the box has none.
const UV_PINNED: &str = "0.13.9";
/// Its wheels (pypi.org/simple/uv): architecture, place below [`WHEELS`], SHA-256. The first of an architecture runs on every
/// box; pip may choose another.
const UV_WHEELS: [(&str, &str, &str); 4] = [
    (
        "x86_64",
        "3d/aa/26d64642d808de4a652579ef950d7cd2d37f080a8babf9c67c6b75fc4c3f/uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    (
        "x86_64",
        "fe/fe/794884de0efd3ac77a427cab21aa72c0483e100c55a42cd5cbb02c141b84/uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    (
        "aarch64",
        "57/15/94b6cd62ac3ff6550288328e8035288875197cbc183f51554b266a69877b/uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    (
        "aarch64",
        "fe/2f/51a5de367c602592c018a42a23d57fba5f2689fe6c3bf025dcf043b39c61/uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
];
const WHEELS: &str = "https://files.pythonhosted.org/packages";
/// Twice what it has now.
const WHEEL_MAX_BYTES: u64 = 60_000_000;
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
    let mut why = Vec::new();
    // The newest first: it has the newest pip.
    for python in pythons.iter().rev() {
        match fetch(data_dir, |beside| by_pip(host, &python.program, beside)) {
            Ok(()) => return found(&own),
            Err(error) => {
                let has_pip = !error.contains("No module named pip");
                why.push(format!("{} -m pip: {error}", python.program.display()));
                // What stands in its way does so for the others' pip, too.
                if has_pip {
                    break;
                }
            }
        }
    }
    match fetch(data_dir, |beside| from_index(host, beside)) {
        Ok(()) => return found(&own),
        Err(error) => why.push(error),
    }
    Err(PortError::new(format!(
        "uv, which installs Python packages, is not on this box, and fetching it failed: {}",
        why.join("; ")
    ))
    .hint("install it: `curl -LsSf https://astral.sh/uv/install.sh | sh`, or `pip install uv`, or put the program into /usr/local/bin"))
}

fn found(own: &Path) -> Result<Uv, PortError> {
    ask(own).ok_or_else(|| PortError::new(format!("{} was fetched but does not run", own.display())))
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

/// Makes `tools/uv` with what `get` puts into a folder beside it.
fn fetch(data_dir: &Path, get: impl Fn(&Path) -> Result<(), String>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let target = data_dir.join("tools/uv");
    let beside = files::temporary_beside(&target).map_err(text)?;
    let got = fs::create_dir_all(&beside).map_err(text).and_then(|()| get(&beside)).and_then(|()| {
        files::remove_tree(&target).map_err(text)?;
        fs::rename(&beside, &target).map_err(text)
    });
    let _ = files::remove_tree(&beside);
    got
}

/// Whatever index pip is told of, what comes from it is what PyPI has.
fn by_pip(host: &Host, python: &Path, target: &Path) -> Result<(), String> {
    let wanted = target.join("requirements.txt");
    let sums: String = UV_WHEELS.iter().map(|(.., sum)| format!(" --hash=sha256:{sum}")).collect();
    files::write_atomic(&wanted, format!("uv=={UV_PINNED}{sums}\n").as_bytes(), 0o600)
        .map_err(|error| error.to_string())?;
    let mut env = host.passed();
    env.push(("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()));
    env.push(("PIP_DISABLE_PIP_VERSION_CHECK".to_owned(), "1".to_owned()));
    let (wanted, target) = (wanted.display().to_string(), target.display().to_string());
    let arguments = [
        "-I",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--require-hashes",
        "--target",
        &target,
        "-r",
        &wanted,
    ];
    host::run(python, &arguments, &env, FETCH_LIMIT)?;
    fs::remove_file(wanted).map_err(|error| error.to_string())
}

fn from_index(host: &Host, target: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let arch = std::env::consts::ARCH;
    let wheel = UV_WHEELS.iter().find(|(known, ..)| *known == arch);
    let (_, place, sha256) = wheel.ok_or_else(|| format!("there is none for {arch}"))?;
    let address = format!("{WHEELS}/{place}");
    let archive = target.join("wheel");
    let mut bytes =
        fs::File::options().read(true).write(true).create_new(true).open(&archive).map_err(text)?;
    let wanted = File { address: &address, sha256, max_bytes: WHEEL_MAX_BYTES };
    trackbed_https::download(&wanted, host.proxies(), FETCH_LIMIT, &mut bytes)?;
    unpack_program(bytes, &target.join("bin/uv")).map_err(|error| format!("{address}: {error}"))?;
    fs::remove_file(archive).map_err(text)
}

/// Takes the program out of a wheel (packaging.python.org "Binary distribution format": scripts are in `.data/scripts`).
fn unpack_program(wheel: fs::File, target: &Path) -> Result<(), String> {
    let mut wheel = ZipArchive::new(wheel).map_err(|error| error.to_string())?;
    let name = format!("uv-{UV_PINNED}.data/scripts/uv");
    let mut program = wheel.by_name(&name).map_err(|error| format!("{name}: {error}"))?;
    let text = |error: io::Error| error.to_string();
    fs::create_dir_all(target.parent().expect("a program is in a folder")).map_err(text)?;
    let mut file = fs::File::create_new(target).map_err(text)?;
    io::copy(&mut program, &mut file).map_err(text)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755)).map_err(text)
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

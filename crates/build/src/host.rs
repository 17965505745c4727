//! The box as the builder sees it: a copy of its environment, places to look for programs, and short bounded runs of
//! programs of the box itself (never of the source).

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trackbed_https::Proxies;

/// Variables of the box that installs may see: certificates, proxies and package indexes. Nothing else passes.
pub(crate) const PASSED: [&str; 52] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_FIND_LINKS",
    "UV_HTTP_TIMEOUT",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_INSECURE_HOST",
    "UV_OFFLINE",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_CERT",
    "PIP_TRUSTED_HOST",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
    "YARN_NPM_REGISTRY_SERVER",
    "BUN_CONFIG_REGISTRY",
    "NPM_CONFIG_NODEDIR",
    "npm_config_nodedir",
    "DENO_CERT",
    "DENO_TLS_CA_STORE",
    "JSR_URL",
    "GOPROXY",
    "GOPRIVATE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOSUMDB",
    "GOINSECURE",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_OFFLINE",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "BUNDLE_SSL_CA_CERT",
    "BUNDLE_MIRROR__ALL",
    "HEX_MIRROR",
    "HEX_CACERTS_PATH",
];

/// pip's names and those of uv, which does not read pip's itself.
pub(crate) const PIP_NAMES: [(&str, &str); 5] = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST"),
    ("PIP_CERT", "SSL_CERT_FILE"),
];

/// A copy of the box's environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    env: BTreeMap<String, String>,
}

impl Host {
    /// Takes the environment.
    pub(crate) fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { env: env.into_iter().collect() }
    }

    /// Finds a variable that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the variables that installs may see. pip's names are given to uv too, which does not read them itself.
    pub(crate) fn passed(&self) -> Vec<(String, String)> {
        let mut passed: Vec<(String, String)> =
            PASSED.iter().filter_map(|name| Some(((*name).to_owned(), self.get(name)?.to_owned()))).collect();
        for (pip, uv) in PIP_NAMES {
            let taken =
                self.get(uv).is_some() || (pip == "PIP_INDEX_URL" && self.get("UV_INDEX_URL").is_some());
            if let Some(value) = self.get(pip).filter(|_| !taken) {
                passed.push((uv.to_owned(), value.to_owned()));
            }
        }
        // A folder that is not there makes uv fail, where pip shrugs.
        passed.retain(|(_, value)| !value.starts_with('/') || Path::new(value).exists());
        passed
    }

    /// Returns the proxies of the box.
    pub(crate) fn proxies(&self) -> Proxies {
        Proxies::new(|name| self.get(name).map(str::to_owned))
    }

    /// Returns the home folders to look in.
    pub(crate) fn homes(&self) -> Vec<PathBuf> {
        let mut homes: Vec<PathBuf> = self.get("HOME").map(PathBuf::from).into_iter().collect();
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        homes.extend(account.map(|account| account.dir));
        homes.push(PathBuf::from("/root"));
        let mut seen = Vec::new();
        homes.retain(|home| {
            !seen.contains(home) && {
                seen.push(home.clone());
                true
            }
        });
        homes
    }

    /// Returns the folders of `PATH`, without those that hold only pointers to other versions.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        let folders = self.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        folders
            .split(':')
            .filter(|folder| folder.starts_with('/') && !folder.ends_with("/shims"))
            .map(PathBuf::from)
            .collect()
    }
}

/// Returns whether a path is a program that may be executed.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Runs a program of the box to its end with the given environment only. Blocking.
///
/// Returns its output; the error says what went wrong, with the program's own last words.
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    env: &[(String, String)],
    limit: Duration,
) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let err = reader(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {} s", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let out = out.join().unwrap_or_default();
    if status.success() {
        return Ok(out);
    }
    let words = err.join().unwrap_or_default();
    let words: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(format!("{status}: {}", words[words.len().saturating_sub(3)..].join("; ")))
}

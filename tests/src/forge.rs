//! A forge on loopback: bare repositories served by the real git over HTTP and by the real sshd, deliveries as each forge
//! sends them, and the statuses that it was told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Connection, Repository, Response, TestBox};

/// A forge. It forgets everything when dropped.
pub struct Forge {
    folder: TempDir,
    process: Child,
    port: u16,
}

/// What the box said when a repository was connected: the port and path of the webhook, and its secret.
pub struct Hook {
    /// Port of the box's listener.
    pub port: u16,
    /// Path of the webhook.
    pub path: String,
    /// Its secret.
    pub secret: String,
    /// All of the answer.
    pub said: Value,
}

impl Forge {
    /// Starts one without repositories.
    pub fn start() -> Forge {
        let folder = tempfile::Builder::new().prefix("tbf-").tempdir_in("/tmp").expect("a temporary folder");
        std::fs::create_dir(folder.path().join("repositories")).expect("our own folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/forge/forge.py");
        let mut python = Command::new("python3");
        python.arg(script).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        python.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
        let mut process = python.spawn().expect("python3 runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the forge says its port");
        Forge { folder, process, port: line.trim().parse().expect("a port") }
    }

    /// Where a bare repository of the forge lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("repositories").join(format!("{name}.git"))
    }

    /// The address of a repository over HTTP.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}.git", self.port)
    }

    /// The address of the API.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Takes what is on branch `main` of a repository, made here when it is new. Returns the commit.
    pub fn take(&self, repository: &Repository, name: &str) -> String {
        let path = self.path(name).to_string_lossy().into_owned();
        if !self.path(name).exists() {
            repository.ok(&["init", "--quiet", "--bare", "--initial-branch=main", &path]);
        }
        repository.ok(&["push", "--quiet", "--force", &path, "main"]);
        repository.ok(&["rev-parse", "HEAD"])
    }

    /// Lets git wait until the returned value is dropped.
    pub fn hold(&self) -> impl Drop + use<> {
        struct Hold(PathBuf);
        impl Drop for Hold {
            fn drop(&mut self) {
                let _ = std::fs::remove_file(&self.0);
            }
        }
        let hold = self.folder.path().join("hold");
        std::fs::write(&hold, "").expect("our own folder");
        Hold(hold)
    }

    /// The statuses that it was told, oldest first: state and description of a commit.
    pub fn statuses(&self, commit: &str) -> Vec<(String, String)> {
        let told = self
            .told()
            .into_iter()
            .filter(|told| told["path"].as_str().is_some_and(|path| path.ends_with(commit)));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        told.map(|told| (text(&told["state"]), text(&told["description"]))).collect()
    }

    /// Everything that its API was told.
    pub fn told(&self) -> Vec<Value> {
        let told = std::fs::read_to_string(self.folder.path().join("statuses")).unwrap_or_default();
        told.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl TestBox {
    /// Lets a service follow a repository.
    pub fn follow(&self, service: &str, url: &str, arguments: &[&str]) -> Hook {
        let said =
            self.json(&[&["source", "connect", url, "--json", "--service", service], arguments].concat());
        let address = said["hook_url"].as_str().unwrap_or_else(|| panic!("no address in {said:#}"));
        let (host, path) =
            address.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a path");
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let secret = said["secret"].as_str().expect("a secret").to_owned();
        Hook { port, path: format!("/{path}"), secret, said: said.clone() }
    }

    /// What `source show` says of the newest delivery of a service.
    pub fn delivery(&self, service: &str) -> Value {
        self.json(&["source", "show", "--json", "--service", service])["deliveries"][0].clone()
    }
}

impl Hook {
    /// Sends a push of `commit` to `main`, as GitHub does.
    pub fn github(&self, name: &str, commit: &str) -> Response {
        self.github_event("push", name, &push("refs/heads/main", commit))
    }

    /// Sends any event, as GitHub does.
    pub fn github_event(&self, event: &str, name: &str, body: &Value) -> Response {
        let body = body.to_string();
        let signature = self.sign(&body);
        self.send(
            &format!("X-GitHub-Event: {event}\r\nX-GitHub-Delivery: {name}\r\nX-Hub-Signature-256: sha256={signature}\r\n"),
            &body,
        )
    }

    /// Signs a body with the secret of the webhook, in hex.
    pub fn sign(&self, body: &str) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.secret.as_bytes());
        let tag = ring::hmac::sign(&key, body.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends a push of `commit` to `main`, as GitLab does that signs it with this token at this time.
    pub fn signed_by_gitlab(&self, token: &str, name: &str, time_s: i64, commit: &str) -> Response {
        let body = push("refs/heads/main", commit).to_string();
        let key = STANDARD.decode(token.strip_prefix("whsec_").expect("a signing token")).expect("base64");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let tag = ring::hmac::sign(&key, format!("{name}.{time_s}.{body}").as_bytes());
        let tag = STANDARD.encode(tag);
        // GitLab sends the name in these two; only one of them is signed.
        let headers = format!(
            "X-Gitlab-Event: Push Hook\r\nIdempotency-Key: {time_s} {name}\r\nwebhook-id: {name}\r\n\
             webhook-timestamp: {time_s}\r\nwebhook-signature: v1,{tag}\r\n"
        );
        self.send(&headers, &body)
    }

    /// Sends a delivery with these headers.
    pub fn send(&self, headers: &str, body: &str) -> Response {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        let sent = Connection::send(self.port, "box", "POST", &self.path, &headers, body.as_bytes());
        sent.and_then(Connection::read_all).expect("an answer")
    }
}

/// The body of a push, with what all forges have in common.
pub fn push(name: &str, commit: &str) -> Value {
    json!({ "ref": name, "before": "0".repeat(40), "after": commit, "object_kind": "push", "checkout_sha": commit,
            "commits": [{ "id": commit, "message": "as the forge tells it" }] })
}

/// The real sshd on a port of its own, which lets in whoever has the key that it is given.
pub struct SshServer {
    folder: TempDir,
    process: Option<Child>,
    port: u16,
}

impl SshServer {
    /// Starts one that lets nobody in; none when this machine has no sshd, which is said loudly.
    pub fn start() -> Option<SshServer> {
        if !Path::new("/usr/sbin/sshd").exists() {
            eprintln!("NOT TESTED (needs openssh-server): fetching by ssh with a deploy key");
            return None;
        }
        // Where its unprivileged half is locked into, when root starts it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = tempfile::Builder::new().prefix("tbs-").tempdir_in("/tmp").expect("a temporary folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut server = SshServer { folder, process: None, port };
        server.let_in("");
        server.change_host_key();
        Some(server)
    }

    /// Lets in whoever has this key, and nobody else.
    pub fn let_in(&self, public_key: &str) {
        std::fs::write(self.folder.path().join("authorized_keys"), format!("{public_key}\n"))
            .expect("our folder");
    }

    /// Starts it anew with another host key.
    pub fn change_host_key(&mut self) {
        self.stop();
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (key, config) = (file("host_key"), file("config"));
        for old in [&key, &format!("{key}.pub")] {
            let _ = std::fs::remove_file(old);
        }
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
        assert!(made.is_ok_and(|made| made.success()), "ssh-keygen");
        let path = std::env::var("PATH").unwrap_or_default();
        let text = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {key}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             PidFile none\nSetEnv PATH={path}\n",
            self.port,
            file("authorized_keys")
        );
        std::fs::write(&config, text).expect("our own folder");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f", &config]).stdin(Stdio::null()).stderr(Stdio::null());
        self.process = Some(sshd.spawn().expect("sshd runs"));
        crate::wait_for("sshd listens", std::time::Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    /// The address of a repository in a folder of this machine.
    pub fn url(&self, path: &Path) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().expect("a user");
        format!("ssh://{}@127.0.0.1:{}{}", user.name, self.port, path.display())
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.stop();
    }
}

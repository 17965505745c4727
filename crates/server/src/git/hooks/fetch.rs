//! Fetching one commit by the real `git`: shallow, bounded in time and size, with nothing around it that the box's user has
//! configured. A deploy key lies in a file of its own while git runs.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::process::Command;
use trackbed_core::ServiceId;
use trackbed_core::ports::PortError;
use trackbed_core::remote::{Remote, RemoteSecrets, RepositoryUrl};
use trackbed_stdx::files;

use super::aside::Aside;
use super::explain::{explain, is_our_trouble, is_refused_by_name};
use crate::git::receive::{complaints, end, limit_memory, pid_of};
use crate::git::repository::{PACK_MAX_BYTES, Repository, not_started};

/// How long a fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long git may take to name a commit.
const SHORT_LIMIT: Duration = Duration::from_secs(60);
/// The branch of our own repository that is at the commit fetched last, so that the next fetch brings only what is new.
const OWN: &str = "refs/heads/fetched";
/// Variables of the box that reach git: proxies and certificates.
const PASSED: [&str; 11] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];
/// The command by which git calls ssh, which runs in the folder that holds these files: nothing of a path needs quoting.
const SSH: &str = "ssh -F none -i key -o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile=known_hosts \
                   -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=accept-new -o HashKnownHosts=no \
                   -o UpdateHostKeys=no -o BatchMode=yes -o PreferredAuthentications=publickey -o ConnectTimeout=20 \
                   -o ServerAliveInterval=20 -o ServerAliveCountMax=3 -o ForwardAgent=no";

/// A fetch.
pub(super) struct Fetch<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) environment: &'a [(String, String)],
    pub(super) service: &'a ServiceId,
    pub(super) remote: &'a Remote,
    pub(super) secrets: &'a RemoteSecrets,
    /// What ssh knows of hosts.
    pub(super) known_hosts: &'a str,
    /// The commit that is wanted; none for whatever the branch is at.
    pub(super) wanted: Option<&'a str>,
    /// Bytes that may be taken on the disk.
    pub(super) room_bytes: u64,
}

/// What was fetched.
pub(super) struct Fetched {
    pub(super) repository: Repository,
    /// The name of the commit.
    pub(super) commit: String,
}

impl Fetch<'_> {
    /// Fetches the commit. What ssh has learnt of the host meanwhile is returned also when that fails.
    pub(super) async fn run(&self) -> (Result<Fetched, PortError>, Option<String>) {
        let aside = match self.lay_out() {
            Ok(aside) => aside,
            Err(error) => {
                return (Err(PortError::new(format!("cannot prepare a fetch: {error}"))), None);
            }
        };
        let fetched = self.fetch(aside.path()).await;
        let known = std::fs::read_to_string(aside.path().join("known_hosts")).ok();
        (fetched, known.filter(|known| known != self.known_hosts))
    }

    fn lay_out(&self) -> io::Result<Aside> {
        let aside = Aside::make(self.data_dir, "fetch")?;
        let write =
            |name: &str, text: &str| files::write_atomic(&aside.path().join(name), text.as_bytes(), 0o600);
        write("known_hosts", self.known_hosts)?;
        if let Some(key) = &self.secrets.deploy_key {
            write("key", key.expose())?;
        }
        Ok(aside)
    }

    async fn fetch(&self, aside: &Path) -> Result<Fetched, PortError> {
        let repository = Repository::fetched(self.data_dir, self.service);
        repository.ensure().await.map_err(|error| PortError::new(error.to_string()))?;
        let branch = format!("refs/heads/{}", self.remote.branch);
        let what = self.wanted.unwrap_or(&branch);
        let mut said = self.run_git(&repository, aside, what).await?;
        if said.as_deref().is_some_and(is_our_trouble) {
            // A crash has left a lock or a half: what is here is only a copy, so it is made anew.
            let remade = files::remove_tree(repository.path());
            remade.map_err(|error| {
                PortError::new(format!("cannot remove the repository on the box: {error}"))
            })?;
            repository.ensure().await.map_err(|error| PortError::new(error.to_string()))?;
            said = self.run_git(&repository, aside, what).await?;
        }
        match (said, self.wanted) {
            (None, _) => {}
            // Forges without `allowReachableSHA1InWant` give out only what a branch is at.
            (Some(said), Some(_)) if is_refused_by_name(&said) => {
                if let Some(said) = self.run_git(&repository, aside, &branch).await? {
                    return Err(explain(&said, &self.remote.url, &self.remote.branch));
                }
            }
            (Some(said), _) => return Err(explain(&said, &self.remote.url, &self.remote.branch)),
        }
        let commit = repository.resolve(OWN, SHORT_LIMIT).await?;
        match self.wanted {
            Some(wanted) if wanted != commit => Err(PortError::new(format!(
                "{} is no longer what `{}` is at, and the forge gives out nothing else",
                &wanted[..10],
                self.remote.branch
            ))
            .hint("a newer push has its own delivery; or fetch what is there now: trackbed source deploy")),
            _ => Ok(Fetched { repository, commit }),
        }
    }

    /// Runs git once. Returns what it complained of when it failed.
    async fn run_git(
        &self,
        repository: &Repository,
        aside: &Path,
        what: &str,
    ) -> Result<Option<String>, PortError> {
        let mut command = repository.command(&[]);
        for (key, value) in SETTINGS {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        command.args([
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--force",
            "--no-recurse-submodules",
            "--",
        ]);
        command.arg(self.remote.url.as_str()).arg(format!("+{what}:{OWN}"));
        command.env("GIT_DIR", repository.path()).env("GIT_SSH_COMMAND", SSH).env("GIT_SSH_VARIANT", "ssh");
        command.current_dir(aside).process_group(0);
        for (name, value) in self.environment.iter().filter(|(name, _)| PASSED.contains(&name.as_str())) {
            command.env(name, value);
        }
        let ended = bounded(command, self.room_bytes.clamp(1, PACK_MAX_BYTES)).await?;
        Ok(ended.err())
    }
}

/// Over those of every repository of ours.
const SETTINGS: [(&str, &str); 16] = [
    // The pack stays whole, so that the limit for a file is one for all of it.
    ("fetch.unpackLimit", "1"),
    ("fetch.fsckObjects", "true"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("fetch.showForcedUpdates", "false"),
    ("protocol.allow", "never"),
    ("protocol.https.allow", "always"),
    ("protocol.http.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("credential.helper", ""),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("http.followRedirects", "initial"),
];

/// Runs git to its end, with limits. An inner error is what it complained of.
async fn bounded(mut command: Command, file_max_bytes: u64) -> Result<Result<(), String>, PortError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| PortError::new(not_started(&error).to_string()))?;
    limit_memory(&child);
    let limit = Rlimit { current: Some(file_max_bytes), maximum: Some(file_max_bytes) };
    if let Some(Err(error)) =
        pid_of(&child).map(|pid| rustix::process::prlimit(Some(pid), Resource::Fsize, limit))
    {
        tracing::warn!(%error, "the size of a fetch is not limited");
    }
    let stderr = child.stderr.take();
    let working = async {
        let said = match stderr {
            Some(stderr) => complaints(stderr).await,
            None => String::new(),
        };
        child.wait().await.map(|status| if status.success() { Ok(()) } else { Err(said) })
    };
    match tokio::time::timeout(FETCH_LIMIT, working).await {
        Ok(ended) => ended.map_err(|error| PortError::new(format!("git was lost: {error}"))),
        Err(_) => {
            end(&mut child).await;
            let minutes = FETCH_LIMIT.as_secs() / 60;
            Err(PortError::new(format!("the fetch took longer than {minutes} min"))
                .hint("look at the line to the forge, and try again: trackbed source deploy"))
        }
    }
}

/// Returns how a repository is named in messages.
pub(super) fn named(url: &RepositoryUrl) -> String {
    format!("`{}` at {}", url.project(), url.host())
}

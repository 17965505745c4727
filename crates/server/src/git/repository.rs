//! The bare repository of a service, and `git` on it with nothing around it that could change what it does.
//!
//! It holds what clients have anyway: one that is lost is made again by the next push. Its path is made of ids of ours;
//! nothing that a client says becomes an argument.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use trackbed_core::ServiceId;
use trackbed_core::ports::PortError;
use trackbed_stdx::files;

/// Largest pack of one push. A history may be larger than what is deployed of it (`build::source::TOTAL_MAX_BYTES`).
pub(super) const PACK_MAX_BYTES: u64 = 4 << 30;
/// Files from this size on are passed through by git and not held in memory.
const BIG_FILE_BYTES: u64 = 32 << 20;
/// How long making a repository, or telling its refs, may take.
const SHORT_LIMIT: Duration = Duration::from_secs(60);
/// The files of a push are taken as they were committed, as `trackbed up` takes them: no attribute changes them.
const ATTRIBUTES: &[u8] =
    b"* !text !eol !ident !filter !working-tree-encoding !export-ignore !export-subst\n";

/// Why git could not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// There is no git.
    #[error("git is not installed on the box: `apt-get install git`, then push again")]
    Missing,
    /// Too many at once.
    #[error("the box is busy with as many pushes as it takes at once; push again when one has ended")]
    Crowded,
    /// The disk is needed for the volumes.
    #[error("the disk of the box is full but for the reserve of its volumes; `trackbed status` says more")]
    Full,
    /// Something else.
    #[error("{attempt}: {reason}")]
    Failed {
        /// What was tried.
        attempt: &'static str,
        /// What came of it.
        reason: String,
    },
}

impl GitError {
    pub(super) fn new(attempt: &'static str, reason: impl Into<String>) -> Self {
        Self::Failed { attempt, reason: reason.into() }
    }
}

/// A repository, made or not.
pub(super) struct Repository {
    path: PathBuf,
    data_dir: PathBuf,
}

impl Repository {
    /// Returns the repository of a service.
    pub(super) fn of(data_dir: &Path, service: &ServiceId) -> Self {
        let path = data_dir.join("git/repositories").join(format!("{service}.git"));
        Self { path, data_dir: data_dir.to_owned() }
    }

    /// Names the repository into which commits of a service's remote are fetched. Shallow fetches would cut off what
    /// pushes bring, so it is another one. Nothing is made yet.
    pub(super) fn fetched(data_dir: &Path, service: &ServiceId) -> Self {
        let path = data_dir.join("git/fetched").join(format!("{service}.git"));
        Self { path, data_dir: data_dir.to_owned() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the commit that a ref is at.
    pub(super) async fn resolve(&self, name: &str, limit: Duration) -> Result<String, PortError> {
        let mut command = self.command(&["rev-parse", "--verify", "--quiet"]);
        command.arg(format!("{name}^{{commit}}")).env("GIT_DIR", &self.path);
        let found = tokio::time::timeout(limit, output(command, "cannot find the commit that was fetched"));
        let found = found.await.map_err(|_| PortError::new("git does not name the commit in time"))?;
        let found = found.map_err(|error| PortError::new(error.to_string()))?;
        Ok(String::from_utf8_lossy(&found).trim().to_owned())
    }

    /// Returns what a client hears first: the refs and what this side can do (gitprotocol-http(5)). Makes the repository
    /// when it is not there.
    pub(super) async fn advertise(&self) -> Result<Vec<u8>, GitError> {
        self.ensure().await?;
        // The older name of `--http-backend-info-refs`, which every git knows.
        let mut command = self.command(&["receive-pack", "--stateless-rpc", "--advertise-refs"]);
        command.arg(&self.path);
        let refs = output(command, "cannot read the repository").await?;
        let mut answer = b"001f# service=git-receive-pack\n0000".to_vec();
        answer.extend(refs);
        Ok(answer)
    }

    /// Returns the command that takes a push of at most `room_bytes` from its input; its hook is in place.
    pub(super) fn receive(&self, room_bytes: u64) -> Result<Command, GitError> {
        self.ensure_hook()
            .map_err(|error| GitError::new("cannot place the hook of the repository", error.to_string()))?;
        let limit = format!("receive.maxInputSize={}", room_bytes.clamp(1, PACK_MAX_BYTES));
        let mut command = self.command(&["-c", &limit, "receive-pack", "--stateless-rpc"]);
        command.arg(&self.path);
        Ok(command)
    }

    /// Makes the repository when it is not there, and mends what a crash has left half made.
    pub(super) async fn ensure(&self) -> Result<(), GitError> {
        let folder = self.data_dir.join("git");
        for name in ["home", "hooks", "repositories", "fetched"] {
            std::fs::create_dir_all(folder.join(name)).map_err(|error| {
                GitError::new("cannot make the folder of the repositories", error.to_string())
            })?;
        }
        // Also for one that is there: it completes what a crash has left half made.
        let mut command = self.command(&["init", "--quiet", "--bare", "--template="]);
        command.arg(&self.path);
        output(command, "cannot make the repository").await?;
        let attributes = self.path.join("info/attributes");
        if std::fs::read(&attributes).is_ok_and(|found| found == ATTRIBUTES) {
            return Ok(());
        }
        std::fs::create_dir_all(self.path.join("info"))
            .and_then(|()| files::write_atomic(&attributes, ATTRIBUTES, 0o600))
            .map_err(|error| GitError::new("cannot write to the repository", error.to_string()))
    }

    /// Makes this very program the hook. A link that leads nowhere would be no hook for git, and let everything in: so it
    /// is made anew for each push, and leads to the file of this program wherever that is now.
    fn ensure_hook(&self) -> io::Result<()> {
        let program = own_program()?;
        let hook = self.data_dir.join("git/hooks/pre-receive");
        if std::fs::read_link(&hook).is_ok_and(|target| target == program) {
            return Ok(());
        }
        let beside = files::temporary_beside(&hook)?;
        std::os::unix::fs::symlink(&program, &beside)?;
        std::fs::rename(&beside, &hook)
    }

    /// Returns `git` with a clean environment and our settings, which are stronger than those of the repository.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let folder = self.data_dir.join("git");
        let mut command = Command::new("git");
        for (key, value) in [
            ("safe.directory", self.path.display().to_string()),
            ("core.hooksPath", folder.join("hooks").display().to_string()),
            ("core.bigFileThreshold", BIG_FILE_BYTES.to_string()),
            ("core.fsmonitor", "false".into()),
            ("pack.threads", "1".into()),
            // Broken or hostile objects are refused; what old tools wrote and nobody minds is not.
            ("receive.fsckObjects", "true".into()),
            ("receive.fsck.zeroPaddedFilemode", "ignore".into()),
            ("receive.fsck.missingSpaceBeforeDate", "ignore".into()),
            ("receive.fsck.badTimezone", "ignore".into()),
            ("receive.shallowUpdate", "true".into()),
            ("receive.advertisePushOptions", "true".into()),
            ("receive.denyNonFastForwards", "false".into()),
            ("receive.denyDeletes", "false".into()),
            ("receive.denyDeleteCurrent", "ignore".into()),
            // Branches and tags only: what is hidden cannot be pushed either.
            ("transfer.hideRefs", "refs".into()),
            ("transfer.hideRefs", "!refs/heads".into()),
            ("transfer.hideRefs", "!refs/tags".into()),
            // Tidied by the push itself, never behind its back; what a force-push cut off goes with the next tidying.
            ("receive.autogc", "true".into()),
            ("gc.autoDetach", "false".into()),
            ("maintenance.autoDetach", "false".into()),
            ("gc.pruneExpire", "1.hour.ago".into()),
        ] {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        command.args(arguments);
        self.surround(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// Gives a program the clean environment of our git.
    pub(super) fn surround(&self, command: &mut Command) {
        let folder = self.data_dir.join("git");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.env("HOME", folder.join("home"));
        for (name, value) in [
            ("LC_ALL", "C.UTF-8"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ] {
            command.env(name, value);
        }
        command.kill_on_drop(true);
    }
}

/// Returns the file of this program, wherever that is now.
pub(super) fn own_program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(match own.is_file() {
        true => own,
        // Its file was replaced or removed; the kernel still knows it.
        false => PathBuf::from(format!("/proc/{}/exe", std::process::id())),
    })
}

/// Says what it means that a process did not start.
pub(super) fn not_started(error: &io::Error) -> GitError {
    match error.kind() {
        io::ErrorKind::NotFound => GitError::Missing,
        _ => GitError::new("cannot start git", error.to_string()),
    }
}

async fn output(mut command: Command, attempt: &'static str) -> Result<Vec<u8>, GitError> {
    let output = tokio::time::timeout(SHORT_LIMIT, command.output()).await;
    let output = output.map_err(|_| GitError::new(attempt, "git did not end in time"))?;
    let output = output.map_err(|error| not_started(&error))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(GitError::new(attempt, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

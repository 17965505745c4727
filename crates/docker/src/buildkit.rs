//! Builds that the builder behind Docker's API cannot do: `RUN --mount`, here-documents and the like are BuildKit's, whose
//! protocol is spoken by Docker's own command, in its releases until 23 by itself and from then on with its plugin buildx
//! (docs.docker.com/build/buildkit).
//!
//! The source goes to the command as it goes to the API. The image is known by a name of this box's own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use trackbed_core::instance::LogStream;
use trackbed_core::ports::{BuildLog, Dockerfile};

use trackbed_sandbox::beside::Process;

use crate::container::BOX_LABEL;
use crate::daemon::Daemon;

const SIGKILL: i32 = 9;
/// Longest line that is told whole.
const LINE_MAX_BYTES: u64 = 8 << 10;
/// How long a command may take to say whether it can build.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Time between two looks at a log that takes no more for now.
const LOG_PAUSE: Duration = Duration::from_millis(20);
/// Lines of the end of the output that are quoted when a build fails.
const QUOTED: usize = 5;
/// Variables that the command itself, what loads it, or a shell that it starts listens to.
const HEARD: [&str; 12] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "ENV",
    "BASH_ENV",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "GOCOVERDIR",
    "SSH_AUTH_SOCK",
];
/// What the names of others of them begin with.
const HEARD_BEGINNINGS: [&str; 16] = [
    "LD_",
    "SSL_CERT_",
    "OTEL_",
    "BUILDX_",
    "BUILDKIT_",
    "EXPERIMENTAL_BUILDKIT_",
    "DOCKER_API_VERSION",
    "DOCKER_BUILDKIT",
    "DOCKER_CERT_PATH",
    "DOCKER_CLI_",
    "DOCKER_CONFIG",
    "DOCKER_CONTENT_TRUST",
    "DOCKER_CONTEXT",
    "DOCKER_DEFAULT_PLATFORM",
    "DOCKER_HOST",
    "DOCKER_TLS",
];

/// What to say when there is no such command.
pub(crate) const MISSING: &str = "the Dockerfile asks for BuildKit, and no `docker` on this box speaks to it; its plugin helps: \
     `apt install docker-buildx` (Debian) or `docker-buildx-plugin` (Docker's packages)";

/// Returns the first `docker` of the search path that speaks BuildKit's protocol.
pub(crate) async fn find(daemon: &Daemon) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in std::env::split_paths(&path).map(|folder| folder.join("docker")) {
        if !program.is_file() {
            continue;
        }
        let mut asked = command(&program, daemon);
        asked.arg("--help").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A command without the plugin that it needs knows no option of BuildKit's.
        if let Ok(Ok(said)) = tokio::time::timeout(ANSWER_LIMIT, asked.output()).await
            && said.status.success()
            && String::from_utf8_lossy(&said.stdout).contains("--progress")
        {
            return Some(program);
        }
    }
    None
}

/// Returns `docker build` at an engine. Who has logged in to registries as this user is logged in; the builder is the
/// engine's own, whichever that user has chosen.
pub(crate) fn command(program: &Path, daemon: &Daemon) -> Command {
    let kept = ["PATH", "HOME", "DOCKER_CONFIG"];
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("DOCKER_BUILDKIT", "1")
        .env("BUILDX_BUILDER", "default")
        .env("DOCKER_HOST", format!("unix://{}", daemon.socket.display()))
        .arg("build")
        .kill_on_drop(true);
    command
}

/// Builds an image of a label and a name. When the future is dropped, the command is killed, and the build ends with it.
///
/// # Errors
/// When the build fails, with its last lines.
pub(crate) async fn build(
    mut command: Command,
    order: &Dockerfile,
    (label, name): (&str, &str),
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    log: &dyn BuildLog,
) -> Result<(), String> {
    command.args(["--progress=plain", "--tag", name, "--file", &order.path]);
    command.args(["--label", &format!("{BOX_LABEL}={label}")]);
    if !order.target.is_empty() {
        command.args(["--target", &order.target]);
    }
    // What the source says is no secret, and must never become the environment of a program that is in no jail.
    for (name, value) in order.given.iter().filter(|(name, _)| !order.args.iter().any(|(own, _)| own == name))
    {
        command.args(["--build-arg", &format!("{name}={value}")]);
    }
    for (name, value) in &order.args {
        // By name alone, which keeps the value out of the list of processes; not where the command would listen to it.
        let is_heard =
            HEARD.contains(&name.as_str()) || HEARD_BEGINNINGS.iter().any(|heard| name.starts_with(heard));
        if is_heard {
            command.args(["--build-arg", &format!("{name}={value}")]);
        } else {
            command.args(["--build-arg", name]).env(name, value);
        }
    }
    command.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("docker cannot be run: {error}"))?;
    // Later releases of it are a plugin, which is a process of its own.
    let _whole = Whole(child.id().and_then(|id| Process::of(i32::try_from(id).ok()?)));
    let (is_built, tail) = run(child, pieces, log).await?;
    if is_built { Ok(()) } else { Err(tail.join("\n")) }
}

/// A process with all that it has started; dropping it kills them.
struct Whole(Option<Process>);

impl Drop for Whole {
    fn drop(&mut self) {
        let Some(process) = self.0.filter(|process| process.is_alive()) else { return };
        for (other, _) in process.descendants() {
            other.signal(SIGKILL);
        }
        process.signal(SIGKILL);
    }
}

/// Feeds the source and tells the output. Returns whether the command did it, and its last lines.
async fn run(
    mut child: Child,
    mut pieces: mpsc::Receiver<io::Result<Bytes>>,
    log: &dyn BuildLog,
) -> Result<(bool, Vec<String>), String> {
    let (Some(mut stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
        return Err("docker has no pipes".to_owned());
    };
    let feeding = async move {
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|error| format!("the source cannot be read: {error}"))?;
            // A command that has heard enough says why.
            if stdin.write_all(&piece).await.is_err() {
                break;
            }
        }
        Ok::<_, String>(())
    };
    let telling = async {
        let mut tail = Vec::new();
        let mut output = BufReader::new(stderr);
        while let Some(line) = next_line(&mut output).await {
            while log.is_full() {
                tokio::time::sleep(LOG_PAUSE).await;
            }
            log.line(LogStream::Out, &line);
            if tail.len() == QUOTED {
                tail.remove(0);
            }
            tail.push(line);
        }
        Ok(tail)
    };
    // A source that cannot be read whole must not be taken for all of it: then the command is killed with `child`.
    let ((), tail) = tokio::try_join!(feeding, telling)?;
    let status = child.wait().await.map_err(|error| format!("docker cannot be waited for: {error}"))?;
    Ok((status.success(), tail))
}

/// Reads a line that says something, cut off when it is too long; none at the end.
async fn next_line(output: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    loop {
        let mut line = Vec::new();
        if (&mut *output).take(LINE_MAX_BYTES).read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() {
            return Some(line.trim_end().to_owned());
        }
    }
}

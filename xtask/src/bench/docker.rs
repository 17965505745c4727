//! The peer: Debian's Docker, an engine of our own for the benchmark, a base image made by debootstrap.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{copy_source, touch_code, until_healthy};
use crate::shell::{self, say};

const PORT: u16 = 18232;
const ENGINE_LIMIT: Duration = Duration::from_secs(30);
/// What people write: the dependency layer is cached as long as requirements.txt stays the same.
const DOCKERFILE: &str = "\
FROM trackbed-bench-base
WORKDIR /app
RUN python3 -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --quiet -r requirements.txt
COPY . .
ENV PATH=/venv/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
CMD exec gunicorn main:app --workers 2 --worker-class uvicorn_worker.UvicornWorker --bind 0.0.0.0:$PORT --timeout 120
";

pub(super) struct Docker {
    engine: Child,
    folder: PathBuf,
    app: PathBuf,
}

impl Docker {
    /// Starts an engine with everything below `folder`, makes the base image and the first container.
    pub(super) fn prepare(folder: &Path) -> Result<Docker> {
        std::fs::create_dir_all(folder)?;
        let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let log = std::fs::File::create(folder.join("log"))?;
        std::fs::write(folder.join("daemon.json"), "{}")?;
        // No bridge and no firewall rules: builds and containers use the host's network, which is the quicker way.
        let engine = Command::new("dockerd")
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--host", &format!("unix://{}", at("sock"))])
            .args(["--bridge=none", "--iptables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let mut docker = Docker { engine, folder: folder.to_owned(), app: folder.join("app") };
        match docker.set_up() {
            Ok(()) => Ok(docker),
            Err(error) => {
                docker.stop()?;
                Err(error)
            }
        }
    }

    fn set_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + ENGINE_LIMIT;
        while self.docker(&["version"]).is_err() {
            if let Some(status) = self.engine.try_wait()? {
                bail!("dockerd ended ({status}); its log is {}", self.folder.join("log").display());
            }
            ensure!(Instant::now() < deadline, "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        say("making a base image with debootstrap");
        let rootfs = self.folder.join("rootfs");
        let place = rootfs.to_string_lossy();
        let include = "--include=python3,python3-venv,ca-certificates";
        shell::run("debootstrap", &["--variant=minbase", include, "stable", &place])
            .or_else(|_| shell::run("debootstrap", &["--variant=minbase", include, "bookworm", &place]))?;
        // The machine's own certificates, so that pip reaches what it reaches outside.
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        std::fs::copy(bundle, rootfs.join(bundle.trim_start_matches('/')))?;
        let socket = self.socket();
        shell::run(
            "sh",
            &["-c", &format!("tar -C '{place}' -c . | docker -H '{socket}' import - trackbed-bench-base")],
        )?;
        copy_source(&self.app)?;
        std::fs::write(self.app.join("Dockerfile"), DOCKERFILE)?;
        say("building the image for the first time");
        self.redeploy_ms(0).map(|_| ())
    }

    /// Changes the code, builds, replaces the container. Returns the milliseconds until the new one is healthy.
    pub(super) fn redeploy_ms(&self, round: usize) -> Result<f64> {
        touch_code(&self.app, round)?;
        let app = self.app.to_string_lossy();
        let began = Instant::now();
        self.docker(&["build", "--quiet", "--network", "host", "--tag", "assistant", &app])?;
        if round > 0 {
            self.docker(&["stop", "assistant"])?;
            self.docker(&["rm", "assistant"])?;
        }
        let port = format!("PORT={PORT}");
        let run = ["run", "--detach", "--name", "assistant", "--network", "host", "--env", &port];
        let volume = [
            "--env",
            "DATABASE_URL=sqlite+aiosqlite:////data/assistant.db",
            "--volume",
            "data:/data",
            "assistant",
        ];
        self.docker(&[&run[..], &volume].concat())?;
        let healthy =
            until_healthy(&format!("http://docker.localhost:{PORT}/health"), Duration::from_secs(60));
        ensure!(healthy, "the container did not become healthy");
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    /// Builds the image of a folder. Returns the milliseconds.
    pub(super) fn build_ms(&self, folder: &Path, tag: &str, from_nothing: bool) -> Result<f64> {
        let folder = folder.to_string_lossy();
        let mut build = vec!["build", "--quiet", "--network", "host", "--tag", tag];
        build.extend(from_nothing.then_some("--no-cache"));
        build.push(&folder);
        let began = Instant::now();
        self.docker(&build)?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.folder.join("sock").display())
    }

    fn docker(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket();
        shell::read("docker", &[&["--host", &socket], arguments].concat())
    }

    /// Ends container and engine and removes everything.
    pub(super) fn stop(mut self) -> Result<()> {
        let _ = self.docker(&["rm", "--force", "assistant"]);
        shell::run("kill", &["-TERM", &self.engine.id().to_string()])?;
        self.engine.wait()?;
        // dockerd leaves this one mounted.
        let _ = shell::read("umount", &[&self.folder.join("exec/netns/default").to_string_lossy()]);
        shell::run("rm", &["-rf", "--one-file-system", &self.folder.to_string_lossy()])
    }
}

//! The app's own start: the same gunicorn on the same interpreter, without any platform.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{copy_source, until_healthy};
use crate::shell;

const PORT: u16 = 18231;

pub(super) struct Bare {
    app: PathBuf,
    venv: PathBuf,
}

impl Bare {
    /// Installs the requirements with the box's own uv, bytecode compiled, as the box does.
    pub(super) fn prepare(folder: &Path, uv: &Path) -> Result<Bare> {
        let (app, venv) = (folder.join("app"), folder.join("venv"));
        copy_source(&app)?;
        let requirements = app.join("requirements.txt");
        shell::run(uv, &["venv", "--quiet", "--python", "/usr/bin/python3", &venv.to_string_lossy()])?;
        let python = venv.join("bin/python");
        let python = python.to_string_lossy();
        let install = ["pip", "install", "--quiet", "--compile-bytecode", "--python", &python, "-r"];
        shell::run(uv, &[&install[..], &[&requirements.to_string_lossy()]].concat())?;
        Ok(Bare { app, venv })
    }

    /// Starts it, waits for the first good answer, ends it with SIGTERM. Returns the milliseconds of start and of stop.
    pub(super) fn start_and_stop_ms(&self) -> Result<(f64, f64)> {
        let began = Instant::now();
        let mut child = self.spawn()?;
        let healthy = until_healthy(&format!("http://bare.localhost:{PORT}/health"), Duration::from_secs(60));
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let stopping = Instant::now();
        shell::run("kill", &["-TERM", &child.id().to_string()])?;
        child.wait()?;
        ensure!(healthy, "the bare app did not become healthy");
        Ok((took, stopping.elapsed().as_secs_f64() * 1000.0))
    }

    fn spawn(&self) -> Result<Child> {
        let bin = self.venv.join("bin");
        let start = format!(
            "gunicorn main:app --workers 2 --worker-class uvicorn_worker.UvicornWorker --bind 0.0.0.0:{PORT} --timeout 120"
        );
        Command::new("/bin/sh")
            .args(["-c", &format!("exec {start}")])
            .current_dir(&self.app)
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("DATABASE_URL", format!("sqlite+aiosqlite:///{}/bare.db", self.venv.display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the bare app")
    }
}

//! A box that a chore starts for itself and ends again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, binary, read, say};

/// How long a box may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running box with the data directory of its own.
pub struct OwnBox {
    pub data_dir: PathBuf,
    pub serve: Child,
}

impl OwnBox {
    /// Starts a box on port 8080 when that is free, else on any.
    pub fn start(data_dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&data_dir)?;
        let listen = match TcpListener::bind("127.0.0.1:8080") {
            Ok(_) => "127.0.0.1:8080",
            Err(_) => "127.0.0.1:0",
        };
        let log = std::fs::File::create(data_dir.join("serve.log"))?;
        let serve = Command::new(binary())
            .args(["serve", "--data-dir"])
            .arg(&data_dir)
            .args(["--listen", listen])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the box")?;
        let mut own = Self { data_dir, serve };
        let deadline = Instant::now() + START_LIMIT;
        while own.json(&["status", "--json"]).is_err() {
            if let Some(status) = own.serve.try_wait()? {
                bail!("the box ended ({status}): {}", own.log());
            }
            if Instant::now() > deadline {
                bail!("the box does not answer: {}", own.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(own)
    }

    /// Returns what the box says of a service.
    pub fn service(&self, name: &str) -> Result<Value> {
        let status = self.json(&["status", "--json"])?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let found = services.into_iter().find(|service| service["service"] == name);
        found.with_context(|| format!("the box knows no service `{name}`"))
    }

    /// Returns where a service answers.
    pub fn url(&self, name: &str) -> Result<String> {
        Ok(self.service(name)?["url"].as_str().context("a service has a URL")?.to_owned())
    }

    /// Runs a command against the box, with our own output.
    pub fn trackbed(&self, arguments: &[&str]) -> Result<()> {
        let data_dir = self.data_dir.to_string_lossy();
        let mut all = vec!["--data-dir", &data_dir];
        all.extend(arguments);
        shell::run(binary(), &all)
    }

    /// Runs a command that prints JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let data_dir = self.data_dir.to_string_lossy();
        let mut all = vec!["--data-dir", &data_dir];
        all.extend(arguments);
        Ok(serde_json::from_str(&read(binary(), &all)?)?)
    }

    /// Runs a command that prints one JSON object a line.
    pub fn json_lines(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let data_dir = self.data_dir.to_string_lossy();
        let mut all = vec!["--data-dir", &data_dir];
        all.extend(arguments);
        read(binary(), &all)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Returns what to type before a command for this box.
    pub fn command_prefix(&self) -> String {
        format!("{} --data-dir {}", binary().display(), self.data_dir.display())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("serve.log")).unwrap_or_default()
    }

    /// Ends the box and removes its data.
    pub fn stop(mut self) -> Result<()> {
        say("stopping the box");
        if let Err(error) = self.trackbed(&["down", "--all"]) {
            let _ = self.serve.kill();
            return Err(error);
        }
        let status = self.serve.wait()?;
        ensure!(status.success(), "the box ended with {status}: {}", self.log());
        std::fs::remove_dir_all(&self.data_dir).context("cannot remove the box's data")
    }
}

/// Ends a box that `--keep` left behind and begins with empty data.
pub fn stop_earlier(data_dir: &Path) -> Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    let place = data_dir.to_string_lossy();
    if read(binary(), &["--data-dir", &place, "status", "--json"]).is_ok() {
        say("stopping the box of an earlier run");
        shell::run(binary(), &["--data-dir", &place, "down", "--all"])?;
        let deadline = Instant::now() + START_LIMIT;
        while read(binary(), &["--data-dir", &place, "status", "--json"]).is_ok() && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    std::fs::remove_dir_all(data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))
}

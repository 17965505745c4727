//! The service that is measured: `app.py` on a volume of a given size, and the commands of the box about that volume.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bench::until_healthy;
use crate::http;
use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::read;

const APP: &str = include_str!("app.py");
const SERVICE: &str = "ledger";
const VOLUME: &str = "data";
/// The first start fills the volume.
const FILL_LIMIT: Duration = Duration::from_secs(180);

/// How much the volume holds.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) database_mb: u32,
    pub(super) binary_mb: u32,
    pub(super) small_files: u32,
}

/// A box with the app on it, live and filled.
pub(super) struct Subject {
    own: OwnBox,
    url: String,
}

/// What a writer saw in a stretch of time.
pub(super) struct Window {
    seconds: f64,
    commits: f64,
    /// Milliseconds between two commits, the largest first.
    pub(super) gaps_ms: Vec<f64>,
}

impl Window {
    pub(super) fn commits_per_second(&self) -> f64 {
        self.commits / self.seconds
    }

    /// The same without a time in which nobody can have written.
    pub(super) fn commits_per_second_beside(&self, pause_ms: f64) -> f64 {
        self.commits / (self.seconds - pause_ms / 1e3)
    }

    pub(super) fn longest_ms(&self) -> f64 {
        self.gaps_ms.first().copied().unwrap_or(f64::NAN)
    }
}

impl Subject {
    /// Starts a box in a folder, deploys the app and waits until its volume is filled.
    pub(super) fn start(folder: PathBuf, sizes: Sizes) -> Result<Subject> {
        stop_earlier(&folder)?;
        let own = OwnBox::start(folder)?;
        match Self::deploy(&own, sizes) {
            Ok(url) => Ok(Subject { own, url }),
            Err(error) => {
                let _ = own.stop();
                Err(error)
            }
        }
    }

    fn deploy(own: &OwnBox, sizes: Sizes) -> Result<String> {
        let source = own.data_dir.join("source").join(SERVICE);
        std::fs::create_dir_all(&source)?;
        let write = |name: &str, text: &str| std::fs::write(source.join(name), text);
        write("app.py", APP)?;
        let Sizes { database_mb, binary_mb, small_files } = sizes;
        let sizes = json!({ "database_mb": database_mb, "binary_mb": binary_mb, "small_files": small_files });
        write("sizes.json", &sizes.to_string())?;
        let start = json!({ "startCommand": "python app.py", "healthcheckPath": "/health", "healthcheckTimeout": 180 });
        write("railway.json", &json!({ "deploy": start }).to_string())?;
        write("trackbed.toml", &format!("[[volumes]]\nname = \"{VOLUME}\"\nmount = \"/data\"\n"))?;
        own.json_lines(&["up", &source.to_string_lossy(), "--json"])?;
        let url = own.url(SERVICE)?;
        ensure!(until_healthy(&format!("{url}/health"), FILL_LIMIT), "the app did not fill its volume");
        Ok(url)
    }

    /// Asks the app for something.
    pub(super) fn ask(&self, path: &str) -> Result<Value> {
        let (status, body) = http::call("GET", &format!("{}/{path}", self.url), None)?;
        ensure!(status == 200, "GET /{path} answered {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Lets the app write so many commits a second; 0 is none, and below 0 as many as it can.
    pub(super) fn pace(&self, per_second: i32) -> Result<()> {
        self.ask(&format!("pace?{per_second}")).map(|_| ())
    }

    /// Returns what the writer saw since it was last asked.
    pub(super) fn window(&self) -> Result<Window> {
        let told = self.ask("window")?;
        let number = |name: &str| told[name].as_f64().with_context(|| format!("no `{name}` in {told}"));
        let gaps = told["gaps_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64);
        Ok(Window { seconds: number("seconds")?, commits: number("commits")?, gaps_ms: gaps.collect() })
    }

    /// Takes a restore point and returns what the box says of it, and the milliseconds that the command took.
    pub(super) fn snapshot(&self) -> Result<(Value, f64)> {
        let began = Instant::now();
        let points = self.own.json(&["volume", "snapshot", VOLUME, "--service", SERVICE, "--json"])?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let point = if points.is_array() { points[0].clone() } else { points };
        ensure!(point["id"].is_string(), "no restore point: {point}");
        Ok((point, took))
    }

    /// Has a point proven now.
    pub(super) fn prove(&self, point: &Value) -> Result<()> {
        let id = point["id"].as_str().context("a point has an id")?;
        let point = self.own.json(&["volume", "verify", VOLUME, id, "--service", SERVICE, "--json"])?;
        ensure!(point["proof"]["proven"] == true, "the point is broken: {}", point["proof"]);
        Ok(())
    }

    /// Restores a point into a new volume, verified. Returns its folder and the milliseconds that the command took.
    pub(super) fn restore_to(&self, point: &Value, name: &str) -> Result<(PathBuf, f64)> {
        let id = point["id"].as_str().context("a point has an id")?;
        let began = Instant::now();
        let to_new = ["volume", "restore", VOLUME, "--at", id, "--to", name, "--service", SERVICE, "--json"];
        self.own.json(&to_new)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        Ok((self.folder_of(name)?, took))
    }

    /// Returns the folder of the app's own volume.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        self.folder_of(VOLUME)
    }

    /// Returns the folder of a volume.
    fn folder_of(&self, name: &str) -> Result<PathBuf> {
        let volumes = self.own.json(&["volume", "list", "--service", SERVICE, "--json"])?;
        let found = volumes.as_array().and_then(|all| all.iter().find(|volume| volume["name"] == name));
        let id =
            found.and_then(|volume| volume["id"].as_str()).with_context(|| format!("no volume `{name}`"))?;
        Ok(self.own.data_dir.join("volumes").join(id).join("data"))
    }

    /// Where a chore of its own may put files on the same file system.
    pub(super) fn aside(&self, name: &str) -> PathBuf {
        self.own.data_dir.join("source").join(name)
    }

    /// Ends the box and removes its data.
    pub(super) fn stop(self) -> Result<()> {
        self.own.stop()
    }
}

/// Writes everything that is dirty to the disk, so that the next measurement does not pay for it.
pub(super) fn sync() -> Result<()> {
    read("sync", &[]).map(|_| ())
}

//! `cargo xtask demo`: from nothing to a deployed assistant that keeps its conversation, in one command.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{self, binary, read, root, say, target_dir};
use crate::{http, install};

/// How long the box may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs the demo. With `keep`, the box and the app stay.
pub fn run(keep: bool) -> Result<()> {
    install::ensure(&[install::BOX])?;
    if !install::has_uv() {
        eprintln!("uv is not here; the box will fetch its own with pip");
    }
    say("building the release binary");
    shell::run("cargo", &["build", "--release", "--package", "trackbed"])?;

    let data_dir = target_dir().join("demo-box");
    stop_earlier(&data_dir)?;
    say("starting a box");
    let mut demo = Demo::start(data_dir)?;
    let told = demo.tell();
    if keep && told.is_ok() {
        let status = demo.serve.try_wait()?;
        ensure!(status.is_none(), "the box ended: {status:?}");
        eprintln!("\nThe box stays. Stop everything with:\n  {} down --all", demo.command_prefix());
        return Ok(());
    }
    let stopped = demo.stop();
    told?;
    stopped
}

struct Demo {
    data_dir: PathBuf,
    serve: Child,
}

impl Demo {
    fn start(data_dir: PathBuf) -> Result<Self> {
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
        let mut demo = Self { data_dir, serve };
        let deadline = Instant::now() + START_LIMIT;
        while demo.json(&["status", "--json"]).is_err() {
            if let Some(status) = demo.serve.try_wait()? {
                bail!("the box ended ({status}): {}", demo.log());
            }
            if Instant::now() > deadline {
                bail!("the box does not answer: {}", demo.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(demo)
    }

    fn tell(&mut self) -> Result<()> {
        let app = root().join("examples/assistant");
        say("deploying examples/assistant");
        self.trackbed(&["up", &app.to_string_lossy()])?;
        let url = self.url()?;

        say("asking it something through its public URL");
        let (status, body) = http::call("POST", &format!("{url}/threads"), Some(r#"{"title": "Demo"}"#))?;
        ensure!(status == 201, "POST /threads answered {status}: {body}");
        let thread: Value = serde_json::from_str(&body)?;
        let thread = format!("{url}/threads/{}", thread["id"]);
        let question = "Does my data survive a deploy?";
        println!("> {question}");
        let message = serde_json::json!({ "message": question }).to_string();
        let mut tokens = 0;
        let status = http::stream("POST", &format!("{thread}/chat"), Some(&message), |line| {
            let data = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
            if let Some(token) = data.as_ref().and_then(|data| data["token"].as_str()) {
                tokens += 1;
                print!("{token}");
                let _ = std::io::stdout().flush();
            }
        })?;
        println!();
        ensure!(status == 200 && tokens >= 10, "the reply came with status {status} in {tokens} events");

        say("restarting it");
        self.trackbed(&["restart", "--service", "assistant"])?;
        self.expect_conversation(&thread, question)?;
        say("deploying it once more");
        self.trackbed(&["up", &app.to_string_lossy()])?;
        self.expect_conversation(&thread, question)?;

        let box_info = self.json(&["status", "--json"])?;
        say("it is live");
        println!("{url}");
        println!("isolation: {}", box_info["box"]["isolation"]["level"].as_str().unwrap_or("?"));
        let prefix = self.command_prefix();
        println!("\nNext:");
        for command in [
            "status",
            "logs --service assistant",
            "deployments --service assistant",
            "variables set ANTHROPIC_API_KEY=… --service assistant",
            "rollback --service assistant",
        ] {
            println!("  {prefix} {command}");
        }
        Ok(())
    }

    fn expect_conversation(&self, thread: &str, question: &str) -> Result<()> {
        let (status, body) = http::call("GET", thread, None)?;
        ensure!(status == 200, "GET {thread} answered {status}: {body}");
        let conversation: Value = serde_json::from_str(&body)?;
        let messages = conversation["messages"].as_array().cloned().unwrap_or_default();
        let kept = messages.first().is_some_and(|first| first["content"] == question) && messages.len() == 2;
        ensure!(kept, "the conversation is not what it was: {body}");
        eprintln!("the conversation is still there: {} messages", messages.len());
        Ok(())
    }

    fn url(&self) -> Result<String> {
        let status = self.json(&["status", "--json"])?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let assistant = services.iter().find(|service| service["service"] == "assistant");
        let url = assistant.and_then(|service| service["url"].as_str());
        Ok(url.context("the box knows no service `assistant`")?.to_owned())
    }

    fn trackbed(&self, arguments: &[&str]) -> Result<()> {
        let data_dir = self.data_dir.to_string_lossy();
        let mut all = vec!["--data-dir", &data_dir];
        all.extend(arguments);
        shell::run(binary(), &all)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let data_dir = self.data_dir.to_string_lossy();
        let mut all = vec!["--data-dir", &data_dir];
        all.extend(arguments);
        Ok(serde_json::from_str(&read(binary(), &all)?)?)
    }

    fn command_prefix(&self) -> String {
        format!("{} --data-dir {}", binary().display(), self.data_dir.display())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("serve.log")).unwrap_or_default()
    }

    fn stop(mut self) -> Result<()> {
        say("stopping the box");
        if let Err(error) = self.trackbed(&["down", "--all"]) {
            let _ = self.serve.kill();
            return Err(error);
        }
        let status = self.serve.wait()?;
        ensure!(status.success(), "the box ended with {status}: {}", self.log());
        std::fs::remove_dir_all(&self.data_dir).context("cannot remove the demo's data")
    }
}

/// Ends a box that `--keep` left behind and begins with empty data.
fn stop_earlier(data_dir: &Path) -> Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    let place = data_dir.to_string_lossy();
    if read(binary(), &["--data-dir", &place, "status", "--json"]).is_ok() {
        say("stopping the box of an earlier demo");
        shell::run(binary(), &["--data-dir", &place, "down", "--all"])?;
        let deadline = Instant::now() + START_LIMIT;
        while read(binary(), &["--data-dir", &place, "status", "--json"]).is_ok() && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    std::fs::remove_dir_all(data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))
}

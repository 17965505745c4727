//! `cargo xtask demo`: from nothing to a deployed assistant that keeps its conversation, in one command.

use std::io::Write;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::own_box::{OwnBox, stop_earlier};
use crate::shell::{self, root, say, target_dir};
use crate::{http, install};

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
    let mut demo = OwnBox::start(data_dir)?;
    let told = tell(&demo);
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

fn tell(own: &OwnBox) -> Result<()> {
    let app = root().join("examples/assistant");
    say("deploying examples/assistant");
    own.trackbed(&["up", &app.to_string_lossy()])?;
    let url = own.url("assistant")?;

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
    own.trackbed(&["restart", "--service", "assistant"])?;
    expect_conversation(&thread, question)?;
    say("deploying it once more");
    own.trackbed(&["up", &app.to_string_lossy(), "--anew"])?;
    expect_conversation(&thread, question)?;

    let box_info = own.json(&["status", "--json"])?;
    say("it is live");
    println!("{url}");
    println!("isolation: {}", box_info["box"]["isolation"]["level"].as_str().unwrap_or("?"));
    let prefix = own.command_prefix();
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

fn expect_conversation(thread: &str, question: &str) -> Result<()> {
    let (status, body) = http::call("GET", thread, None)?;
    ensure!(status == 200, "GET {thread} answered {status}: {body}");
    let conversation: Value = serde_json::from_str(&body)?;
    let messages = conversation["messages"].as_array().cloned().unwrap_or_default();
    let kept = messages.first().is_some_and(|first| first["content"] == question) && messages.len() == 2;
    ensure!(kept, "the conversation is not what it was: {body}");
    eprintln!("the conversation is still there: {} messages", messages.len());
    Ok(())
}

//! `trackbed open`: where a service answers.

use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::json;

use crate::session::Session;
use crate::target::Target;

/// Print the URL of a service, and open it in a browser when there is one
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  curl \"$(trackbed open)/health\"")]
pub(crate) struct Args {
    /// Print a JSON object, open nothing
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let service = names.of(&client).show().await?;
    if args.json {
        session
            .output
            .json(&json!({ "service": names.service, "project": names.project, "url": service.url }))?;
        return Ok(0);
    }
    session.output.result(&service.url)?;
    let has_screen = std::env::var_os("DISPLAY").is_some_and(|display| !display.is_empty());
    if session.output.result_is_seen && has_screen {
        let mut browser = Command::new("xdg-open");
        browser.arg(&service.url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The URL stands there already; a missing browser is no failure.
        if browser.spawn().is_err() {
            session.output.talk("no browser was found");
        }
    }
    Ok(0)
}

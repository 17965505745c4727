//! `trackbed down`: stops a service, or the box with everything on it.

use std::time::{Duration, Instant};

use anyhow::Result;
use trackbed_api::StopBox;
use trackbed_client::{Client, ClientError};

use crate::session::{Refusal, Session};
use crate::target::Target;

/// How long to wait until what was asked for has happened; a service may finish its streams first.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Stop a service, or the box and everything on it; data and releases stay
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trackbed down\n  trackbed down --all\n\n\
                        `trackbed restart` starts a service again, `trackbed serve` the box.")]
pub(crate) struct Args {
    /// Stop the box and every service on it
    #[arg(long, conflicts_with_all = ["service", "project"])]
    all: bool,
    /// Accepted for scripts; nothing is asked
    #[arg(long, short, hide = true)]
    yes: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<u8> {
    let client = session.client();
    if args.all {
        return stop_box(session, &client).await;
    }
    let names = args.target.find(session, &client).await?;
    let calls = names.of(&client);
    let mut service = calls.stop().await?;
    let begun = Instant::now();
    while service.state != "stopped" {
        if begun.elapsed() > STOP_WAIT {
            let message = format!("{names} is still {} after {} s", service.state, STOP_WAIT.as_secs());
            return Err(Refusal::with_hint(
                message,
                "it stops when its open requests end; look by `trackbed status`",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        service = calls.show().await?;
    }
    session.output.talk(format!("{names} is stopped; `trackbed restart` starts it again"));
    Ok(0)
}

async fn stop_box(session: &Session, client: &Client) -> Result<u8> {
    match client.stop_box(&StopBox { instances: true }).await {
        Ok(()) => {}
        Err(ClientError::NotRunning { .. }) => {
            session.output.talk(format!("no box is running in {}", session.data_dir.display()));
            return Ok(0);
        }
        Err(error) => return Err(error.into()),
    }
    let begun = Instant::now();
    // A box that is about to end may break the connection first.
    while !matches!(client.box_info().await, Err(ClientError::NotRunning { .. })) {
        if begun.elapsed() > STOP_WAIT {
            let message = format!("the box still runs after {} s", STOP_WAIT.as_secs());
            return Err(Refusal::with_hint(message, "look by `trackbed status`"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    session
        .output
        .talk("the box and everything on it is stopped; `trackbed serve` or `trackbed up` starts it again");
    Ok(0)
}

//! `trackbed run`: a command where the app runs.

use anyhow::Result;
use trackbed_api::{RunEvent, RunRequest};

use crate::session::{Refusal, Session};
use crate::target::Target;

/// Run a command inside the live instance: the app's files, variables and volumes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  trackbed run -- python manage.py migrate\n  trackbed run -- sh -c 'echo $DATABASE_URL'\n  \
                  trackbed run -- python -c 'import sqlite3; print(sqlite3.sqlite_version)'\n\n\
                  It runs inside the live instance, which must be up. Output arrives as text, line by line.\n\
                  It has no standard input: nothing can be typed or piped in.\nExits with the code of the command."
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<u8> {
    let client = session.client();
    let names = args.target.find(session, &client).await?;
    let mut events = names.of(&client).run(&RunRequest { command: args.command }).await?;
    while let Some(event) = events.next().await? {
        match event {
            RunEvent::Line { stream, text } if stream == "err" => session.output.talk(text),
            RunEvent::Line { stream: _, text } => session.output.result(text)?,
            RunEvent::Exit { code, message } => {
                if let Some(message) = message {
                    session.output.talk(message);
                }
                return Ok(exit_code(code));
            }
            RunEvent::Error { message, hint } => {
                return Err(match hint {
                    Some(hint) => Refusal::with_hint(message, hint),
                    None => anyhow::anyhow!(message),
                });
            }
        }
    }
    Err(Refusal::with_hint(
        "the box hung up before the command ended",
        "look by `trackbed status`; it may still run",
    ))
}

/// A code that this process can exit with; one that does not fit must not become 0.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

//! `trackbed completions`: what a shell needs to complete our words.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::CommandLine;
use crate::session::Session;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  trackbed completions bash > /etc/bash_completion.d/trackbed")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(session: &Session, args: &Args) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "trackbed", &mut script);
    session.output.result_bytes(&script)?;
    Ok(0)
}

//! The commands that people type. It asks the box and prints what it says; it decides nothing.

mod args;
mod changes;
mod commands;
mod deploy;
mod dotenv;
mod follow;
mod home;
mod human;
mod input;
mod names;
mod output;
mod pack;
mod progress;
mod push;
mod quantities;
mod session;
mod start;
mod statements;
mod store_options;
mod target;
#[cfg(test)]
mod tests;
mod units;
mod upload;
mod walk;

pub use args::{Command, Invocation, RecoverArgs, ServeArgs, parse};
pub use push::{is_hook, run_hook};

use std::process::ExitCode;

/// Runs a command to its end, on a runtime of its own, and returns what the process should exit with.
pub fn execute(command: Command) -> ExitCode {
    let output = output::Output::of_process();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("cannot start the runtime"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(command, output));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run(command: Command, output: output::Output) -> u8 {
    let session = match session::Session::of_process(command.data_dir, output) {
        Ok(session) => session,
        Err((error, output)) => {
            output.error(&error);
            return 1;
        }
    };
    commands::run(&session, command.verb).await
}

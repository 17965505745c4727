//! The commands that people type. It asks the box and prints what it says; it decides nothing.

mod args;
mod box_flags;
mod changes;
mod check;
mod commands;
mod copies;
mod deploy;
mod dotenv;
mod follow;
#[doc(hidden)]
pub mod fuzz;
mod home;
mod human;
mod index;
mod input;
mod names;
mod output;
mod pack;
mod parcel;
mod progress;
mod push;
mod quantities;
mod sarif;
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

pub use args::{Command, Invocation, Listing, RecoverArgs, RecoverAt, ServeArgs, parse};
pub use check::{CheckCommand, CheckWish, Lent};
pub use copies::show_copies;
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

/// Looks at a folder and prints what is found. The look itself is taken by `look`: this crate decides nothing.
pub fn execute_check(
    command: CheckCommand,
    look: impl FnOnce(CheckWish) -> trackbed_api::CheckReport + Send + 'static,
) -> ExitCode {
    let output = output::Output::of_process();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("cannot start the runtime"));
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(check::execute(command, output, look)))
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

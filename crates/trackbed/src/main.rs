//! The one binary: picks a role (`shim`, `edge`, `serve`) or a command, nothing else.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use trackbed_cli::Invocation;
use trackbed_server::ServeConfig;

fn main() -> ExitCode {
    // The shim comes first, before anything is allocated or any thread runs: there is one for each instance.
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(role), Some(folder), None) if role == "shim" => {
            let code = trackbed_sandbox::shim_main(Path::new(&folder));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        (Some(role), Some(data_dir), Some(listen)) if role == "edge" => {
            start_log();
            edge(Path::new(&data_dir), &listen.to_string_lossy())
        }
        _ => match trackbed_cli::parse() {
            Invocation::Command(command) => trackbed_cli::execute(command),
            Invocation::Serve(arguments) => {
                start_log();
                serve(ServeConfig {
                    data_dir: arguments.data_dir,
                    listen: arguments.listen,
                    domain: arguments.domain,
                    isolation: arguments.isolation,
                    environment: environment(),
                    abort_at: std::env::var("TRACKBED_ABORT_AT").ok(),
                })
            }
        },
    }
}

/// The environment as text. What is not UTF-8 is none that a build could use.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn serve(config: ServeConfig) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.context("cannot start the runtime").and_then(|runtime| {
        let served = runtime.block_on(trackbed_server::serve(config));
        runtime.shutdown_background();
        served
    });
    report(served)
}

fn edge(data_dir: &Path, listen: &str) -> ExitCode {
    // A session of its own: the edge outlives whoever started it.
    let _ = nix::unistd::setsid();
    let config = (|| {
        Ok::<_, anyhow::Error>(trackbed_edge::Config {
            listen: listen.parse().with_context(|| format!("`{listen}` is not an address"))?,
            control_socket: trackbed_stdx::paths::ensure_run_dir(data_dir)?.join("edge.sock"),
            state_dir: data_dir.join("edge"),
            trusted_proxies: Vec::new(),
            connections_per_source: 0,
            workers: 0,
        })
    })();
    match config {
        Err(error) => report(Err(error)),
        Ok(config) => match trackbed_edge::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                report(Err(error.into()));
                ExitCode::from(code)
            }
        },
    }
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Roles log to standard error, one line an event; `TRACKBED_LOG` narrows or widens it (`debug`, `info,trackbed_edge=debug`).
fn start_log() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let asked = std::env::var("TRACKBED_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
}

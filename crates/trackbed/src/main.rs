//! The one binary: picks a role (`shim`, `keeper`, `look-into`, `edge`, `serve`, `check`, `recover`, git's hook) or a command, nothing else.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use trackbed_cli::{Invocation, RecoverArgs};
use trackbed_server::{CheckConfig, RecoverAt, RecoverConfig, Secret, ServeConfig, Timestamp};

fn main() -> ExitCode {
    // The shim comes first, before anything is allocated or any thread runs: there is one for each instance.
    let mut arguments = std::env::args_os().skip(1);
    if std::env::args_os().nth(1).is_some_and(|role| role == trackbed_volume::inspect::ROLE) {
        return ExitCode::from(trackbed_volume::inspect::look_into(arguments.skip(1)));
    }
    if std::env::args_os().next().is_some_and(|program| trackbed_cli::is_hook(&program)) {
        return trackbed_cli::run_hook();
    }
    match (arguments.next(), arguments.next(), arguments.next(), arguments.next()) {
        (Some(role), Some(folder), None, None) if role == "shim" => {
            let code = trackbed_sandbox::shim_main(Path::new(&folder));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        (Some(role), Some(folder), None, None) if role == "keeper" => {
            let code = trackbed_docker::keeper_main(Path::new(&folder));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        (Some(role), Some(data_dir), Some(listen), mode) if role == "edge" => {
            start_log();
            let (data_dir, listen) = (Path::new(&data_dir), listen.to_string_lossy());
            match mode.as_deref().map(|mode| mode.to_string_lossy()).as_deref() {
                None => edge(data_dir, &listen, trackbed_edge::run),
                Some("--take-over") => edge(data_dir, &listen, trackbed_edge::run_successor),
                Some("--reload") => reload_edge(data_dir, &listen),
                Some(mode) => report(Err(anyhow::anyhow!("`trackbed edge` knows no `{mode}`"))),
            }
        }
        _ => match trackbed_cli::parse() {
            Invocation::Command(command) => trackbed_cli::execute(command),
            Invocation::Check(command) => trackbed_cli::execute_check(command, |wish| {
                trackbed_server::check(CheckConfig {
                    folder: wish.folder,
                    files: wish.files,
                    service: wish.service,
                    data_dir: wish.data_dir,
                    environment: environment(),
                })
            }),
            Invocation::Recover(arguments) => {
                start_log();
                recover(arguments)
            }
            Invocation::Serve(arguments) => {
                start_log();
                serve(ServeConfig {
                    data_dir: arguments.data_dir,
                    listen: arguments.listen,
                    domain: arguments.domain,
                    trusted_proxies: arguments.trusted_proxies,
                    isolation: arguments.isolation,
                    edge_unit: arguments.edge_unit,
                    git_listen: arguments.git_listen,
                    builds: arguments.builds,
                    build_memory_bytes: arguments.build_memory,
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

fn recover(arguments: RecoverArgs) -> ExitCode {
    let key = match &arguments.key {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))
        }
        None => std::io::read_to_string(std::io::stdin()).context("cannot read the key from standard input"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let recovered = key.and_then(|key| {
        let config = RecoverConfig {
            data_dir: arguments.data_dir,
            url: arguments.url,
            options: arguments.options.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            identity: Secret::new(key),
            bandwidth_bytes: arguments.bandwidth_bytes,
            take_over: arguments.take_over,
            at: match arguments.at {
                None => RecoverAt::Newest,
                Some(trackbed_cli::RecoverAt::Number(number)) => RecoverAt::Number(number),
                Some(trackbed_cli::RecoverAt::Time(at)) => RecoverAt::Time(Timestamp(at)),
            },
        };
        let runtime = runtime.context("cannot start the runtime")?;
        let done = match arguments.listing {
            None => runtime.block_on(trackbed_server::recover(config)),
            Some(listing) => runtime
                .block_on(trackbed_server::list_copies(config))
                .and_then(|copies| trackbed_cli::show_copies(&copies, listing)),
        };
        runtime.shutdown_background();
        done
    });
    report(recovered)
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

fn edge(
    data_dir: &Path,
    listen: &str,
    run: fn(&trackbed_edge::Config) -> Result<(), trackbed_edge::EdgeError>,
) -> ExitCode {
    // A session of its own: the edge outlives whoever started it.
    let _ = nix::unistd::setsid();
    let config = (|| {
        Ok::<_, anyhow::Error>(trackbed_edge::Config {
            listen: listen.parse().with_context(|| format!("`{listen}` is not an address"))?,
            control_socket: trackbed_stdx::paths::ensure_run_dir(data_dir)?.join("edge.sock"),
            state_dir: data_dir.join("edge"),
            connections_per_source: 0,
            workers: 0,
        })
    })();
    match config {
        Err(error) => report(Err(error)),
        Ok(config) => match run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                report(Err(error.into()));
                ExitCode::from(code)
            }
        },
    }
}

/// Starts a successor of the edge, waits until it has taken over, and ends.
fn reload_edge(data_dir: &Path, listen: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let reloaded = runtime.context("cannot start the runtime").and_then(|runtime| {
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        runtime.block_on(trackbed_server::reload_edge(binary, data_dir.to_owned(), listen.to_owned()))
    });
    report(reloaded)
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
    // Each request to an object store that is tried again is no event; what became of it is.
    let usual =
        || Targets::new().with_default(LevelFilter::INFO).with_target("object_store", LevelFilter::WARN);
    let targets = asked.unwrap_or_else(usual);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
}

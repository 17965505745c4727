//! A program that is nothing but an edge, for the tests: `edge-process FOLDER [--take-over]`.

use std::process::ExitCode;

use trackbed_edge::{Config, run, run_successor};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), mode) = (arguments.next(), arguments.next()) else { return ExitCode::from(2) };
    let folder = std::path::PathBuf::from(folder);
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        control_socket: folder.join("control.sock"),
        state_dir: folder.join("state"),
        workers: 2,
        connections_per_source: 0,
    };
    let ran = match mode {
        Some(mode) if mode == "--take-over" => run_successor(&config),
        _ => run(&config),
    };
    ran.map_or_else(|error| ExitCode::from(error.exit_code()), |()| ExitCode::SUCCESS)
}

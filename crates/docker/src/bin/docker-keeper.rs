//! The keeper as a program of its own, for tests of this crate: `docker-keeper keeper <instance directory>`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let Some(folder) = arguments.next() else { return ExitCode::from(2) };
    ExitCode::from(u8::try_from(trackbed_docker::keeper_main(Path::new(&folder))).unwrap_or(1))
}

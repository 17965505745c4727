//! A program that is nothing but the look into databases, for the tests and for measuring.

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(role) if role == trackbed_volume::inspect::ROLE => {
            std::process::ExitCode::from(trackbed_volume::inspect::look_into(arguments))
        }
        _ => std::process::ExitCode::from(2),
    }
}

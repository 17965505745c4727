//! A program that is nothing but a shim, for the tests and for measuring.

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(verb), Some(folder)) if verb == "shim" => {
            let code = trackbed_sandbox::shim_main(folder.as_ref());
            std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        _ => std::process::ExitCode::from(2),
    }
}

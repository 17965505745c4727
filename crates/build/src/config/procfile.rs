//! Reads a `Procfile`: `name: command` by line. The main process is `web`, else `worker`, else the first by name; the others
//! run beside it, and `release` runs before them.

use trackbed_core::ProcessName;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File, Given};
use crate::config::keys::{Key, Setting};
use crate::config::tree::brief;

/// Reads the file.
pub(crate) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let mut lines: Vec<(ProcessName, String, u32)> = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((process, command)) = line.split_once(':') else {
            return Err(PortError::new(format!(
                "{name}:{number}:1: expected `name: command`, found `{}`",
                line.chars().take(60).collect::<String>()
            ))
            .hint("a line looks like `web: uvicorn main:app --host 0.0.0.0 --port $PORT`"));
        };
        let process = process.trim();
        let Ok(process) = process.parse::<ProcessName>() else {
            return Err(PortError::new(format!(
                "{name}:{number}:1: `{}` is not the name of a process; expected up to 32 letters, digits, `-` or `_` \
                 before `:`",
                brief(process)
            )));
        };
        let command = unquote(command.trim());
        if command.is_empty() {
            draft.warn(name, Some(number), format!("`{process}` has no command, ignored"));
        } else if lines.iter().any(|(known, ..)| *known == process) {
            draft.warn(name, Some(number), format!("`{process}` is there already, ignored"));
        } else {
            lines.push((process, command.to_owned(), number));
        }
    }
    let rank = |process: &ProcessName| match process.as_str() {
        "web" => 0,
        "worker" => 1,
        _ => 2,
    };
    // `release` prepares the database before the others start.
    let is_release = |process: &ProcessName| process.as_str() == "release";
    let chosen = lines
        .iter()
        .filter(|(process, ..)| !is_release(process))
        .min_by_key(|(process, ..)| (rank(process), process.clone()));
    let file = File { name, origin: Origin::Procfile };
    for (process, command, line) in lines.iter().filter(|(process, ..)| !is_release(process)) {
        draft.declare_process(file, process.clone(), command, *line, process.as_str() == "web");
    }
    if let Some((_, command, line)) = lines.iter().find(|(process, ..)| is_release(process)) {
        draft.give(Given {
            key: Key::PreDeploy,
            setting: Setting::Text(command.clone()),
            origin: Origin::Procfile,
            place: format!("{name}:{line}"),
        });
    }
    if let Some((process, command, line)) = chosen {
        if process.as_str() != "web" {
            let message = format!("no `web` line; `{process}` is the main process and must listen on $PORT");
            draft.warn(name, Some(*line), message);
        }
        draft.give(Given {
            key: Key::StartCommand,
            setting: Setting::Text(command.clone()),
            origin: Origin::Procfile,
            place: format!("{name}:{line}"),
        });
    }
    Ok(())
}

/// Takes one pair of quotes off a command that stands in them as a whole, because YAML readers would.
fn unquote(command: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = command.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(quote)) {
            return inner.trim();
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(text: &str) -> Option<String> {
        let mut draft = Draft::default();
        read("Procfile", text, &mut draft).unwrap();
        draft.find(Key::StartCommand).map(|given| format!("{} {}", given.place, given.setting))
    }

    #[test]
    fn web_wins_over_worker_over_the_first_by_name() {
        assert_eq!(start("# c\nworker: w\nweb: a: b").as_deref(), Some("Procfile:3 a: b"));
        assert_eq!(start("beat: b\r\nworker: w\r\n").as_deref(), Some("Procfile:2 w"));
        assert_eq!(start("z: z\nbeat: b").as_deref(), Some("Procfile:2 b"));
        assert_eq!(start("release: migrate\n"), None);
        let mut draft = Draft::default();
        read("Procfile", "release: migrate\nweb: w", &mut draft).unwrap();
        assert_eq!(draft.text(Key::PreDeploy).as_deref(), Some("migrate"));
        assert_eq!(start("web: \"python a.py\"").as_deref(), Some("Procfile:1 python a.py"));
        assert_eq!(start(""), None);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = read("Procfile", "\ngunicorn main\n", &mut Draft::default()).unwrap_err();
        assert_eq!(error.message, "Procfile:2:1: expected `name: command`, found `gunicorn main`");
    }
}

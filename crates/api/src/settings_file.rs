//! Writes `trackbed.toml` from a plan: what the files of other platforms say, in our own file, with what differs beside it.
//! It stands with the shapes so that whoever reads such a file can prove that it says the same.

use std::fmt::Write as _;

use crate::{Plan, PlannedSetting, Warning};

/// Whose values are taken over: everything that stands in a file. What is found in the code is found again.
const ORIGINS: [&str; 6] = ["trackbed-toml", "railway", "railpack", "nixpacks", "procfile", "platform"];
/// Keys whose values are no texts in the file.
const BARE: [&str; 9] = [
    "deploy.restartPolicyMaxRetries",
    "deploy.shared",
    "deploy.rehearse",
    "deploy.preDeployTrial",
    "deploy.port",
    "static.spa",
    "deploy.holdSeconds",
    "limits.cpu",
    "deploy.drainingSeconds",
];

/// Returns the file. Of a plan whose values all come from elsewhere, it holds nothing but comments.
pub fn settings_file(plan: &Plan) -> String {
    let mut text = String::from(
        "# Made by `trackbed import`. It is stronger than the files it was made from, which may stay or go.\n",
    );
    let taken: Vec<&PlannedSetting> =
        plan.settings.iter().filter(|setting| ORIGINS.contains(&setting.origin.as_str())).collect();
    let notes: Vec<String> = plan.warnings.iter().map(note).collect();
    if !notes.is_empty() {
        text.push_str("#\n# What is different here, or was not understood:\n");
        for note in notes {
            let _ = writeln!(text, "#   {}", one_line(&note));
        }
    }
    for table in ["build", "deploy", "limits", "static", "variables"] {
        let members: Vec<_> = taken
            .iter()
            .filter_map(|setting| Some((setting.key.strip_prefix(table)?.strip_prefix('.')?, *setting)))
            .collect();
        if members.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n[{table}]");
        for (name, setting) in members {
            let place = one_line(&setting.place);
            let _ = writeln!(text, "{name} = {}  # {place}", value(setting));
        }
    }
    text.push_str(&processes(&taken));
    for setting in &taken {
        let Some(name) = setting.key.strip_prefix("volumes.") else { continue };
        let place = one_line(&setting.place);
        let (name, mount) = (quote(name), quote(&setting.value));
        let _ = writeln!(text, "\n[[volumes]]  # {place}\nname = {name}\nmount = {mount}");
    }
    text
}

/// Writes what runs beside the start command, each with its count where a file says one.
fn processes(taken: &[&PlannedSetting]) -> String {
    let mut text = String::new();
    for setting in taken {
        let Some(name) = setting.key.strip_prefix("processes.") else { continue };
        let count = taken.iter().find(|other| other.key.strip_prefix("scale.") == Some(name));
        let command = quote(&setting.value);
        let value = match count {
            Some(count) => format!("{{ command = {command}, count = {} }}", count.value),
            None => command,
        };
        let head = if text.is_empty() { "\n[processes]\n" } else { "" };
        let _ = writeln!(text, "{head}{name} = {value}  # {}", one_line(&setting.place));
    }
    text
}

/// Returns whether a plan takes anything from a file.
pub fn says_something(plan: &Plan) -> bool {
    plan.settings.iter().any(|setting| ORIGINS.contains(&setting.origin.as_str()))
}

fn note(warning: &Warning) -> String {
    match (&warning.file, warning.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: {}", warning.message),
        (Some(file), None) => format!("{file}: {}", warning.message),
        (None, _) => warning.message.clone(),
    }
}

fn value(setting: &PlannedSetting) -> String {
    let key = setting.key.as_str();
    let bare = setting.value.strip_suffix('s').unwrap_or(&setting.value);
    let is_bare = BARE.contains(&key) || key.ends_with("Seconds") || key.ends_with("Timeout");
    match key {
        "build.watchPatterns" => {
            let patterns: Vec<String> = setting.value.split(", ").map(quote).collect();
            format!("[{}]", patterns.join(", "))
        }
        // Texts of TOML may be true and numbers, too, but a reader expects none there.
        _ if setting.value == "true" || setting.value == "false" => match is_bare {
            true => setting.value.clone(),
            false => quote(&setting.value),
        },
        _ if is_bare && bare.parse::<f64>().is_ok() => bare.to_owned(),
        _ => quote(&setting.value),
    }
}

/// Writes a text as TOML does.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A comment ends with its line, and may hold no control character.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str, origin: &str) -> PlannedSetting {
        PlannedSetting { key: key.into(), value: value.into(), place: "f:1".into(), origin: origin.into() }
    }

    #[test]
    fn values_of_files_are_written_and_what_is_found_or_default_is_not() {
        let plan = Plan {
            provider: "python".into(),
            summary: String::new(),
            settings: vec![
                setting("build.watchPatterns", "src/**, !docs", "railway"),
                setting("deploy.startCommand", "sh -c \"a\\b\"\n\u{1}", "railway"),
                setting("deploy.healthcheckPath", "/health", "detection"),
                setting("deploy.healthcheckTimeout", "2.5s", "railway"),
                setting("deploy.restartPolicyMaxRetries", "10", "default"),
                setting("deploy.shared", "true", "procfile"),
                setting("limits.memory", "512MB", "platform"),
                setting("variables.DEBUG", "true", "platform"),
                setting("variables.N", "1", "nixpacks"),
                setting("processes.beat", "tick", "procfile"),
                setting("processes.worker", "work", "procfile"),
                setting("scale.beat", "1", "default"),
                setting("scale.worker", "2", "platform"),
                setting("volumes.data", "/data", "platform"),
                setting("python.version", "3.12", "platform"),
            ],
            warnings: vec![Warning { file: Some("f".into()), line: Some(3), message: "odd\nthing".into() }],
        };
        let text = settings_file(&plan);
        let expected = "# Made by `trackbed import`. It is stronger than the files it was made from, which may stay or go.\n\
            #\n# What is different here, or was not understood:\n#   f:3: odd thing\n\n\
            [build]\nwatchPatterns = [\"src/**\", \"!docs\"]  # f:1\n\n\
            [deploy]\nstartCommand = \"sh -c \\\"a\\\\b\\\"\\n\\u0001\"  # f:1\nhealthcheckTimeout = 2.5  # f:1\n\
            shared = true  # f:1\n\n[limits]\nmemory = \"512MB\"  # f:1\n\n\
            [variables]\nDEBUG = \"true\"  # f:1\nN = \"1\"  # f:1\n\n\
            [processes]\nbeat = \"tick\"  # f:1\nworker = { command = \"work\", count = 2 }  # f:1\n\n\
            [[volumes]]  # f:1\nname = \"data\"\nmount = \"/data\"\n";
        assert_eq!(text, expected);
    }
}

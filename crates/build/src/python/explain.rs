//! Makes the words of a failed install or build command into an error that names the line to change.

use trackbed_core::ports::PortError;

use crate::layers::DISK_FULL;
use crate::python::requirements::{Requirement, name_of};

/// Most lines quoted.
const QUOTED_LINES: usize = 12;

/// Explains a failed install.
pub(crate) fn install(file: &str, how: &str, tail: &[String], asked: &[Requirement]) -> PortError {
    if let Some(error) = disk_full(tail) {
        return error;
    }
    let words = last_words(tail);
    let culprit = culprit(&words, asked);
    let place = culprit.map(|requirement| format!("{}: `{}`: ", requirement.place, requirement.line));
    let message = format!("{}installing from {file} failed ({how}):\n{words}", place.unwrap_or_default());
    PortError::new(message).hint(hint(&words, culprit))
}

/// Explains a failed build command.
pub(crate) fn command(command: &str, how: &str, tail: &[String]) -> PortError {
    if let Some(error) = disk_full(tail) {
        return error;
    }
    let from = tail.len().saturating_sub(QUOTED_LINES);
    PortError::new(format!("the build command `{command}` {how}:\n{}", tail[from..].join("\n")))
        .hint("the whole output is in the build log: trackbed logs --build")
}

fn disk_full(tail: &[String]) -> Option<PortError> {
    let full =
        tail.iter().find(|line| line.contains("No space left on device") || line.contains("os error 28"))?;
    Some(PortError::new(format!("the disk of the box is full: {}", full.trim())).hint(DISK_FULL))
}

/// Takes what uv says in the end: from its cross or its `error:` on.
fn last_words(tail: &[String]) -> String {
    let begins = |line: &String| line.trim_start().starts_with('×') || line.starts_with("error:");
    let from = tail.iter().rposition(begins).unwrap_or(tail.len().saturating_sub(QUOTED_LINES));
    let rest = &tail[from..];
    if rest.len() <= QUOTED_LINES {
        return rest.join("\n");
    }
    // A build that fails says what at the top and why at the end.
    let half = QUOTED_LINES / 2;
    format!("{}\n  …\n{}", rest[..half].join("\n"), rest[rest.len() - half..].join("\n"))
}

/// Finds the requirement that the words are about.
fn culprit<'a>(words: &str, asked: &'a [Requirement]) -> Option<&'a Requirement> {
    const BEFORE: [&str; 6] = [
        "Because there is no version of ",
        "Because there are no versions of ",
        "Because only ",
        "Because ",
        "Failed to build `",
        "Failed to download `",
    ];
    let named = BEFORE.iter().find_map(|before| {
        let (_, rest) = words.split_once(before)?;
        let name = name_of(rest.trim_start_matches("the requested "));
        asked.iter().find(|requirement| !name.is_empty() && requirement.name == name)
    });
    named.or_else(|| {
        let missing = words.lines().find(|line| line.contains("was not found in the package registry"))?;
        asked.iter().find(|requirement| {
            !requirement.name.is_empty()
                && missing
                    .split(|c: char| c.is_whitespace() || c == '`')
                    .any(|word| name_of(word) == requirement.name)
        })
    })
}

fn hint(words: &str, culprit: Option<&Requirement>) -> String {
    let place = culprit.map_or("the list of dependencies", |requirement| requirement.place.as_str());
    let windows = culprit.is_some_and(|requirement| requirement.name.starts_with("pywin"));
    if windows {
        return format!(
            "that package exists for Windows only: take it out of {place}, or add `; sys_platform == 'win32'`"
        );
    }
    if words.contains("401 Unauthorized") || words.contains("403 Forbidden") {
        return "the index asks who you are: set UV_INDEX_URL=https://USER:TOKEN@HOST/simple among the service's variables, \
                and take the index out of the list of dependencies"
            .to_owned();
    }
    if words.contains("was not found in the package registry") {
        return format!(
            "check the spelling in {place}; a package of your own needs UV_INDEX_URL or PIP_EXTRA_INDEX_URL among the service's variables"
        );
    }
    if words.contains("no version of") || words.contains("No solution found") {
        return format!("change the version in {place}, or the version of Python in .python-version");
    }
    if words.contains("lockfile") && words.contains("needs to be updated") {
        return "run `uv lock`, commit uv.lock, and deploy again".to_owned();
    }
    if words.contains("Failed to build") || words.contains("build backend") {
        return format!(
            "there is no ready-made package for this Python, and building it failed: change the version in {place}, ask for another Python in .python-version, or install what it misses on the box"
        );
    }
    if ["Failed to fetch", "error sending request", "dns error", "Connection refused", "timed out"]
        .iter()
        .any(|sign| words.contains(sign))
    {
        return "the box cannot reach the package index: check its network, HTTPS_PROXY and SSL_CERT_FILE"
            .to_owned();
    }
    "the whole output is in the build log: trackbed logs --build".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_change_is_named() {
        let asked = |line: &str| Requirement {
            name: name_of(line),
            line: line.to_owned(),
            place: "requirements.txt:2".to_owned(),
        };
        let tail = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let said = "Using Python 3.11\n  × No solution found when resolving dependencies:\n  ╰─▶ Because nosuch-pkg was not found in the package registry and you require\n      nosuch-pkg, we can conclude";
        let error = install(
            "requirements.txt",
            "exited with code 1",
            &tail(said),
            &[asked("fastapi"), asked("nosuch_pkg")],
        );
        assert!(
            error.message.starts_with("requirements.txt:2: `nosuch_pkg`: installing from"),
            "{}",
            error.message
        );
        assert!(
            error.message.contains("was not found in the package registry")
                && !error.message.contains("Using")
        );
        let said = "  × No solution\n  ╰─▶ Because ours was not found in the package registry\n\nhint: An index URL (https://x) could not be queried (401 Unauthorized)";
        let error = install("requirements.txt", "x", &tail(said), &[asked("ours")]);
        assert!(error.hint.unwrap().contains("https://USER:TOKEN@HOST"), "{}", error.message);
        let said =
            "  × No solution\n  ╰─▶ Because there is no version of fastapi==99 and you require fastapi==99";
        let error = install("requirements.txt", "x", &tail(said), &[asked("fastapi==99")]);
        assert!(
            error.message.contains("`fastapi==99`:") && error.hint.unwrap().contains("change the version")
        );
        let error =
            install("requirements.txt", "x", &tail("error: No space left on device (os error 28)"), &[]);
        assert!(error.message.starts_with("the disk of the box is full"));
    }
}

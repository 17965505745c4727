//! The pre-flight: does the image's interpreter start, and does it find what the start command names? One short job in
//! the sandbox, with the release's image and variables and none of its volumes. Modules are found, never imported, so
//! that nothing of the app runs; what only running would show is left to the health gate.

use serde::Deserialize;
use trackbed_core::instance::Exit;
use trackbed_core::ports::{JobRunner, PortError, Preflight, PreflightRequest};

use crate::preflight;
use crate::python::command;

const CODE: &str = include_str!("preflight.py");
/// What the last line of the job begins with.
const MARK: &str = "TRACKBED-PREFLIGHT ";
/// Lines that a failure quotes.
const QUOTED: usize = 5;

/// What the job found.
#[derive(Debug, Deserialize)]
struct Found {
    python: String,
    problems: Vec<Problem>,
    looked: Vec<String>,
}

/// What is missing.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Problem {
    Program { what: String },
    Folder { what: String },
    File { what: String, near: Vec<String> },
    Module { what: String, part: String, r#where: String, near: Vec<String> },
    Package { what: String, part: String },
    Attribute { what: String, file: String, near: Vec<String> },
    Import { what: String, file: String, line: u32 },
    Syntax { file: String, line: Option<u32>, text: String, why: String },
}

/// Looks. Never fails for a reason of the box.
pub(crate) async fn run(jobs: &dyn JobRunner, request: PreflightRequest, warnings: Vec<String>) -> Preflight {
    let asks = command::read(&request.command);
    let Ok(ask) = serde_json::to_string(&asks) else {
        return Preflight::NotRun("the start command cannot be written down".to_owned());
    };
    let more = [("TRACKBED_PREFLIGHT_CODE", CODE.to_owned()), ("TRACKBED_PREFLIGHT_ASK", ask)];
    let command = "exec python -c \"$TRACKBED_PREFLIGHT_CODE\"".to_owned();
    match preflight::look(jobs, request, command, &more).await {
        Ok((exit, lines)) => judge(&exit, &lines, warnings),
        Err(reason) => Preflight::NotRun(reason),
    }
}

fn judge(exit: &Exit, lines: &[String], mut warnings: Vec<String>) -> Preflight {
    let found = lines.iter().rev().find_map(|line| line.strip_prefix(MARK));
    let Some(found) = found.and_then(|text| serde_json::from_str::<Found>(text).ok()) else {
        let tail = lines[lines.len().saturating_sub(QUOTED)..].join("\n");
        let error = PortError::new(format!("the image's Python does not start: it {exit}\n{tail}"));
        let hint = "was the box's Python removed or replaced? build anew: trackbed redeploy";
        return Preflight::Failed(PortError { hint: Some(hint.to_owned()), ..error });
    };
    if let Some(first) = found.problems.first() {
        return Preflight::Failed(explain(first));
    }
    warnings.retain(|warning| !warning.is_empty());
    let looked = match found.looked.is_empty() {
        true => String::new(),
        false => format!(", {} found", found.looked.join(", ")),
    };
    Preflight::Passed { found: format!("Python {} starts{looked}", found.python), warnings }
}

fn explain(problem: &Problem) -> PortError {
    let near = |names: &[String], what: &str| match names {
        [] => String::new(),
        names => format!("; {what}: {}", names.join(", ")),
    };
    let (message, hint) = match problem {
        Problem::Program { what } => (
            format!("the start command runs `{what}`, which is neither in the image nor on the box"),
            format!("is `{}` among the dependencies, and spelt right?", what.rsplit('/').next().unwrap_or(what)),
        ),
        Problem::Folder { what } => (
            format!("the start command enters the folder `{what}`, which is not in the source"),
            "mend the `cd` of the start command; is the folder ignored by .gitignore or .railwayignore?".to_owned(),
        ),
        Problem::File { what, near: names } => (
            format!(
                "the start command runs the file `{what}`, which is not in the source{}",
                near(names, "modules there")
            ),
            "mend the start command; is the file ignored by .gitignore or .railwayignore?".to_owned(),
        ),
        Problem::Module { what, part, r#where, near: names } => (
            format!(
                "the start command names the module `{what}`, but there is no `{part}` in {}{}",
                r#where,
                near(names, "modules there")
            ),
            "name the file that makes the application, with dots for folders: `app.main:app` for app/main.py; `cd` \
             into a folder first if its modules import each other from there"
                .to_owned(),
        ),
        Problem::Package { what, part } => (
            format!("the start command names the module `{what}`, but `{part}` is a file, not a folder"),
            format!("did you mean `{}:{}`?", part, what[part.len().min(what.len())..].trim_start_matches('.')),
        ),
        Problem::Attribute { what, file, near: names } => (
            format!("the start command names `{what}` in {file}, which has no such name{}", near(names, "it has")),
            "name the variable that holds the application, or the function that makes it".to_owned(),
        ),
        Problem::Import { what, file, line } => (
            format!("{file}:{line} imports `{what}`, which is neither in the source nor among the dependencies"),
            format!("add `{what}` to the requirements (its package may have another name)"),
        ),
        Problem::Syntax { file, line, text, why } => {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            let text = if text.is_empty() { String::new() } else { format!(": `{text}`") };
            (format!("{file}{line} is not valid Python: {why}{text}"), format!("mend {file}{line} and deploy again"))
        }
    };
    PortError::new(message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_that_does_not_start_is_quoted() {
        let lines = ["sh: 1: exec: python: not found".to_owned()];
        let Preflight::Failed(error) = judge(&Exit::Code { code: 127 }, &lines, Vec::new()) else {
            panic!("it must fail")
        };
        assert!(error.message.contains("exited with code 127") && error.message.contains("not found"));
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_explained() {
        let problem = Problem::Package { what: "main.app".into(), part: "main".into() };
        assert_eq!(explain(&problem).hint.as_deref(), Some("did you mean `main:app`?"));
    }
}

//! The Go provider: one program out of a module, built with the toolchain that `go.mod` asks for or a newer one.

use std::fs;
use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const MODULE: &str = "go.mod";
const BINARY: &str = ".trackbed/bin/app";

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Some(module) = text::find(look.source, MODULE)? else {
        let has_main = text::find(look.source, "main.go")?.is_some();
        return match has_main {
            true => Err(PortError::new("main.go is there, but no go.mod: Go builds modules only")
                .hint("run `go mod init app && go mod tidy` and commit go.mod and go.sum")),
            false => Ok(Found::No),
        };
    };
    let asks = asked(&module);
    let go = toolchain::choose(look.programs, Tool::Go, asks.as_ref())?;
    let own = draft.text(Key::BuildCommand);
    let package = package(look.source, draft)?;
    let program = own.as_deref().map_or_else(|| BINARY.to_owned(), |command| made_by(command, &module));
    give_start(draft, format!("exec ./{program}"), package.clone());
    let usual = || format!("go build -trimpath -ldflags='-w -s' -o {BINARY} {package}");
    let settings = vec![version_setting("go", &go, asks.as_ref())];
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![go.clone()],
        at_run: false,
        install: None,
        build: Some(own.unwrap_or_else(usual)),
        after: None,
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: pairs([
            ("GOCACHE", "{cache}/build"),
            ("GOMODCACHE", "{cache}/modules"),
            // What is on the box is used; another toolchain would be fetched without a checksum of ours.
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-modcacherw -buildvcs=false"),
        ]),
        env: pairs([("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    let place = place_of(asks.as_ref());
    let summary = format!("go {} ({place}), {MODULE}, {package}", go.version);
    Decided::of("go", summary, &recipe, settings)
}

/// The program that a build command of one's own makes: what `-o` names, else the last part of the package or module
/// (pkg.go.dev/cmd/go, "Compile packages and dependencies").
fn made_by(command: &str, module: &str) -> String {
    let command = command.rsplit("&&").find(|step| step.contains("go build")).unwrap_or(command);
    let words: Vec<&str> = command.split_whitespace().collect();
    let named = words.windows(2).find(|pair| pair[0] == "-o").map(|pair| pair[1]);
    let package = words.last().filter(|word| word.starts_with("./") && word.len() > 2).copied();
    let path = module.lines().find_map(|line| line.trim().strip_prefix("module ")).unwrap_or("app");
    let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).to_owned();
    named.map_or_else(|| last(package.unwrap_or(path)), |named| named.trim_start_matches("./").to_owned())
}

/// `go 1.22` means that version or a newer one (go.dev/ref/mod#go-mod-file-go).
fn asked(module: &str) -> Option<Asks> {
    let (number, line) = (1..).zip(module.lines()).find(|(_, line)| line.trim_start().starts_with("go "))?;
    let version = line.trim_start().trim_start_matches("go ").split_whitespace().next()?.to_owned();
    let range = Range::parse(&format!(">={version}"));
    Some(Asks { text: version, place: format!("{MODULE}:{number}"), range })
}

/// Finds the package that holds the program: the root, else the only one below `cmd`.
fn package(source: &Path, draft: &mut Draft) -> Result<String, PortError> {
    if is_program(source) {
        return Ok(".".to_owned());
    }
    let mut below: Vec<String> = fs::read_dir(source.join("cmd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_program(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    below.sort();
    if let Some(first) = below.first() {
        if below.len() > 1 {
            let message = format!(
                "`cmd` holds several programs ({}); {first} is built: set build.buildCommand if another is meant",
                below.join(", ")
            );
            draft.warn(MODULE, None, message);
        }
        return Ok(format!("./cmd/{first}"));
    }
    if draft.find(Key::BuildCommand).is_some() {
        return Ok(".".to_owned());
    }
    Err(PortError::new("found no program in this module: no `package main` at the root or below `cmd`")
        .hint(format!("say how it is built: build.buildCommand = \"go build -o {BINARY} ./path\"")))
}

/// Whether a folder holds a file that begins a program, tests apart.
fn is_program(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".go")
            && !name.ends_with("_test.go")
            && text::find(folder, &name).is_ok_and(|text| {
                text.is_some_and(|text| text.lines().any(|line| line.trim() == "package main"))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_command_tells_which_program_it_makes() {
        for (command, program) in [
            ("go build -o bin/web ./cmd/web", "bin/web"),
            ("go mod download && CGO_ENABLED=0 go build -o ./main .", "main"),
            ("go build ./cmd/api", "api"),
            ("go build", "shop"),
        ] {
            assert_eq!(made_by(command, "module example.com/me/shop\n\ngo 1.22\n"), program, "{command}");
        }
    }
}

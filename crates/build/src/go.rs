//! The Go provider: one program out of a module, built with the toolchain that `go.mod` asks for or a newer one.

use std::fs;
use std::path::Path;

use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, Given};
use crate::config::keys::{Key, Setting};
use crate::provider::{Decided, Found, Look};
use crate::range::Range;
use crate::steps::{RECIPE_VERSION, Recipe};
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
    let package = package(look.source, draft)?;
    let place = asks.as_ref().map_or("default", |asks| asks.place.as_str()).to_owned();
    if draft.find(Key::StartCommand).is_none() {
        draft.give(Given {
            key: Key::StartCommand,
            setting: Setting::Text(format!("exec ./{BINARY}")),
            origin: Origin::Detection,
            place: package.clone(),
        });
    }
    let own = format!("go build -trimpath -ldflags='-w -s' -o {BINARY} {package}");
    let settings = vec![PlannedSetting {
        key: "go.version".to_owned(),
        value: format!("{} ({})", go.version, go.path.display()),
        origin: if asks.is_some() { Origin::Detection } else { Origin::Default },
        place: place.clone(),
    }];
    let env = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![go.clone()],
        at_run: false,
        install: None,
        build: Some(draft.text(Key::BuildCommand).unwrap_or(own)),
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: env(&[
            ("GOCACHE", "{cache}/build"),
            ("GOMODCACHE", "{cache}/modules"),
            // What is on the box is used; another toolchain would be fetched without a checksum of ours.
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-modcacherw -buildvcs=false"),
        ]),
        env: env(&[("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    let summary = format!("go {} ({place}), {MODULE}, {package}", go.version);
    Decided::of("go", summary, &recipe, settings)
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

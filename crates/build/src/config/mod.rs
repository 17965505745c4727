//! The settings of a service: every file and flag that may say something, read in order of strength.
//!
//! One file per format; to read another one, write its reader and add it to [`READERS`].

pub(crate) mod draft;
mod formation;
pub(crate) mod json;
pub(crate) mod jsonc;
pub(crate) mod keys;
mod nixpacks;
mod platforms;
mod procfile;
mod railpack;
mod railway;
mod railway_notes;
pub(crate) mod resolve;
mod staticfile;
pub(crate) mod toml;
pub(crate) mod tree;
mod yaml;

use std::path::Path;

use trackbed_core::Secret;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::text;
use draft::{Draft, Given};
use keys::Key;

/// Reads a file of this name and text into a draft.
pub(crate) type Reader = fn(&str, &str, &mut Draft) -> Result<(), PortError>;

/// Files and who reads them.
const READERS: [(&str, Reader); 7] = [
    ("trackbed.toml", railway::read_toml),
    ("railway.json", railway::read_json),
    ("railway.toml", railway::read_toml),
    ("railpack.json", railpack::read),
    ("nixpacks.toml", nixpacks::read),
    ("Procfile", procfile::read),
    ("Staticfile", staticfile::read),
];

/// Returns whether a file at the root of a source is one of settings.
pub(crate) fn is_settings(name: &str) -> bool {
    files().any(|file| file == name)
}

/// Returns who reads a file of this name.
pub(crate) fn reader_of(name: &str) -> Option<Reader> {
    let known = READERS.iter().chain(&platforms::READERS).find(|(known, _)| *known == name);
    known.map(|(_, reader)| *reader)
}

/// Returns the names of all files that are read, ours first.
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    let own = READERS.iter().map(|(name, _)| *name);
    own.chain(platforms::READERS.iter().map(|(name, _)| *name))
}

/// Keys that `trackbed up` has a flag for.
const FLAGS: [(Key, &str); 3] = [
    (Key::StartCommand, "--start"),
    (Key::HealthPath, "--health-path"),
    (Key::HealthTimeout, "--health-timeout"),
];

/// Variables that are settings.
const VARIABLES: [(&str, Key); 6] = [
    ("RAILWAY_DOCKERFILE_PATH", Key::Dockerfile),
    ("RAILWAY_HEALTHCHECK_TIMEOUT_SEC", Key::HealthTimeout),
    ("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", Key::DrainTimeout),
    ("PORT", Key::Port),
    ("RAILPACK_SPA_OUTPUT_DIR", Key::StaticRoot),
    ("RAILPACK_STATIC_FILE_ROOT", Key::StaticRoot),
];

/// Variables that are settings on Railway and do nothing here.
const VARIABLES_NOT_USED: [(&str, &str); 3] = [
    (
        "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS",
        "the old release goes on until its last request is answered, at most for `drainingSeconds`",
    ),
    ("RAILWAY_RUN_UID", "each service runs as a user of its own that owns its volumes"),
    ("RAILWAY_SHM_SIZE_BYTES", "shared memory is bounded by the memory limit alone"),
];

/// Reads everything that can be said about a service, detection and defaults apart.
pub(crate) fn read(
    folder: &Path,
    overrides: &[(String, String)],
    stored: &[(String, String)],
    variables: &[(String, Secret<String>)],
) -> Result<Draft, PortError> {
    let mut draft = Draft::default();
    for (name, value) in overrides {
        let Some(key) = Key::find(name) else {
            let known: Vec<&str> = Key::all().map(Key::name).collect();
            return Err(PortError::new(format!("unknown setting `{name}`"))
                .hint(format!("known settings are {}", known.join(", "))));
        };
        let flag = FLAGS.iter().find(|(flagged, _)| *flagged == key);
        // A client of the API may give what no flag does.
        let place = flag.map_or_else(|| format!("override {name}"), |(_, flag)| (*flag).to_owned());
        let setting = key
            .parse(value)
            .map_err(|expected| PortError::new(format!("{place}: `{value}` is not {expected}")))?;
        draft.give(Given { key, setting, origin: Origin::Flag, place });
    }
    let railway_json = folder.join("railway.json").is_file();
    for (name, reader) in READERS {
        let elsewhere = if name == "nixpacks.toml" { draft.nixpacks_at.take() } else { None };
        let name = elsewhere.as_ref().map_or(name, |(path, _)| path);
        let Some(text) = text::find_settings(folder, name)? else {
            if let Some((path, place)) = elsewhere {
                draft.warn("", None, format!("{place}: there is no file {path}"));
            }
            continue;
        };
        if text.trim().is_empty() {
            draft.warn(name, None, "the file is empty, ignored");
            continue;
        }
        if name == "railway.toml" && railway_json {
            draft.warn(name, None, "railway.json is read before railway.toml, value by value");
        }
        reader(name, &text, &mut draft)?;
    }
    tell_of_programs(folder, &mut draft);
    platforms::read(folder, &mut draft);
    for (name, value) in variables {
        if let Some((_, what)) = VARIABLES_NOT_USED.iter().find(|(variable, _)| variable == name) {
            draft.warn("", None, format!("variable {name} is not used: {what}"));
        }
        let Some((_, key)) = VARIABLES.iter().find(|(variable, _)| variable == name) else { continue };
        match key.parse(value.expose()) {
            Ok(setting) => draft.give(Given {
                key: *key,
                setting,
                origin: Origin::Stored,
                place: format!("variable {name}"),
            }),
            Err(expected) => draft.warn("", None, format!("variable {name} is not {expected}, ignored")),
        }
    }
    for (name, value) in stored {
        if let Some(process) = name.strip_prefix(formation::STORED_PREFIX) {
            match (process.parse(), formation::parse_count(value)) {
                (Ok(process), Ok(count)) => draft.counts.push(formation::Counted {
                    name: process,
                    count,
                    origin: Origin::Stored,
                    place: "trackbed scale".to_owned(),
                }),
                _ => draft.warn("", None, format!("stored setting {name} is `{value}`; ignored")),
            }
            continue;
        }
        match Key::find(name).map(|key| (key, key.parse(value))) {
            Some((key, Ok(setting))) => {
                let place = format!("stored {name}");
                draft.give(Given { key, setting, origin: Origin::Stored, place });
            }
            Some((_, Err(expected))) => {
                draft.warn("", None, format!("stored setting {name} is `{value}`, not {expected}; ignored"));
            }
            None => draft.warn("", None, format!("stored setting {name} is unknown, ignored")),
        }
    }
    Ok(draft)
}

/// Tells of settings that are the outcome of a program (docs.railway.com/infrastructure-as-code), which is not run. Where a
/// file of plain settings stands beside it, nothing is missing.
fn tell_of_programs(folder: &Path, draft: &mut Draft) {
    if ["trackbed.toml", "railway.json", "railway.toml"].iter().any(|name| folder.join(name).is_file()) {
        return;
    }
    let programs = [".railway/railway.ts", ".railway/railway.py", ".railway/railway.go"];
    for name in programs.into_iter().filter(|name| folder.join(name).is_file()) {
        let message = "is a program for Railway's CLI and is not read: `trackbed import railway` brings what it has set there";
        draft.warn(name, None, message);
    }
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;

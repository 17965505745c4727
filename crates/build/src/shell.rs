//! The shell provider: a source that says itself how it starts, by `start.sh` or a start command, and needs no build.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, Given};
use crate::config::keys::{Key, Setting};
use crate::provider::{Decided, Found, Look};
use crate::steps::{RECIPE_VERSION, Recipe};

const SCRIPT: &str = "start.sh";

/// Finds a script to start.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let has_script = look.source.join(SCRIPT).is_file();
    if !has_script {
        return Ok(Found::No);
    }
    if draft.find(Key::StartCommand).is_none() {
        draft.give(Given {
            key: Key::StartCommand,
            setting: Setting::Text(format!("exec sh ./{SCRIPT}")),
            origin: Origin::Detection,
            place: SCRIPT.to_owned(),
        });
    }
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: Vec::new(),
        at_run: false,
        install: None,
        build: draft.text(Key::BuildCommand),
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: Vec::new(),
        env: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
        path: Vec::new(),
    };
    Decided::of("shell", format!("shell, {SCRIPT}"), &recipe, Vec::new())
}

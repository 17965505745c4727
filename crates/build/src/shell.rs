//! The shell provider: a source that says itself how it starts, by `start.sh` or a start command, and needs no build.

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::provider::{Decided, Found, Look, give_start};
use crate::steps::{RECIPE_VERSION, Recipe, pairs};

const SCRIPT: &str = "start.sh";

/// Finds a script to start.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let has_script = look.source.join(SCRIPT).is_file();
    if !has_script {
        return Ok(Found::No);
    }
    give_start(draft, format!("exec sh ./{SCRIPT}"), SCRIPT);
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: Vec::new(),
        at_run: false,
        install: None,
        build: draft.text(Key::BuildCommand),
        after: None,
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: Vec::new(),
        env: pairs([("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    Decided::of("shell", format!("shell, {SCRIPT}"), &recipe, Vec::new())
}

//! The Deno provider: a source with `deno.json`; its packages are fetched at build time, from the lock where there is one.

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::jsonc;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::steps::{RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const MANIFESTS: [&str; 2] = ["deno.json", "deno.jsonc"];
/// Where packages are, seen from the app.
const PACKAGES: &str = ".trackbed/deno";
/// Main files, the most usual first.
const MAINS: [&str; 8] =
    ["main.ts", "server.ts", "mod.ts", "index.ts", "src/main.ts", "src/server.ts", "src/index.ts", "main.js"];

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let mut found = None;
    for file in MANIFESTS {
        if let Some(text) = text::find(look.source, file)? {
            found = Some((file, jsonc::parse(file, &text)?));
            break;
        }
    }
    let Some((file, tree)) = found else { return Ok(Found::No) };
    let asks: Option<Asks> = toolchain::tool_versions(look.source, &["deno"])?;
    let deno = toolchain::choose(look.programs, Tool::Deno, asks.as_ref())?;
    let main = MAINS.into_iter().find(|main| look.source.join(main).is_file());
    if draft.find(Key::StartCommand).is_none() {
        let (command, place) = start(file, &tree, main)?;
        give_start(draft, command, place);
    }
    let locked = look.source.join("deno.lock").is_file();
    if !locked {
        let message = "there is no deno.lock: every build takes the newest versions that fit; commit one (`deno install`)";
        draft.warn(file, None, message);
    }
    let task = tree.get("tasks").and_then(|tasks| tasks.get("build")).is_some();
    let frozen = if locked { " --frozen" } else { "" };
    // Into the cache, which stays, and from there into the app.
    let mut steps: Vec<String> = main.map(|main| format!("deno cache{frozen} {main}")).into_iter().collect();
    steps.extend(draft.text(Key::BuildCommand).or_else(|| task.then(|| "deno task build".to_owned())));
    let settings = vec![version_setting("deno", &deno, asks.as_ref())];
    let from = if locked { "deno.lock" } else { file };
    let summary = format!("deno {} ({}), {from}", deno.version, place_of(asks.as_ref()));
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![deno],
        at_run: true,
        install: None,
        build: (!steps.is_empty()).then(|| steps.join("\n")),
        after: Some(format!("mkdir -p {PACKAGES}\ncp -R \"$DENO_DIR/.\" {PACKAGES}")),
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: pairs([("DENO_DIR", "{cache}"), ("DENO_NO_UPDATE_CHECK", "1")]),
        env: pairs([("DENO_DIR", "/app/.trackbed/deno"), ("DENO_NO_UPDATE_CHECK", "1"), ("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    Decided::of("deno", summary, &recipe, settings)
}

/// The task `start`, else the main file. What an app may do is decided by its sandbox, not by its own flags.
fn start(file: &str, tree: &Node, main: Option<&str>) -> Result<(String, String), PortError> {
    if let Some(task) = tree.get("tasks").and_then(|tasks| tasks.member("start")) {
        return Ok(("deno task start".to_owned(), format!("{file}:{}", task.place.line)));
    }
    let Some(main) = main else {
        return Err(PortError::new(format!(
            "found no way to start this source: {file} has no task `start`, and there is none of {}",
            MAINS.join(", ")
        ))
        .hint("add a task `start`, or say it: trackbed up --start 'deno run --allow-all app.ts'"));
    };
    Ok((format!("exec deno run --allow-all {main}"), main.to_owned()))
}

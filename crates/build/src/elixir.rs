//! The Elixir provider: a release made by Mix, which brings its own Erlang; Phoenix with its assets.

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const PROJECT: &str = "mix.exs";
const RELEASE: &str = ".trackbed/release";

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Some(project) = text::find(look.source, PROJECT)? else { return Ok(Found::No) };
    let asks = asked(look, &project)?;
    let elixir = toolchain::choose(look.programs, Tool::Elixir, asks.as_ref())?;
    let named = release(&project);
    if draft.find(Key::StartCommand).is_none() {
        let Some((name, line)) = &named else {
            return Err(PortError::new(
                "mix.exs names neither `app:` nor a release, so nothing says what is started",
            )
            .hint("name one in `releases:`, or say it: build.buildCommand and deploy.startCommand"));
        };
        give_start(draft, format!("exec ./{RELEASE}/bin/{name} start"), format!("{PROJECT}:{line}"));
    }
    let locked = look.source.join("mix.lock").is_file();
    let mut steps: Vec<String> = Vec::new();
    if locked {
        steps.push("mix local.hex --force --if-missing\nmix local.rebar --force --if-missing".to_owned());
        steps.push("mix deps.get --only prod --check-locked".to_owned());
    } else {
        steps.push("mix deps.get --only prod".to_owned());
        if project.contains("{:") {
            draft.warn(
                PROJECT,
                None,
                "there is no mix.lock: every build takes the newest versions that fit; commit one",
            );
        }
    }
    match draft.text(Key::BuildCommand) {
        Some(command) => steps.push(command),
        None => {
            steps.push("mix compile".to_owned());
            if project.contains("\"assets.deploy\"") {
                steps.push("mix assets.deploy".to_owned());
            }
            let name = named.map(|(name, _)| format!(" {name}")).unwrap_or_default();
            let name = if project.contains("releases:") { name } else { String::new() };
            steps.push(format!("mix release{name} --overwrite --path {RELEASE}"));
        }
    }
    let settings = vec![version_setting("elixir", &elixir, asks.as_ref())];
    let list = if locked { "mix.lock" } else { PROJECT };
    let summary = format!("elixir {} ({}), {list}", elixir.version, place_of(asks.as_ref()));
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![elixir],
        at_run: false,
        install: None,
        build: Some(steps.join("\n")),
        after: None,
        drop: Vec::new(),
        secrets: Vec::new(),
        // What is compiled stays in the cache; only the release belongs to the app.
        build_env: pairs([
            ("MIX_ENV", "prod"),
            ("MIX_HOME", "{cache}/mix"),
            ("HEX_HOME", "{cache}/hex"),
            ("MIX_DEPS_PATH", "{cache}/deps"),
            ("MIX_BUILD_ROOT", "{cache}/build"),
        ]),
        env: pairs([("PHX_SERVER", "true"), ("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    Decided::of("elixir", summary, &recipe, settings)
}

/// Finds the name of the release: the first in `releases:`, else the app; with its line.
fn release(project: &str) -> Option<(String, usize)> {
    let mut in_releases = false;
    let mut app = None;
    for (number, line) in (1..).zip(project.lines()) {
        let line = line.trim();
        if in_releases {
            let name = line.split(':').next().unwrap_or_default();
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if is_name { Some((name.to_owned(), number)) } else { app };
        }
        if let Some(name) = line.strip_prefix("app: :") {
            let name = name.trim_end_matches(',').trim();
            app = app.or_else(|| Some((name.to_owned(), number)));
        }
        in_releases = line.ends_with("releases: [");
    }
    app
}

fn asked(look: Look<'_>, project: &str) -> Result<Option<Asks>, PortError> {
    let named = (1..).zip(project.lines()).find_map(|(number, line)| {
        let text = line.trim().strip_prefix("elixir: \"")?.split('"').next()?.to_owned();
        Some(Asks { range: Range::parse_pessimistic(&text), place: format!("{PROJECT}:{number}"), text })
    });
    match named {
        Some(asks) => Ok(Some(asks)),
        None => toolchain::tool_versions(look.source, &["elixir"]),
    }
}

//! The Node provider: package manager by lock file, runtime by what the source asks for, start command by scripts and
//! framework.

mod manager;
mod start;

use std::path::Path;

use trackbed_core::plan::PlannedSetting;
use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, Given};
use crate::config::json;
use crate::config::keys::{Key, Setting};
use crate::config::tree::Node;
use crate::provider::{Decided, Found, Look};
use crate::range::Range;
use crate::steps::{Install, RECIPE_VERSION, Recipe};
use crate::text;
use crate::toolchain::{self, Asks, Tool};
use manager::Manager;

const PACKAGE: &str = "package.json";

/// What `package.json` says, as far as it matters here.
pub(crate) struct Package<'a> {
    source: &'a Path,
    tree: &'a Node,
}

impl Package<'_> {
    /// Returns a script.
    fn script(&self, name: &str) -> Option<(&str, String)> {
        let member = self.tree.get("scripts")?.member(name)?;
        Some((member.node.text()?, format!("{PACKAGE}:{}", member.place.line)))
    }

    /// Returns whether a package is among the dependencies, those for development included.
    fn has(&self, name: &str) -> bool {
        let lists = ["dependencies", "devDependencies", "optionalDependencies"];
        lists.iter().any(|list| self.tree.get(list).is_some_and(|list| list.get(name).is_some()))
    }

    fn has_file(&self, path: &str) -> bool {
        self.source.join(path).is_file()
    }

    fn is_empty(&self) -> bool {
        let lists = ["dependencies", "devDependencies", "optionalDependencies", "workspaces"];
        lists.iter().all(|list| {
            self.tree.get(list).is_none_or(|list| list.members().is_empty() && list.items().is_empty())
        })
    }
}

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Some(text) = text::find(look.source, PACKAGE)? else { return Ok(Found::No) };
    let tree = json::parse(PACKAGE, &text)?;
    let package = Package { source: look.source, tree: &tree };
    let manager = Manager::of(&package);
    let asks = asked(&package)?;
    let runtime = if manager == Manager::Bun && asks.is_none() { Tool::Bun } else { Tool::Node };
    let node = toolchain::choose(look.programs, runtime, asks.as_ref())?;
    let mut programs = vec![node.clone()];
    if manager.tool() != runtime {
        // The one that came with the chosen Node first.
        let all = look.programs.list(manager.tool());
        let beside = all.iter().find(|program| program.folder() == node.folder()).cloned();
        programs.push(match beside {
            Some(program) => program,
            None => toolchain::choose(look.programs, manager.tool(), None)?,
        });
    }
    find_start(&package, manager, runtime, draft)?;
    let build = match draft.text(Key::BuildCommand) {
        Some(command) => Some(command).filter(|command| !manager.only_installs(command)),
        None => package.script("build").map(|_| manager.run("build")),
    };
    let install = (!package.is_empty()).then(|| Install {
        reads: manager.reads(look.source),
        command: manager.install(look.source, build.is_some()),
        makes: "node_modules".to_owned(),
    });
    let place = asks.as_ref().map_or("default", |asks| asks.place.as_str()).to_owned();
    let settings = vec![PlannedSetting {
        key: format!("{}.version", runtime.program()),
        value: format!("{} ({})", node.version, node.path.display()),
        origin: if asks.is_some() { Origin::Detection } else { Origin::Default },
        place: place.clone(),
    }];
    if install.is_some() && manager.lock(look.source).is_none() {
        let message = format!(
            "there is no lock file: every build takes the newest versions that {PACKAGE} allows; commit one (`{}`)",
            manager.run_install()
        );
        draft.warn(PACKAGE, None, message);
    }
    let title = runtime.program();
    let from = match &install {
        Some(_) => format!("{}, {}", manager.lock(look.source).unwrap_or(PACKAGE), manager.tool().program()),
        None => "no dependencies".to_owned(),
    };
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs,
        at_run: true,
        install,
        build,
        drop: vec!["node_modules/.cache".to_owned()],
        secrets: secrets(look.source)?,
        build_env: manager.environment(),
        env: vec![
            ("NODE_ENV".to_owned(), "production".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ],
        path: vec!["node_modules/.bin".to_owned()],
    };
    Decided::of("node", format!("{title} {} ({place}), {from}", node.version), &recipe, settings)
}

fn find_start(
    package: &Package<'_>,
    manager: Manager,
    runtime: Tool,
    draft: &mut Draft,
) -> Result<(), PortError> {
    if draft.find(Key::StartCommand).is_some() {
        return Ok(());
    }
    let found = start::find(package, manager, runtime)?;
    if let Some(warning) = found.warning {
        draft.warn(PACKAGE, None, warning);
    }
    draft.give(Given {
        key: Key::StartCommand,
        setting: Setting::Text(found.command),
        origin: Origin::Detection,
        place: found.place,
    });
    Ok(())
}

/// What the source asks of Node, the most explicit first.
fn asked(package: &Package<'_>) -> Result<Option<Asks>, PortError> {
    for file in [".nvmrc", ".node-version"] {
        if let Some(text) = text::find(package.source, file)? {
            let text = text.lines().next().unwrap_or_default().trim().to_owned();
            if !text.is_empty() {
                return Ok(Some(Asks { range: Range::parse(&text), place: format!("{file}:1"), text }));
            }
        }
    }
    let Some(member) = package.tree.get("engines").and_then(|engines| engines.member("node")) else {
        return Ok(None);
    };
    let Some(text) = member.node.text() else { return Ok(None) };
    let place = format!("{PACKAGE}:{}", member.place.line);
    Ok(Some(Asks { text: text.to_owned(), place, range: Range::parse(text) }))
}

/// The variables that the configuration of a package manager names, such as `${NPM_TOKEN}`: an install gets these of the
/// service's, and no others.
fn secrets(source: &Path) -> Result<Vec<String>, PortError> {
    let mut names = Vec::new();
    for file in [".npmrc", ".yarnrc.yml", "bunfig.toml"] {
        let text = text::find(source, file)?.unwrap_or_default();
        for part in text.split("${").skip(1) {
            let name = part.split(['}', ':', '-']).next().unwrap_or_default();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

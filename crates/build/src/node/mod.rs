//! The Node provider: package manager by lock file, runtime by what the source asks for, start command by scripts and
//! framework.

mod manager;
mod site;
mod start;

use std::path::Path;

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::json;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{Install, RECIPE_VERSION, Recipe, pairs};
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

    /// Returns whether an install reads more of the source than lists and lock: packages that lie in it, or scripts of
    /// its own, such as one that generates code.
    fn needs_source(&self) -> bool {
        let lists = ["dependencies", "devDependencies", "optionalDependencies"];
        let local =
            lists.iter().filter_map(|list| self.tree.get(list)).flat_map(Node::members).any(|member| {
                let said = member.node.text().unwrap_or_default();
                ["file:", "link:", "portal:", "workspace:", "./", "../"]
                    .iter()
                    .any(|start| said.starts_with(start))
            });
        let scripts = ["preinstall", "install", "postinstall", "prepare"];
        let generates = scripts.iter().any(|name| self.script(name).is_some()) || self.has("@prisma/client");
        let workspaces = self.tree.get("workspaces").is_some() || self.has_file("pnpm-workspace.yaml");
        // A Yarn that lies in the source.
        let own_yarn = text::find(self.source, ".yarnrc.yml")
            .ok()
            .flatten()
            .is_some_and(|text| text.contains("yarnPath:"));
        local || generates || workspaces || own_yarn || self.source.join(".yarn/patches").is_dir()
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
    let mut way = None;
    if manager.tool() != runtime {
        let here = !look.programs.list(manager.tool()).is_empty();
        way = if here { None } else { manager.by_npm(&package) };
        let tool = if way.is_some() { Tool::Npm } else { manager.tool() };
        // The one that came with the chosen Node first.
        programs.push(toolchain::choose_beside(look.programs, tool, &node)?);
    }
    let build = match draft.text(Key::BuildCommand) {
        Some(command) => manager.without_installs(&command),
        None => package.script("build").map(|_| manager.run("build")),
    };
    let site = site::find(&package, build.as_deref(), draft)?;
    if site.is_none() {
        // npm runs everybody's scripts, and is what the app will have.
        find_start(&package, if way.is_some() { Manager::Npm } else { manager }, runtime, draft)?;
    }
    let command = manager.install(look.source, build.is_some());
    let (install, build) = match (package.is_empty(), package.needs_source()) {
        (true, _) => (None, build),
        // Packages of the source, and scripts that read it, are there only with the source.
        (false, true) => (None, Some(build.map_or(command.clone(), |build| format!("{command}\n{build}")))),
        (false, false) => {
            let reads = manager.reads(look.source);
            (Some(Install { reads, command, makes: "node_modules".to_owned() }), build)
        }
    };
    let (install, build) = match &way {
        None => (install, build),
        Some(way) => {
            let called = |command: String| manager.called(&command, way);
            let install = install.map(|install| Install { command: called(install.command), ..install });
            (install, build.map(called))
        }
    };
    let settings = vec![version_setting(runtime.program(), &node, asks.as_ref())];
    if !package.is_empty() && manager.lock(look.source).is_none() {
        let message = format!(
            "there is no lock file: every build takes the newest versions that {PACKAGE} allows; commit one (`{}`)",
            manager.run_install()
        );
        draft.warn(PACKAGE, None, message);
    }
    let title = runtime.program();
    let from = match package.is_empty() {
        true => "no dependencies".to_owned(),
        false => format!("{}, {}", manager.lock(look.source).unwrap_or(PACKAGE), manager.tool().program()),
    };
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs,
        // A site runs nothing but, if asked to, the command before its start.
        at_run: site.is_none() || draft.find(Key::PreDeploy).is_some(),
        install,
        build,
        after: None,
        drop: vec!["node_modules/.cache".to_owned()],
        secrets: secrets(look.source)?,
        build_env: manager.environment(),
        env: pairs([("NODE_ENV", "production"), ("LANG", "C.UTF-8")]),
        path: vec!["node_modules/.bin".to_owned()],
    };
    let place = place_of(asks.as_ref());
    let summary = format!("{title} {} ({place}), {from}", node.version);
    match site {
        Some(output) => output.built_by(recipe).decided(&summary, settings, draft),
        None => Decided::of("node", summary, &recipe, settings),
    }
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
    give_start(draft, found.command, found.place);
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

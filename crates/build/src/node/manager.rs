//! Package managers of Node: which one a source uses, and how it installs from a lock file without changing it.

use std::path::Path;

use crate::config::tree::Node;
use crate::node::Package;
use crate::toolchain::Tool;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Npm,
    Pnpm,
    /// Yarn 1.
    YarnClassic,
    /// Yarn 2 and later.
    YarnBerry,
    Bun,
}

/// Lock files, the most telling first.
const LOCKS: [(&str, Manager); 6] = [
    ("pnpm-lock.yaml", Manager::Pnpm),
    ("bun.lock", Manager::Bun),
    ("bun.lockb", Manager::Bun),
    ("yarn.lock", Manager::YarnClassic),
    ("package-lock.json", Manager::Npm),
    ("npm-shrinkwrap.json", Manager::Npm),
];
/// Further files that an install reads.
const READ: [&str; 6] =
    [".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml", ".pnpmfile.cjs", "bunfig.toml"];

impl Manager {
    /// Goes by the `packageManager` field, then by the lock file; npm when nothing says anything.
    pub(super) fn of(package: &Package<'_>) -> Manager {
        let field = package.tree.get("packageManager").and_then(Node::text).unwrap_or_default();
        let berry = package.has_file(".yarnrc.yml");
        let named = match field.split('@').next().unwrap_or_default() {
            "npm" => Some(Manager::Npm),
            "pnpm" => Some(Manager::Pnpm),
            "bun" => Some(Manager::Bun),
            "yarn" if field.starts_with("yarn@1") => Some(Manager::YarnClassic),
            "yarn" => Some(Manager::YarnBerry),
            _ => None,
        };
        let locked = LOCKS.iter().find(|(file, _)| package.has_file(file)).map(|(_, manager)| *manager);
        match named.or(locked).unwrap_or(Manager::Npm) {
            Manager::YarnClassic if berry && named.is_none() => Manager::YarnBerry,
            manager => manager,
        }
    }

    pub(super) fn tool(self) -> Tool {
        match self {
            Manager::Npm => Tool::Npm,
            Manager::Pnpm => Tool::Pnpm,
            Manager::YarnClassic | Manager::YarnBerry => Tool::Yarn,
            Manager::Bun => Tool::Bun,
        }
    }

    /// Returns the lock file of a source.
    pub(super) fn lock(self, source: &Path) -> Option<&'static str> {
        let own = |(_, manager): &&(&str, Manager)| manager.tool() == self.tool();
        LOCKS.iter().filter(own).map(|(file, _)| *file).find(|file| source.join(file).is_file())
    }

    /// Returns the files that an install reads.
    pub(super) fn reads(self, source: &Path) -> Vec<String> {
        let files = ["package.json"].into_iter().chain(self.lock(source)).chain(READ);
        files.filter(|file| source.join(file).is_file()).map(str::to_owned).collect()
    }

    /// Returns the command that installs: exactly what the lock file says, where there is one. Packages for
    /// development are left out when nothing is built.
    pub(super) fn install(self, source: &Path, builds: bool) -> String {
        let locked = self.lock(source).is_some();
        match self {
            Manager::Npm => {
                let verb = if locked { "npm ci" } else { "npm install" };
                let omit = if builds { " --include=dev" } else { " --omit=dev" };
                format!("{verb}{omit} --no-audit --no-fund")
            }
            Manager::Pnpm => {
                let frozen = if locked { " --frozen-lockfile" } else { "" };
                let omit = if builds { " --prod=false" } else { " --prod" };
                format!("pnpm install{frozen}{omit}")
            }
            Manager::YarnClassic => {
                let frozen = if locked { " --frozen-lockfile" } else { "" };
                let omit = if builds { " --production=false" } else { " --production=true" };
                format!("yarn install{frozen}{omit} --non-interactive")
            }
            Manager::YarnBerry => if locked { "yarn install --immutable" } else { "yarn install" }.to_owned(),
            Manager::Bun => {
                let frozen = if locked { " --frozen-lockfile" } else { "" };
                let omit = if builds { "" } else { " --production" };
                format!("bun install{frozen}{omit}")
            }
        }
    }

    /// Returns the command that makes a lock file.
    pub(super) fn run_install(self) -> &'static str {
        match self {
            Manager::Npm => "npm install",
            Manager::Pnpm => "pnpm install",
            Manager::YarnClassic | Manager::YarnBerry => "yarn install",
            Manager::Bun => "bun install",
        }
    }

    /// Returns the command that runs a script.
    pub(super) fn run(self, script: &str) -> String {
        format!("{} run {script}", self.tool().program())
    }

    /// Returns a build command without what was done already: installs that it begins with.
    pub(super) fn without_installs(self, command: &str) -> Option<String> {
        let done = [
            "npm install",
            "npm ci",
            "npm i",
            "pnpm install",
            "pnpm install --frozen-lockfile",
            "pnpm i",
            "yarn",
            "yarn install",
            "yarn install --frozen-lockfile",
            "bun install",
        ];
        let steps: Vec<&str> =
            command.split("&&").map(str::trim).skip_while(|step| done.contains(step)).collect();
        (!steps.is_empty()).then(|| steps.join(" && "))
    }

    /// Returns the environment of its commands.
    pub(super) fn environment(self) -> Vec<(String, String)> {
        let own: &[(&str, &str)] = match self {
            Manager::Npm => &[("npm_config_cache", "{cache}"), ("npm_config_update_notifier", "false")],
            // A link out of the layer would lead nowhere: files are copied from the store.
            Manager::Pnpm => {
                &[("npm_config_store_dir", "{cache}"), ("npm_config_package_import_method", "copy")]
            }
            Manager::YarnClassic => &[("YARN_CACHE_FOLDER", "{cache}")],
            // Plug'n'Play would leave no `node_modules` to take.
            Manager::YarnBerry => &[
                ("YARN_CACHE_FOLDER", "{cache}"),
                ("YARN_ENABLE_GLOBAL_CACHE", "false"),
                ("YARN_NODE_LINKER", "node-modules"),
            ],
            Manager::Bun => &[("BUN_INSTALL_CACHE_DIR", "{cache}")],
        };
        own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_installed_already_is_not_installed_again() {
        let rest = |command| Manager::Npm.without_installs(command);
        assert_eq!(rest("npm ci && npm run build"), Some("npm run build".to_owned()));
        assert_eq!(rest("yarn install"), None);
        let elsewhere = "cd web && npm install && npm run build";
        assert_eq!(rest(elsewhere), Some(elsewhere.to_owned()));
    }
}

//! Reads `railway.json` and `railway.toml`, and `trackbed.toml`, which has the same tables and some of its own.
//!
//! Keys and their meaning: docs.railway.com/config-as-code/reference. Values of `environments.production` win over the base.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File, expect_table};
use crate::config::keys::{Key, Setting};
use crate::config::railway_notes::{self, Table};
use crate::config::tree::{Member, Node, Value, malformed};
use crate::config::{formation, json, nixpacks, toml};

/// The environment whose overrides apply.
const ENVIRONMENT: &str = "production";
/// Keys of `build` that are settings.
const BUILD: [(&str, Key); 8] = [
    ("builder", Key::Builder),
    ("buildCommand", Key::BuildCommand),
    ("command", Key::BuildCommand),
    ("dockerfilePath", Key::Dockerfile),
    ("dockerfile", Key::Dockerfile),
    ("dockerfileTarget", Key::DockerfileTarget),
    ("target", Key::DockerfileTarget),
    ("image", Key::Image),
];
/// Keys of `deploy` that are settings, Railway's first.
const DEPLOY: [&str; 17] = [
    "startCommand",
    "healthcheckPath",
    "healthcheckTimeout",
    "restartPolicyType",
    "restartPolicyMaxRetries",
    "drainingSeconds",
    "requiredMountPath",
    "cronSchedule",
    "port",
    "stopGraceSeconds",
    "drainSeconds",
    "holdSeconds",
    "handover",
    "shared",
    "rehearse",
    "preDeployTrial",
    "pre_deploy_trial",
];
/// Keys of `deploy` that hold a command or a list of them.
const PRE_DEPLOY: [&str; 2] = ["preDeployCommand", "pre_deploy"];
/// Builders whose work is done by detection here, and by the container engine of the box.
const BUILDERS: [&str; 3] = ["RAILPACK", "NIXPACKS", "DOCKERFILE"];

/// Reads `railway.json`.
pub(crate) fn read_json(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    read(File { name, origin: Origin::Railway }, &json::parse(name, text)?, draft)
}

/// Reads `railway.toml` or `trackbed.toml`.
pub(crate) fn read_toml(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let origin = if name == "trackbed.toml" { Origin::TrackbedToml } else { Origin::Railway };
    read(File { name, origin }, &toml::parse(name, text)?, draft)
}

fn read(file: File<'_>, tree: &Node, draft: &mut Draft) -> Result<(), PortError> {
    if !matches!(tree.value, Value::Table(_)) {
        return Err(malformed(file.name, tree.place, format!("expected `{{`, found {}", tree.value)));
    }
    if let Some(environments) = tree.member("environments") {
        expect_table(file.name, environments)?;
        for environment in environments.node.members() {
            read_environment(file, environment, draft)?;
        }
    }
    read_tables(file, tree, draft)?;
    if let Some(volumes) = tree.member("volumes") {
        draft.take_volumes(file, volumes)?;
    }
    if let Some(limits) = tree.member("limits") {
        expect_table(file.name, limits)?;
        for (name, key) in [("memory", Key::Memory), ("cpu", Key::Cpu)] {
            if let Some(member) = limits.node.member(name) {
                draft.take(file, key, member)?;
            }
        }
        draft.unknown(file, &limits.node, &["memory", "cpu"], &[], "limits.");
    }
    read_variables(file, tree, "variables", draft);
    let mut read = vec!["build", "deploy", "environments", "volumes", "limits", "variables"];
    if file.origin == Origin::TrackbedToml {
        if let Some(processes) = tree.member("processes") {
            formation::read_table(file, processes, draft)?;
        }
        read_static(file, tree, draft)?;
        read.extend(["processes", "static"]);
    }
    draft.unknown(file, tree, &read, &["$schema"], "");
    Ok(())
}

/// Where the files of a static site are, and what is answered where none is.
fn read_static(file: File<'_>, tree: &Node, draft: &mut Draft) -> Result<(), PortError> {
    let Some(site) = tree.member("static") else { return Ok(()) };
    expect_table(file.name, site)?;
    for (name, key) in [("root", Key::StaticRoot), ("spa", Key::StaticSpa)] {
        if let Some(member) = site.node.member(name) {
            draft.take(file, key, member)?;
        }
    }
    draft.unknown(file, &site.node, &["root", "spa"], &[], "static.");
    Ok(())
}

/// There is one environment. What a file says of others, those of pull requests included, applies to none.
fn read_environment(file: File<'_>, member: &Member, draft: &mut Draft) -> Result<(), PortError> {
    let title = &member.key;
    if title != ENVIRONMENT {
        if member.node.value != Value::Null {
            let title = crate::config::tree::brief(title);
            let message =
                format!("`environments.{title}` applies to nothing: a service here is in `{ENVIRONMENT}`");
            draft.warn(file.name, Some(member.place.line), message);
        }
        return Ok(());
    }
    if member.node.value == Value::Null {
        return Ok(());
    }
    expect_table(file.name, member)?;
    read_tables(file, &member.node, draft)?;
    read_variables(file, &member.node, "environments.production.variables", draft);
    draft.unknown(file, &member.node, &["build", "deploy", "variables"], &[], "environments.production.");
    Ok(())
}

/// Railway reads no variables from its files, so those that stand there were never set.
fn read_variables(file: File<'_>, tree: &Node, path: &str, draft: &mut Draft) {
    let Some(member) = tree.member("variables") else { return };
    if file.origin == Origin::TrackbedToml {
        return draft.declare_table(file, &member.node);
    }
    let message = format!("`{path}` is not read, as on Railway: `trackbed variables set` sets them");
    draft.warn(file.name, Some(member.place.line), message);
}

fn read_tables(file: File<'_>, tree: &Node, draft: &mut Draft) -> Result<(), PortError> {
    if let Some(build) = tree.member("build") {
        expect_table(file.name, build)?;
        read_build(file, &build.node, draft)?;
    }
    let Some(deploy) = tree.member("deploy") else { return Ok(()) };
    expect_table(file.name, deploy)?;
    for name in DEPLOY {
        let key = Key::find(&format!("deploy.{name}"));
        if let (Some(key), Some(member)) = (key, deploy.node.member(name)) {
            draft.take(file, key, member)?;
        }
    }
    for name in PRE_DEPLOY {
        if let Some(member) = deploy.node.member(name) {
            draft.take_commands(file, Key::PreDeploy, member)?;
        }
    }
    let mut read = [&DEPLOY[..], &PRE_DEPLOY].concat();
    if let Some(limit) = deploy.node.member("limitOverride") {
        expect_table(file.name, limit)?;
        read.push("limitOverride");
        if let Some(containers) = limit.node.member("containers") {
            expect_table(file.name, containers)?;
            for (name, key) in [("memoryBytes", Key::Memory), ("cpu", Key::Cpu)] {
                if let Some(member) = containers.node.member(name) {
                    draft.take(file, key, member)?;
                }
            }
            railway_notes::tell(file, &containers.node, Table::Containers, draft);
            let prefix = "deploy.limitOverride.containers.";
            let noted = railway_notes::keys(Table::Containers);
            draft.unknown(file, &containers.node, &["memoryBytes", "cpu"], &noted, prefix);
        }
        draft.unknown(file, &limit.node, &["containers"], &[], "deploy.limitOverride.");
    }
    railway_notes::tell(file, &deploy.node, Table::Deploy, draft);
    draft.unknown(file, &deploy.node, &read, &railway_notes::keys(Table::Deploy), "deploy.");
    Ok(())
}

fn read_build(file: File<'_>, build: &Node, draft: &mut Draft) -> Result<(), PortError> {
    for (name, key) in BUILD {
        if let Some(member) = build.member(name) {
            draft.take(file, key, member)?;
        }
    }
    if let Some(member) = build.member("builder")
        && let Some(builder) = member.node.text()
        && !BUILDERS.contains(&builder.trim().to_uppercase().as_str())
    {
        let message = format!("builder {} is not here: the source is built by detection", member.node.value);
        draft.warn(file.name, Some(member.place.line), message);
    }
    let mut read: Vec<&str> = BUILD.iter().map(|(name, _)| *name).collect();
    if let Some(member) = build.member("watchPatterns") {
        read.push("watchPatterns");
        watch_patterns(file, member, draft);
    }
    if let Some(member) = build.member("args") {
        read.push("args");
        expect_table(file.name, member)?;
        draft.take_build_args(file, &member.node);
    }
    if let Some(member) = build.member("nixpacksConfigPath") {
        read.push("nixpacksConfigPath");
        nixpacks_at(file, member, draft);
    }
    if let Some(member) = build.member("nixpacksPlan") {
        read.push("nixpacksPlan");
        nixpacks::take(
            File { origin: Origin::Nixpacks, ..file },
            &member.node,
            "build.nixpacksPlan.",
            draft,
        )?;
    }
    railway_notes::tell(file, build, Table::Build, draft);
    draft.unknown(file, build, &read, &railway_notes::keys(Table::Build), "build.");
    Ok(())
}

fn watch_patterns(file: File<'_>, member: &Member, draft: &mut Draft) {
    let patterns: Vec<String> = match &member.node.value {
        Value::Text(text) => vec![text.clone()],
        _ => member.node.items().iter().filter_map(Node::text).map(str::to_owned).collect(),
    };
    let line = member.place.line;
    if patterns.is_empty() {
        return draft.warn(file.name, Some(line), "`build.watchPatterns` holds no pattern, ignored");
    }
    draft.give_at(file, Key::WatchPatterns, line, Setting::List(patterns));
    let message = "`build.watchPatterns` is for pushes: `trackbed up` deploys what it is given";
    draft.warn(file.name, Some(line), message);
}

fn nixpacks_at(file: File<'_>, member: &Member, draft: &mut Draft) {
    let line = member.place.line;
    let path = member.node.text().unwrap_or_default().trim().trim_start_matches("./").trim_start_matches('/');
    let leaves =
        std::path::Path::new(path).components().any(|part| !matches!(part, std::path::Component::Normal(_)));
    if path.is_empty() || leaves {
        let message = format!("`build.nixpacksConfigPath` is {}, no file of this source", member.node.value);
        return draft.warn(file.name, Some(line), message);
    }
    draft.nixpacks_at.get_or_insert((path.to_owned(), format!("{}:{line}", file.name)));
}

#[cfg(test)]
#[path = "railway_tests.rs"]
mod tests;

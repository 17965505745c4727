//! Reads `railway.json` and `railway.toml`, and `trackbed.toml`, which has the same tables and some of its own.
//!
//! Keys and their meaning: docs.railway.com/config-as-code/reference. Values of `environments.production` win over the base.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File, expect_table};
use crate::config::keys::Key;
use crate::config::tree::{Node, Value, malformed};
use crate::config::{json, toml};

/// The environment whose overrides apply.
const ENVIRONMENT: &str = "production";
/// Keys of Railway's that mean nothing on one box, or are obeyed without a word.
const QUIET_BUILD: [&str; 11] = [
    "watchPatterns",
    "dockerfilePath",
    "dockerfile",
    "railpackVersion",
    "nixpacksConfigPath",
    "nixpacksVersion",
    "nixpacksPlan",
    "buildEnvironment",
    "buildCommand",
    "builder",
    "command",
];
const QUIET_DEPLOY: [&str; 8] = [
    "overlapSeconds",
    "registryCredentials",
    "ipv6EgressEnabled",
    "runtime",
    "useLegacyStacker",
    "region",
    "multiRegionConfig",
    "limitOverride",
];
const READ_DEPLOY: [&str; 8] = [
    "startCommand",
    "healthcheckPath",
    "healthcheckTimeout",
    "restartPolicyType",
    "restartPolicyMaxRetries",
    "drainingSeconds",
    "requiredMountPath",
    "port",
];
/// Keys that Trackbed has beside Railway's.
const OWN_DEPLOY: [&str; 6] =
    ["stopGraceSeconds", "drainSeconds", "holdSeconds", "handover", "shared", "rehearse"];
/// Keys that would change what happens, and do not yet.
const NOT_YET: [&str; 4] = ["preDeployCommand", "cronSchedule", "numReplicas", "sleepApplication"];

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
    let environments = tree.member("environments");
    if let Some(environments) = environments {
        expect_table(file.name, environments)?;
        if let Some(chosen) = environments.node.member(ENVIRONMENT) {
            expect_table(file.name, chosen)?;
            read_tables(file, &chosen.node, draft)?;
            draft.unknown(file, &chosen.node, &["build", "deploy"], &[], "environments.production.");
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
    let read = ["build", "deploy", "environments", "volumes", "limits"];
    draft.unknown(file, tree, &read, &["$schema"], "");
    Ok(())
}

fn read_tables(file: File<'_>, tree: &Node, draft: &mut Draft) -> Result<(), PortError> {
    if let Some(build) = tree.member("build") {
        expect_table(file.name, build)?;
        for (name, key) in
            [("builder", Key::Builder), ("buildCommand", Key::BuildCommand), ("command", Key::BuildCommand)]
        {
            if let Some(member) = build.node.member(name) {
                draft.take(file, key, member)?;
            }
        }
        draft.unknown(file, &build.node, &[], &QUIET_BUILD, "build.");
    }
    let Some(deploy) = tree.member("deploy") else { return Ok(()) };
    expect_table(file.name, deploy)?;
    for name in READ_DEPLOY.iter().chain(&OWN_DEPLOY) {
        let key = Key::find(&format!("deploy.{name}"));
        if let (Some(key), Some(member)) = (key, deploy.node.member(name)) {
            draft.take(file, key, member)?;
        }
    }
    if let Some(limit) = deploy.node.member("limitOverride") {
        expect_table(file.name, limit)?;
        if let Some(containers) = limit.node.member("containers") {
            expect_table(file.name, containers)?;
            for (name, key) in [("memoryBytes", Key::Memory), ("cpu", Key::Cpu)] {
                if let Some(member) = containers.node.member(name) {
                    draft.take(file, key, member)?;
                }
            }
        }
    }
    warn_not_yet(file, &deploy.node, draft);
    let read = [&READ_DEPLOY[..], &OWN_DEPLOY, &NOT_YET].concat();
    draft.unknown(file, &deploy.node, &read, &QUIET_DEPLOY, "deploy.");
    Ok(())
}

fn warn_not_yet(file: File<'_>, deploy: &Node, draft: &mut Draft) {
    for name in NOT_YET {
        let Some(member) = deploy.member(name) else { continue };
        let message = match name {
            "preDeployCommand" => {
                "`deploy.preDeployCommand` is not run yet: run it yourself with `trackbed run`, or put it before the start command with `&&`"
            }
            "cronSchedule" => {
                "`deploy.cronSchedule` is not obeyed yet: the service runs all the time instead"
            }
            "numReplicas" if !matches!(&member.node.value, Value::Number(n) if n == "0" || n == "1") => {
                "`deploy.numReplicas`: one instance runs, whatever the number"
            }
            "sleepApplication" if member.node.value == Value::Bool(true) => {
                "`deploy.sleepApplication` is not obeyed: the service stays awake"
            }
            _ => continue,
        };
        draft.warn(file.name, Some(member.place.line), message);
    }
}

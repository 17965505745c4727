//! The floor check: every import between crates goes down, and only where the table of the design allows it.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::shell::read;

/// Crate, floor, and what it may import. `testkit` and `xtask` stand beside the house; tests may use what they like.
const TABLE: &[(&str, u8, &[&str])] = &[
    ("trackbed", 5, &["cli", "server", "docker", "edge", "sandbox", "volume", "stdx"]),
    (
        "server",
        4,
        &[
            "control", "store", "build", "docker", "sandbox", "site", "edge", "volume", "offsite", "core",
            "api", "https", "stdx",
        ],
    ),
    ("control", 3, &["core", "store", "stdx"]),
    ("docker", 3, &["sandbox", "core", "stdx"]),
    ("cli", 3, &["client", "api", "stdx"]),
    ("store", 2, &["core", "stdx"]),
    ("build", 2, &["core", "https", "stdx"]),
    ("sandbox", 2, &["core", "stdx"]),
    ("edge", 2, &["core", "stdx"]),
    ("site", 2, &["core", "stdx"]),
    ("volume", 2, &["core", "stdx"]),
    ("offsite", 2, &["core", "https", "stdx"]),
    ("client", 2, &["api"]),
    ("core", 1, &[]),
    ("api", 1, &[]),
    ("https", 1, &[]),
    ("stdx", 1, &[]),
];
/// Not part of what is shipped.
const BESIDE: &[&str] = &["testkit", "xtask", "tests", "readers"];

/// Fails on a crate that is not in the table and on an arrow that the table does not have.
pub fn check() -> Result<()> {
    let metadata: Value =
        serde_json::from_str(&read("cargo", &["metadata", "--format-version", "1", "--no-deps"])?)?;
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or_default());
        if BESIDE.contains(&name) {
            continue;
        }
        let Some((_, floor, may)) = TABLE.iter().find(|(known, ..)| *known == name) else {
            wrong.push(format!("{name} stands on no floor"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let is_ours = dependency["path"].is_string();
            let is_dev = dependency["kind"] == "dev";
            let target = short(dependency["name"].as_str().unwrap_or_default());
            if is_ours && !is_dev && !may.contains(&target) {
                wrong.push(format!("{name} (floor {floor}) may not import {target}"));
            }
        }
    }
    for (name, floor, may) in TABLE {
        for target in *may {
            let below =
                TABLE.iter().find(|(known, ..)| known == target).is_some_and(|(_, lower, _)| lower < floor);
            ensure!(below, "the table itself has an arrow that does not go down: {name} to {target}");
        }
    }
    if !wrong.is_empty() {
        bail!("the floors are broken:\n  {}", wrong.join("\n  "));
    }
    eprintln!("floors: {} crates, every arrow goes down", TABLE.len());
    Ok(())
}

fn short(package: &str) -> &str {
    package.strip_prefix("trackbed-").unwrap_or(package)
}

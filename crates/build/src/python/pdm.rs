//! Reads `pdm.lock` as a list of exact requirements, because uv does not install it by itself.

use std::collections::BTreeSet;

use trackbed_core::ports::PortError;

use crate::config::toml;
use crate::config::tree::Node;

/// Turns the default group of a lock into requirement lines for an install without dependencies. A lock of PDM before
/// 2.11 names no groups: then all of it.
pub(crate) fn lines(lock: &str) -> Result<Vec<String>, PortError> {
    let lock = toml::parse("pdm.lock", lock)?;
    let mut lines = BTreeSet::new();
    for package in lock.get("package").map(Node::items).unwrap_or_default() {
        let field = |key: &str| package.get(key).and_then(Node::text);
        let Some(name) = field("name") else { continue };
        let groups = package.get("groups").map(Node::items);
        if groups.is_some_and(|groups| !groups.iter().any(|group| group.text() == Some("default"))) {
            continue;
        }
        let line = match (field("git"), field("url"), field("path"), field("version")) {
            (Some(git), ..) => format!("{name} @ git+{git}@{}", field("revision").unwrap_or("HEAD")),
            (_, Some(url), ..) => format!("{name} @ {url}"),
            (_, _, Some(_), _) => {
                return Err(PortError::new(format!(
                    "pdm.lock:{}: {name} comes from a path of the source, which is not supported yet",
                    package.place.line
                ))
                .hint("export the lock with `pdm export -o requirements.txt` and deploy again"));
            }
            (.., version) => format!("{name}=={}", version.unwrap_or_default()),
        };
        let marker = field("marker").or(field("markers")).filter(|marker| !marker.is_empty());
        lines.insert(marker.map_or(line.clone(), |marker| format!("{line} ; {marker}")));
    }
    Ok(lines.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_group_is_taken_once() {
        let lock = "[metadata]\ngroups = ['default', 'dev']\n\
            [[package]]\nname = 'uvicorn'\nversion = '0.30.0'\ngroups = ['default']\n\
            [[package]]\nname = 'uvicorn'\nversion = '0.30.0'\nextras = ['standard']\ngroups = ['default']\n\
            [[package]]\nname = 'colorama'\nversion = '0.4.6'\ngroups = ['default', 'dev']\nmarker = \"sys_platform == 'win32'\"\n\
            [[package]]\nname = 'ours'\ngit = 'https://x/y.git'\nrevision = 'abc'\ngroups = ['default']\n\
            [[package]]\nname = 'pytest'\nversion = '8'\ngroups = ['dev']\n";
        assert_eq!(
            lines(lock).unwrap(),
            [
                "colorama==0.4.6 ; sys_platform == 'win32'",
                "ours @ git+https://x/y.git@abc",
                "uvicorn==0.30.0"
            ]
        );
        assert!(lines("[[package]]\nname = 'x'\npath = './x'\n").is_err());
    }
}

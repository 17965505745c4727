//! Reads `poetry.lock` and `Pipfile.lock` as lists of exact requirements, because uv installs neither by itself.
//!
//! Old Poetry locks do not say which group a package belongs to: then it is found by walking from the main dependencies.

use std::collections::{BTreeMap, BTreeSet};

use trackbed_core::ports::PortError;

use crate::config::tree::{Node, Value};
use crate::config::{json, toml};
use crate::python::requirements::normalise;

/// Turns a lock into requirement lines for an install without dependencies.
pub(crate) fn lines_of_poetry(lock: &str, pyproject: &Node) -> Result<Vec<String>, PortError> {
    let lock = toml::parse("poetry.lock", lock)?;
    let packages = lock.get("package").map(Node::items).unwrap_or_default();
    let conditions = reach(packages, pyproject);
    let mut lines = Vec::new();
    for package in packages {
        let Some(name) = package.get("name").and_then(Node::text) else { continue };
        if package.get("optional").is_some_and(|optional| optional.value == Value::Bool(true)) {
            continue;
        }
        let condition = match groups(package) {
            Some(groups) if !groups.contains(&"main") => continue,
            Some(_) => marker(package),
            None => match conditions.get(&normalise(name)) {
                None => continue,
                Some(condition) => condition.clone(),
            },
        };
        let line = requirement(package, name)?;
        lines.push(match condition {
            Some(condition) => format!("{line} ; {condition}"),
            None => line,
        });
    }
    lines.sort();
    Ok(lines)
}

fn groups(package: &Node) -> Option<Vec<&str>> {
    if let Some(groups) = package.get("groups") {
        return Some(groups.items().iter().filter_map(Node::text).collect());
    }
    package.get("category").and_then(Node::text).map(|category| vec![category])
}

fn marker(package: &Node) -> Option<String> {
    let markers = package.get("markers")?;
    let text = match &markers.value {
        Value::Text(text) => Some(text.as_str()),
        // By group, when they differ.
        _ => markers.get("main").and_then(Node::text),
    };
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn requirement(package: &Node, name: &str) -> Result<String, PortError> {
    let version = package.get("version").and_then(Node::text).unwrap_or_default();
    let source = package.get("source");
    let field =
        |key: &str| source.and_then(|source| source.get(key)).and_then(Node::text).unwrap_or_default();
    match field("type") {
        "git" => Ok(format!("{name} @ git+{}@{}", field("url"), field("resolved_reference"))),
        "url" => Ok(format!("{name} @ {}", field("url"))),
        "directory" | "file" => Err(PortError::new(format!(
            "poetry.lock:{}: {name} comes from a path of the source, which is not supported yet",
            package.place.line
        ))
        .hint("export the lock with `poetry export -o requirements.txt` and deploy again")),
        _ => Ok(format!("{name}=={version}")),
    }
}

/// Walks from the main dependencies. A package's condition is none when some way to it has no marker, else all markers.
fn reach(packages: &[Node], pyproject: &Node) -> BTreeMap<String, Option<String>> {
    let mut edges: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for package in packages {
        let name = package.get("name").and_then(Node::text).map(normalise).unwrap_or_default();
        edges.entry(name).or_default().push(package);
    }
    let mut markers: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
    let mut todo: Vec<(String, Vec<String>)> = Vec::new();
    let visit = |name: &str, node: &Node, markers: &mut BTreeMap<String, BTreeSet<Option<String>>>| {
        let name = normalise(name);
        let one = if let Value::List(items) = &node.value { items.first().unwrap_or(node) } else { node };
        let marker = one.get("markers").and_then(Node::text).map(str::to_owned);
        let extras = one.get("extras").map(Node::items).unwrap_or_default();
        let extras = extras.iter().filter_map(Node::text).map(str::to_owned).collect();
        markers.entry(name.clone()).or_default().insert(marker);
        (name, extras)
    };
    let roots = pyproject.at(&["tool", "poetry", "dependencies"]).map(Node::members).unwrap_or_default();
    for member in roots.iter().filter(|member| member.key != "python") {
        todo.push(visit(&member.key, &member.node, &mut markers));
    }
    for item in pyproject.at(&["project", "dependencies"]).map(Node::items).unwrap_or_default() {
        let name = crate::python::requirements::name_of(item.text().unwrap_or_default());
        todo.push(visit(&name, item, &mut markers));
    }
    let mut seen: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    while let Some((name, extras)) = todo.pop() {
        if !seen.insert((name.clone(), extras.clone())) {
            continue;
        }
        for package in edges.get(&name).into_iter().flatten() {
            let wanted_by_extra: BTreeSet<String> = extras
                .iter()
                .filter_map(|extra| package.at(&["extras", extra]))
                .flat_map(Node::items)
                .filter_map(Node::text)
                .map(crate::python::requirements::name_of)
                .collect();
            for member in package.get("dependencies").map(Node::members).unwrap_or_default() {
                let optional =
                    member.node.get("optional").is_some_and(|optional| optional.value == Value::Bool(true));
                if !optional || wanted_by_extra.contains(&normalise(&member.key)) {
                    todo.push(visit(&member.key, &member.node, &mut markers));
                }
            }
        }
    }
    let joined = |markers: BTreeSet<Option<String>>| {
        let all: Option<Vec<String>> = markers.into_iter().collect();
        all.map(|all| all.iter().map(|marker| format!("({marker})")).collect::<Vec<_>>().join(" or "))
    };
    markers.into_iter().map(|(name, markers)| (name, joined(markers))).collect()
}

/// Turns the `default` section of a `Pipfile.lock` into requirement lines.
pub(crate) fn lines_of_pipfile(lock: &str) -> Result<Vec<String>, PortError> {
    let lock = json::parse("Pipfile.lock", lock)?;
    let mut lines = Vec::new();
    for member in lock.get("default").map(Node::members).unwrap_or_default() {
        let field = |key: &str| member.node.get(key).and_then(Node::text);
        let line = match (field("version"), field("git")) {
            (Some(version), _) => format!("{}{version}", member.key),
            (None, Some(git)) => format!("{} @ git+{git}@{}", member.key, field("ref").unwrap_or("HEAD")),
            (None, None) => {
                return Err(PortError::new(format!(
                    "Pipfile.lock:{}: {} has neither a version nor a git address",
                    member.place.line, member.key
                )));
            }
        };
        let marker = field("markers").map(|marker| format!(" ; {marker}")).unwrap_or_default();
        lines.push(format!("{line}{marker}"));
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYPROJECT: &str = "[tool.poetry.dependencies]\npython = '^3.11'\nfastapi = '*'\nuvicorn = {version = '*', extras = ['standard']}\n";

    #[test]
    fn new_locks_say_their_groups() {
        let lock = "[[package]]\nname = 'fastapi'\nversion = '1.0'\ngroups = ['main']\noptional = false\n\
            [[package]]\nname = 'colorama'\nversion = '2'\ngroups = ['main', 'dev']\nmarkers = \"sys_platform == 'win32'\"\n\
            [[package]]\nname = 'pytest'\nversion = '3'\ngroups = ['dev']\n";
        let tree = toml::parse("pyproject.toml", PYPROJECT).unwrap();
        assert_eq!(
            lines_of_poetry(lock, &tree).unwrap(),
            ["colorama==2 ; sys_platform == 'win32'", "fastapi==1.0"]
        );
    }

    #[test]
    fn old_locks_are_walked_from_the_main_dependencies() {
        let lock = "[[package]]\nname = 'FastAPI'\nversion = '1.0'\n[package.dependencies]\nstarlette = '*'\npytest = {version='*', optional=true}\n\
            [[package]]\nname = 'starlette'\nversion = '2'\n\
            [[package]]\nname = 'uvicorn'\nversion = '3'\n[package.dependencies]\nhttptools = {version='*', optional=true}\ncolorama = {version='*', markers=\"sys_platform == 'win32'\"}\n\
            [package.extras]\nstandard = ['httptools (>=0.5)']\n\
            [[package]]\nname = 'httptools'\nversion = '4'\n\
            [[package]]\nname = 'colorama'\nversion = '5'\n\
            [[package]]\nname = 'pytest'\nversion = '6'\n";
        let tree = toml::parse("pyproject.toml", PYPROJECT).unwrap();
        assert_eq!(
            lines_of_poetry(lock, &tree).unwrap(),
            [
                "FastAPI==1.0",
                "colorama==5 ; (sys_platform == 'win32')",
                "httptools==4",
                "starlette==2",
                "uvicorn==3"
            ]
        );
    }

    #[test]
    fn pipfile_locks_give_their_default_section() {
        let lock = r#"{"default": {"flask": {"version": "==3.0", "markers": "python_version >= '3.8'"}}, "develop": {"x": {}}}"#;
        assert_eq!(lines_of_pipfile(lock).unwrap(), ["flask==3.0 ; python_version >= '3.8'"]);
    }
}

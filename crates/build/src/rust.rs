//! The Rust provider: one program out of a package or workspace, built with the toolchain that the source asks for.

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::toml;
use crate::config::tree::Node;
use crate::provider::{Decided, Found, Look, give_start, place_of, version_setting};
use crate::range::Range;
use crate::steps::{RECIPE_VERSION, Recipe, pairs};
use crate::text;
use crate::toolchain::{self, Asks, Tool};

const MANIFEST: &str = "Cargo.toml";
/// Where Railpack puts programs: a start command that was written for it finds them.
const FOLDER: &str = "bin";

/// Puts what was built where Cargo puts it when nobody says otherwise.
const TARGET: &str = "mkdir -p target/release\nfind \"$CARGO_TARGET_DIR/release\" -maxdepth 1 -type f -perm -u+x \
                      -exec cp {} target/release/ ';'";

/// A program that Cargo would build.
struct Program {
    /// `-p`, for a member of a workspace.
    package: Option<String>,
    name: String,
    place: String,
}

/// Decides.
pub(crate) fn find(look: Look<'_>, draft: &mut Draft) -> Result<Found, PortError> {
    let Some(text) = text::find(look.source, MANIFEST)? else { return Ok(Found::No) };
    let tree = toml::parse(MANIFEST, &text)?;
    let asks = asked(look, &tree)?;
    let cargo = toolchain::choose(look.programs, Tool::Cargo, asks.as_ref())?;
    let start = draft.text(Key::StartCommand);
    let own = draft.text(Key::BuildCommand);
    let (build, after) = match (own, start) {
        // Whoever starts what Cargo makes by its usual path finds it there.
        (own, Some(start)) if start.contains("target/") => {
            (own.unwrap_or_else(|| format!("cargo build --release{}", locked(look))), TARGET.to_owned())
        }
        (Some(own), Some(_)) => (own, String::new()),
        (own, _) => {
            let program = program(look, &tree, draft)?;
            give_start(draft, format!("exec ./{FOLDER}/{}", program.name), program.place.clone());
            let package = program.package.map(|name| format!(" --package {name}")).unwrap_or_default();
            let name = &program.name;
            // The target folder is a cache; only the program belongs to the app.
            let after = format!("mkdir -p {FOLDER}\ncp \"$CARGO_TARGET_DIR/release/{name}\" {FOLDER}/{name}");
            let build = || format!("cargo build --release{}{package} --bin {name}", locked(look));
            (own.unwrap_or_else(build), after)
        }
    };
    if !look.source.join("Cargo.lock").is_file() {
        let message = "there is no Cargo.lock: every build takes the newest versions that fit; commit one";
        draft.warn(MANIFEST, None, message);
    }
    let settings = vec![version_setting("rust", &cargo, asks.as_ref())];
    let place = place_of(asks.as_ref());
    let summary = format!("rust {} ({place}), {MANIFEST}", cargo.version);
    let recipe = Recipe {
        version: RECIPE_VERSION,
        programs: vec![cargo],
        at_run: false,
        install: None,
        build: Some(build),
        after: (!after.is_empty()).then_some(after),
        drop: Vec::new(),
        secrets: Vec::new(),
        build_env: pairs([
            ("CARGO_HOME", "{cache}/home"),
            ("CARGO_TARGET_DIR", "{cache}/target"),
            ("CARGO_TERM_PROGRESS_WHEN", "never"),
        ]),
        env: pairs([("LANG", "C.UTF-8")]),
        path: Vec::new(),
    };
    Decided::of("rust", summary, &recipe, settings)
}

fn locked(look: Look<'_>) -> &'static str {
    if look.source.join("Cargo.lock").is_file() { " --locked" } else { "" }
}

/// `rust-toolchain.toml` names a channel; `rust-version` is the oldest that will do
/// (doc.rust-lang.org/cargo/reference/rust-version.html).
fn asked(look: Look<'_>, tree: &Node) -> Result<Option<Asks>, PortError> {
    for file in ["rust-toolchain.toml", "rust-toolchain"] {
        let Some(text) = text::find(look.source, file)? else { continue };
        let (channel, line) = match toml::parse(file, &text) {
            Ok(tree) => {
                let toolchain = tree.get("toolchain").and_then(|table| table.member("channel"));
                let Some(member) = toolchain else { continue };
                (member.node.text().unwrap_or_default().to_owned(), member.place.line)
            }
            Err(_) => (text.trim().to_owned(), 1),
        };
        let range = Range::parse(&channel);
        return Ok(Some(Asks { text: channel, place: format!("{file}:{line}"), range }));
    }
    let tables = [tree.at(&["package"]), tree.at(&["workspace", "package"])];
    let member = tables.into_iter().flatten().find_map(|table| table.member("rust-version"));
    Ok(member.and_then(|member| {
        let text = member.node.text()?.to_owned();
        let range = Range::parse(&format!(">={text}"));
        Some(Asks { place: format!("{MANIFEST}:{}", member.place.line), text, range })
    }))
}

/// Finds the one program to start: `default-run`, else the only binary, else the one named like the package.
fn program(look: Look<'_>, tree: &Node, draft: &mut Draft) -> Result<Program, PortError> {
    let mut programs = programs_of(look, "", tree);
    for member in tree.at(&["workspace", "members"]).map(Node::items).unwrap_or_default() {
        for folder in member.text().map(|pattern| folders(look, pattern)).unwrap_or_default() {
            let file = format!("{folder}/{MANIFEST}");
            if let Some(text) = text::find(look.source, &file)? {
                programs.extend(programs_of(look, &folder, &toml::parse(&file, &text)?));
            }
        }
    }
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let Some(first) = programs.into_iter().next() else {
        return Err(PortError::new(
            "found no program in this package: no src/main.rs, [[bin]] or src/bin/*.rs",
        )
        .hint("say how it is built and started: build.buildCommand and deploy.startCommand"));
    };
    if names.len() > 1 {
        let message = format!(
            "there are several programs ({}); {} is built: set build.buildCommand if another is meant",
            names.join(", "),
            first.name
        );
        draft.warn(MANIFEST, None, message);
    }
    Ok(first)
}

/// The programs of one package, the one to start first.
fn programs_of(look: Look<'_>, folder: &str, tree: &Node) -> Vec<Program> {
    let Some(package) = tree.at(&["package", "name"]).and_then(Node::text) else { return Vec::new() };
    let at = |path: &str| if folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") };
    let found = |name: &str, place: String| Program {
        package: (!folder.is_empty()).then(|| package.to_owned()),
        name: name.to_owned(),
        place,
    };
    let mut programs = Vec::new();
    for bin in tree.get("bin").map(Node::items).unwrap_or_default() {
        if let Some(name) = bin.get("name").and_then(Node::text) {
            programs.push(found(name, format!("{}:{}", at(MANIFEST), bin.place.line)));
        }
    }
    let main = at("src/main.rs");
    if look.source.join(&main).is_file() && !programs.iter().any(|program| program.name == package) {
        programs.push(found(package, main));
    }
    let mut more: Vec<String> = std::fs::read_dir(look.source.join(at("src/bin")))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    more.sort();
    for name in more {
        if !programs.iter().any(|program| program.name == name) {
            let place = at(&format!("src/bin/{name}.rs"));
            programs.push(found(&name, place));
        }
    }
    let chosen = tree.at(&["package", "default-run"]).and_then(Node::text).unwrap_or(package);
    programs.sort_by_key(|program| program.name != chosen);
    programs
}

/// Lists the folders of a workspace's member, which may end in `/*`.
fn folders(look: Look<'_>, pattern: &str) -> Vec<String> {
    let Some(parent) = pattern.strip_suffix("/*") else { return vec![pattern.to_owned()] };
    let mut folders: Vec<String> = std::fs::read_dir(look.source.join(parent))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(MANIFEST).is_file())
        .filter_map(|entry| Some(format!("{parent}/{}", entry.file_name().into_string().ok()?)))
        .collect();
    folders.sort();
    folders
}

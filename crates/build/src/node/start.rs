//! Decides how a Node source is started: by its `start` script, else by its framework, else by its main file.

use trackbed_core::ports::PortError;

use crate::node::manager::Manager;
use crate::node::{PACKAGE, Package};
use crate::toolchain::Tool;

/// What was decided.
pub(super) struct Start {
    pub(super) command: String,
    pub(super) place: String,
    pub(super) warning: Option<String>,
}

/// Frameworks that serve themselves: a package that says so, and the command.
const FRAMEWORKS: [(&str, &str); 8] = [
    ("next", "next start --hostname 0.0.0.0 --port $PORT"),
    ("nuxt", "HOST=0.0.0.0 node .output/server/index.mjs"),
    ("@react-router/serve", "react-router-serve ./build/server/index.js"),
    ("@remix-run/serve", "remix-serve ./build/server/index.js"),
    ("@sveltejs/adapter-node", "HOST=0.0.0.0 node build"),
    ("@astrojs/node", "HOST=0.0.0.0 node ./dist/server/entry.mjs"),
    ("@nestjs/core", "node dist/main"),
    ("@adonisjs/core", "HOST=0.0.0.0 node build/bin/server.js"),
];
/// Main files that people use without saying so.
const MAINS: [&str; 8] = [
    "server.js",
    "index.js",
    "app.js",
    "main.js",
    "src/index.js",
    "src/server.js",
    "server.mjs",
    "index.mjs",
];

/// Finds a start command.
pub(super) fn find(package: &Package<'_>, manager: Manager, runtime: Tool) -> Result<Start, PortError> {
    if let Some((script, place)) = package.script("start") {
        return Ok(by_script(package, manager, script, place));
    }
    for (dependency, command) in FRAMEWORKS {
        if package.has(dependency) {
            let place = format!("{PACKAGE}, {dependency}");
            return Ok(Start { command: command.to_owned(), place, warning: None });
        }
    }
    let main = package.tree.member("main").and_then(|member| {
        let file = member.node.text()?;
        package.has_file(file).then(|| (file.to_owned(), format!("{PACKAGE}:{}", member.place.line)))
    });
    let found = main.or_else(|| {
        let file = MAINS.into_iter().find(|file| package.has_file(file))?;
        Some((file.to_owned(), file.to_owned()))
    });
    let Some((file, place)) = found else { return Err(nothing(package)) };
    Ok(Start { command: format!("{} {file}", runtime.program()), place, warning: None })
}

/// Runs the script itself: a package manager between would take 60 MB and keep SIGTERM from the app. One that has
/// others before or after it needs the package manager.
fn by_script(package: &Package<'_>, manager: Manager, script: &str, place: String) -> Start {
    let chained = package.script("prestart").is_some() || package.script("poststart").is_some();
    let names_npm = script.contains("npm_") || script.trim_start().starts_with("npm ");
    let command = if chained || names_npm { manager.run("start") } else { script.to_owned() };
    let develops = ["nodemon", "ts-node-dev", "vite", "next dev", "ng serve", "react-scripts start"];
    let watcher = develops.into_iter().find(|tool| {
        script == *tool || script.starts_with(&format!("{tool} ")) && !script.starts_with("vite preview")
    });
    let warning = watcher.map(|tool| {
        format!(
            "the `start` script runs `{tool}`, which is made for development: it watches files and is slow"
        )
    });
    Start { command, place, warning }
}

fn nothing(package: &Package<'_>) -> PortError {
    let stat = ["vite", "astro", "react-scripts", "@angular/cli", "gatsby"];
    if let Some(tool) = stat.into_iter().find(|tool| package.has(tool)) {
        return PortError::new(format!(
            "this source uses {tool}, and it cannot be told where its files will be: {PACKAGE} has neither a `start` script nor a `build` script that leaves them in the source"
        ))
        .hint("add a `build` script, or say where the files are: root under [static] in trackbed.toml");
    }
    PortError::new(format!(
        "found no way to start this source: {PACKAGE} has neither a `start` script nor a `main` file that is there, \
         no framework that serves itself is among its dependencies, and there is none of {}",
        MAINS.join(", ")
    ))
    .hint("add a `start` script to package.json, or say it: trackbed up --start 'node server.js'")
}

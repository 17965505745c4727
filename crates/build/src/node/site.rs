//! Finds out whether the build of a Node source ends in files that nothing of the source serves, and in which folder:
//! Railpack's rules (core/providers/node/spa.go), and more frameworks.

use trackbed_core::ports::PortError;

use crate::config::draft::Draft;
use crate::config::json;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::node::{PACKAGE, Package};
use crate::site::{self, Output};
use crate::text;

/// Start scripts that frameworks put into every new source, for development: whoever has these has no server.
const STARTS: [&str; 7] = [
    "react-scripts start",
    "ng serve",
    "next start",
    "astro dev",
    "gatsby develop",
    "docusaurus start",
    "vue-cli-service serve",
];
/// Files of a server that stands beside a site and serves it.
const SERVERS: [&str; 4] = ["server.js", "server.mjs", "server.ts", "src/server.js"];
/// Packages that build with Vite and end in a server.
const SERVED: [&str; 5] =
    ["@sveltejs/kit", "@solidjs/start", "@tanstack/react-start", "@builder.io/qwik-city", "vinxi"];

/// A folder, whether the site in it is one page that knows paths of its own, and what told so.
type Told = (String, bool, String);

/// Decides. None when the source is started as a process.
pub(super) fn find(
    package: &Package<'_>,
    build: Option<&str>,
    draft: &mut Draft,
) -> Result<Option<Output>, PortError> {
    if let Some(mut output) = site::asked(draft) {
        if build.is_none() && !package.source.join(&output.root).is_dir() {
            return Err(site::no_folder(&output));
        }
        output.is_one_page |=
            told(package)?.is_some_and(|(root, is_one_page, _)| is_one_page && root == output.root);
        return Ok(Some(output));
    }
    let has_start = package.script("start").is_some_and(|(script, _)| !STARTS.contains(&script.trim()));
    let has_server = SERVERS.iter().any(|file| package.has_file(file));
    if build.is_none() || has_start || has_server || draft.find(Key::StartCommand).is_some() {
        return Ok(None);
    }
    // A folder outside of the source belongs to another one, which serves it.
    let told = told(package)?.filter(|(root, ..)| Key::StaticRoot.parse(root).is_ok());
    Ok(told.map(|(root, is_one_page, place)| site::detected(draft, root, is_one_page, true, place)))
}

/// Looks through the frameworks.
fn told(package: &Package<'_>) -> Result<Option<Told>, PortError> {
    let written = package.script("build").map(|(script, _)| script).unwrap_or_default();
    let script = written.to_ascii_lowercase();
    let by = |name: &str| format!("{PACKAGE}, {name}");
    let told = |root: &str, is_one_page, name: &str| Some((root.to_owned(), is_one_page, by(name)));
    if package.has("astro") {
        let adapters = ["@astrojs/node", "@astrojs/vercel", "@astrojs/cloudflare", "@astrojs/netlify"];
        let config = configuration(package, "astro.config")?;
        let is_served = adapters.iter().any(|name| package.has(name))
            || config.as_ref().is_some_and(|config| config.says("output", "server"));
        let root =
            config.as_ref().and_then(|config| config.text("outDir")).unwrap_or_else(|| "dist".to_owned());
        return Ok((!is_served).then_some((root, false, by("astro"))));
    }
    if package.has("next") {
        let Some(config) = configuration(package, "next.config")? else { return Ok(None) };
        let root = config.text("distDir").unwrap_or_else(|| "out".to_owned());
        return Ok(config.says("output", "export").then_some((root, false, config.name)));
    }
    if package.has("nuxt") {
        let generates = script.contains("nuxt generate") || script.contains("nuxi generate");
        return Ok(if generates { told(".output/public", false, "nuxt") } else { None });
    }
    if package.has("@sveltejs/adapter-static") {
        let config = configuration(package, "svelte.config")?;
        let is_one_page = config.as_ref().is_some_and(|config| config.says("fallback", "index.html"));
        let root =
            config.as_ref().and_then(|config| config.text("pages")).unwrap_or_else(|| "build".to_owned());
        return Ok(Some((root, is_one_page, by("@sveltejs/adapter-static"))));
    }
    for (dev, files) in [("@react-router/dev", "react-router.config"), ("@remix-run/dev", "vite.config")] {
        if package.has(dev) {
            let Some(config) = configuration(package, files)? else { return Ok(None) };
            let folder = config.text("buildDirectory").unwrap_or_else(|| "build".to_owned());
            let root = format!("{}/client", folder.trim_end_matches('/'));
            return Ok(config.has("ssr", "false").then_some((root, true, config.name)));
        }
    }
    if package.has("@angular/core") && script.contains("ng build") {
        return angular(package);
    }
    let known: [(&str, &str, &str, bool); 6] = [
        ("react-scripts", "react-scripts build", "build", true),
        ("@vue/cli-service", "vue-cli-service build", "dist", true),
        ("gatsby", "gatsby build", "public", false),
        ("@docusaurus/core", "docusaurus build", "build", false),
        ("@11ty/eleventy", "eleventy", "_site", false),
        ("parcel", "parcel build", "dist", false),
    ];
    for (name, command, root, is_one_page) in known {
        if package.has(name) && script.contains(command) {
            return Ok(told(root, is_one_page, name));
        }
    }
    if SERVED.iter().any(|name| package.has(name)) || !package.has("vite") {
        return Ok(None);
    }
    let config = configuration(package, "vite.config")?;
    if config.is_none() && !script.contains("vite build") {
        return Ok(None);
    }
    // A library is for other sources, not for a browser.
    if config.as_ref().is_some_and(|config| config.has("lib", "{")) {
        return Ok(None);
    }
    let by_flag = script.find("--outdir").and_then(|at| {
        let rest = written[at + "--outdir".len()..].trim_start_matches(['=', ' ']);
        rest.split([' ', ';', '&']).next().filter(|folder| !folder.is_empty()).map(str::to_owned)
    });
    let by_config = config.as_ref().and_then(|config| config.text("outDir"));
    let root = by_config.or(by_flag).unwrap_or_else(|| "dist".to_owned());
    Ok(Some((root, true, config.map_or_else(|| by("vite"), |config| config.name))))
}

/// Reads where Angular builds to. One that renders at a server is none of ours.
fn angular(package: &Package<'_>) -> Result<Option<Told>, PortError> {
    let Some(text) = text::find(package.source, "angular.json")? else { return Ok(None) };
    let tree = json::parse("angular.json", &text)?;
    let projects = tree.get("projects").map(Node::members).unwrap_or_default();
    let wanted = tree.get("defaultProject").and_then(Node::text);
    let Some(project) = projects.iter().find(|project| wanted.is_none_or(|wanted| wanted == project.key))
    else {
        return Ok(None);
    };
    let targets = project.node.get("architect").or_else(|| project.node.get("targets"));
    let Some(build) = targets.and_then(|targets| targets.get("build")) else { return Ok(None) };
    let builder = build.get("builder").and_then(Node::text).unwrap_or_default();
    let options = build.get("options");
    let option = |name: &str| options.and_then(|options| options.get(name));
    if option("ssr").is_some() || option("server").is_some() {
        return Ok(None);
    }
    let base = match option("outputPath") {
        None => format!("dist/{}", project.key),
        Some(path) => match (path.text(), path.get("base").and_then(Node::text)) {
            (Some(path), _) | (None, Some(path)) => path.to_owned(),
            (None, None) => return Ok(None),
        },
    };
    let base = base.trim_end_matches('/').to_owned();
    let browser = option("outputPath").and_then(|path| path.get("browser")).and_then(Node::text);
    let root = match (browser, builder.ends_with(":application")) {
        (Some(""), _) | (None, false) => base,
        (Some(browser), _) => format!("{base}/{browser}"),
        (None, true) => format!("{base}/browser"),
    };
    Ok(Some((root, true, format!("angular.json:{}", project.place.line))))
}

/// The text of a configuration, which is a program: what stands in it plainly can be read.
struct Configuration {
    name: String,
    text: String,
}

/// Reads `<stem>.js`, `.mjs`, `.cjs`, `.ts` or `.mts`.
fn configuration(package: &Package<'_>, stem: &str) -> Result<Option<Configuration>, PortError> {
    for extension in ["js", "mjs", "ts", "mts", "cjs"] {
        let name = format!("{stem}.{extension}");
        if let Some(text) = text::find_settings(package.source, &name)? {
            return Ok(Some(Configuration { name, text: without_comments(&text) }));
        }
    }
    Ok(None)
}

impl Configuration {
    /// Returns what stands behind `key:`.
    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.match_indices(key).filter_map(move |(at, _)| {
            let before = self.text[..at].chars().next_back();
            let is_word = before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '.'));
            let rest = self.text[at + key.len()..].trim_start_matches(['\'', '"']).trim_start();
            rest.strip_prefix(':').filter(|_| !is_word).map(str::trim_start)
        })
    }

    /// Returns a text in quotes, if it is a folder of the source.
    fn text(&self, key: &str) -> Option<String> {
        let value = self.values(key).next()?;
        let quote = value.chars().next().filter(|quote| matches!(quote, '\'' | '"' | '`'))?;
        let text = value[1..].split(quote).next()?;
        let is_plain = !text.contains("${") && !text.is_empty();
        is_plain.then(|| text.to_owned())
    }

    fn says(&self, key: &str, wanted: &str) -> bool {
        self.text(key).is_some_and(|text| text == wanted)
    }

    fn has(&self, key: &str, beginning: &str) -> bool {
        self.values(key).any(|value| value.starts_with(beginning))
    }
}

/// Leaves out lines that are comments, and the ends of lines that are.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        // `https://` in a text is none.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.filter(|line| !line.trim_start().starts_with('*')).collect::<Vec<_>>().join("\n")
}

//! Reads `docker-compose.yml` (docs.docker.com/reference/compose-file). The service that is built from this source is
//! meant; others are services of their own.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::tree::{Member, Node};
use crate::config::yaml;

const READ: [&str; 8] =
    ["build", "command", "ports", "environment", "env_file", "volumes", "healthcheck", "stop_grace_period"];
const QUIET: [&str; 14] = [
    "container_name",
    "restart",
    "depends_on",
    "networks",
    "labels",
    "hostname",
    "image",
    "expose",
    "logging",
    "platform",
    "init",
    "profiles",
    "stdin_open",
    "tty",
];

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let documents = yaml::parse(name, text)?;
    let Some(tree) = documents.first() else { return Ok(()) };
    let mut page = Page::new(name, draft);
    let services = tree.get("services").map(Node::members).unwrap_or_default();
    let built: Vec<&Member> = services.iter().filter(|service| service.node.get("build").is_some()).collect();
    let chosen =
        built.iter().find(|service| matches!(service.key.as_str(), "web" | "app" | "api")).or(built.first());
    for service in services.iter().filter(|service| chosen.is_none_or(|chosen| chosen.key != service.key)) {
        let message = match service.node.get("image").and_then(Node::text) {
            Some(image) => {
                format!(
                    "service `{}` is the image {image}: where Docker or Podman is on the box, make a service of its own of it \
                     (a trackbed.toml with `image = \"{image}\"` under [build])",
                    service.key
                )
            }
            None => format!("service `{}` is another service: deploy it by itself", service.key),
        };
        page.note(service.place.line, message);
    }
    let Some(Member { node: service, .. }) = chosen else { return Ok(()) };
    page.take_command(Key::StartCommand, service.member("command"));
    build(&mut page, service);
    page.take_time(Key::StopGrace, service.member("stop_grace_period"));
    page.take_variables(service.get("environment"));
    if let Some(file) = service.member("env_file") {
        page.note(file.place.line, "`env_file` is not read; `trackbed variables import FILE` does");
    }
    ports(&mut page, service);
    volumes(&mut page, service, tree);
    if let Some(check) = service.get("healthcheck") {
        health(&mut page, check);
    }
    page.unknown(service, &READ, &QUIET, "services.");
    Ok(())
}

/// A Dockerfile is taken when it is built from here.
fn build(page: &mut Page<'_>, service: &Node) {
    let Some(build) = service.member("build") else { return };
    let context = build.node.text().or_else(|| build.node.get("context").and_then(Node::text)).unwrap_or(".");
    if !matches!(context, "." | "./") {
        page.note(build.place.line, format!("it is built from `{context}`: deploy that folder by itself"));
    } else {
        page.take(Key::Dockerfile, build.node.member("dockerfile"));
        page.take(Key::DockerfileTarget, build.node.member("target"));
        page.take_build_args(build.node.get("args"));
    }
}

/// `8080:80` says that the app listens on 80.
fn ports(page: &mut Page<'_>, service: &Node) {
    let Some(member) = service.member("ports") else { return };
    let Some(first) = member.node.items().first() else { return };
    let inside = match first.get("target") {
        Some(target) => target.value.to_string(),
        None => {
            let text = first.text().map_or_else(|| first.value.to_string(), str::to_owned);
            let text = text.split('/').next().unwrap_or_default().to_owned();
            text.rsplit(':').next().unwrap_or_default().to_owned()
        }
    };
    page.take_text(Key::Port, member, &inside);
}

/// Named volumes are taken; a folder of the source that is mounted over the app is for development.
fn volumes(page: &mut Page<'_>, service: &Node, tree: &Node) {
    let named = tree.get("volumes").map(Node::members).unwrap_or_default();
    for item in service.get("volumes").map(Node::items).unwrap_or_default() {
        let line = item.place.line;
        let short = item.text().and_then(|text| {
            let mut parts = text.split(':');
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        });
        let long = || {
            let text = |key| item.get(key).and_then(Node::text).map(str::to_owned);
            Some((text("source")?, text("target")?))
        };
        match short.or_else(long) {
            Some((from, to)) if named.iter().any(|volume| volume.key == from) => {
                page.take_volume(&from, &to, line);
            }
            Some((from, to)) => {
                page.note(line, format!("`{from}` at {to} is a folder of the machine, not taken over"));
            }
            None => page.note(line, "an unnamed volume, ignored"),
        }
    }
}

/// `curl -f http://localhost:8000/health` names a path.
fn health(page: &mut Page<'_>, check: &Node) {
    let Some(test) = check.member("test") else { return };
    let words = match test.node.text() {
        Some(text) => text.to_owned(),
        None => test.node.items().iter().filter_map(Node::text).collect::<Vec<_>>().join(" "),
    };
    let url =
        words.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '(' | ')')).find_map(|word| {
            let rest = word.split_once("://")?.1;
            let host = rest.split(['/', ':']).next()?;
            matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0")
                .then(|| rest.find('/').map(|at| &rest[at..]))?
        });
    match url {
        Some(path) => page.take_text(Key::HealthPath, test, path),
        None => page.note(test.place.line, "this health check names no URL of the app, ignored"),
    }
}

//! Reads DigitalOcean's `.do/app.yaml` (docs.digitalocean.com/products/app-platform/reference/app-spec). Of several
//! services the first is meant.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::config::yaml;

const READ: [&str; 6] =
    ["build_command", "run_command", "http_port", "health_check", "envs", "dockerfile_path"];
const QUIET: [&str; 20] = [
    "name",
    "github",
    "gitlab",
    "bitbucket",
    "git",
    "image",
    "source_dir",
    "environment_slug",
    "instance_count",
    "instance_size_slug",
    "routes",
    "cors",
    "alerts",
    "autoscaling",
    "log_destinations",
    "internal_ports",
    "protocol",
    "termination",
    "liveness_health_check",
    "deploy_on_push",
];

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let documents = yaml::parse(name, text)?;
    let Some(tree) = documents.first() else { return Ok(()) };
    let mut page = Page::new(name, draft);
    let services = tree.get("services").map(Node::items).unwrap_or_default();
    if let Some(service) = services.first() {
        page.take(Key::BuildCommand, service.member("build_command"));
        page.take(Key::StartCommand, service.member("run_command"));
        page.take(Key::Port, service.member("http_port"));
        if let Some(check) = service.get("health_check") {
            page.take(Key::HealthPath, check.member("http_path"));
        }
        if let Some(termination) = service.get("termination") {
            page.take(Key::StopGrace, termination.member("grace_period_seconds"));
            page.take(Key::DrainTimeout, termination.member("drain_seconds"));
        }
        page.take(Key::Dockerfile, service.member("dockerfile_path"));
        page.take_variables(service.get("envs"));
        page.unknown(service, &READ, &QUIET, "services.");
    }
    for service in services.iter().skip(1) {
        let title = service.get("name").and_then(Node::text).unwrap_or("a service");
        page.note(service.place.line, format!("`{title}` is another service: deploy it by itself"));
    }
    for kind in ["workers", "jobs", "static_sites", "databases", "functions"] {
        for item in tree.get(kind).map(Node::items).unwrap_or_default() {
            let title = item.get("name").and_then(Node::text).unwrap_or("?");
            page.note(item.place.line, format!("`{kind}`: `{title}` is not taken over; deploy it by itself"));
        }
    }
    page.take_variables(tree.get("envs"));
    let read = ["services", "workers", "jobs", "static_sites", "databases", "functions", "envs"];
    page.unknown(tree, &read, &["name", "region", "domains", "alerts", "ingress", "features", "vpc"], "");
    Ok(())
}

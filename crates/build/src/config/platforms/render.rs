//! Reads `render.yaml` (render.com/docs/blueprint-spec). Of several services the first web service is meant.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::config::yaml;

const READ: [&str; 10] = [
    "buildCommand",
    "startCommand",
    "healthCheckPath",
    "disk",
    "envVars",
    "preDeployCommand",
    "maxShutdownDelaySeconds",
    "dockerfilePath",
    "schedule",
    "staticPublishPath",
];
const QUIET: [&str; 21] = [
    "type",
    "name",
    "runtime",
    "env",
    "plan",
    "region",
    "branch",
    "repo",
    "rootDir",
    "autoDeploy",
    "autoDeployTrigger",
    "numInstances",
    "scaling",
    "domains",
    "buildFilter",
    "previews",
    "dockerContext",
    "dockerCommand",
    "image",
    "ipAllowList",
    "pullRequestPreviewsEnabled",
];

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let documents = yaml::parse(name, text)?;
    let Some(tree) = documents.first() else { return Ok(()) };
    let mut page = Page::new(name, draft);
    let services = tree.get("services").map(Node::items).unwrap_or_default();
    let kind = |service: &Node| service.get("type").and_then(Node::text).unwrap_or_default().to_owned();
    let chosen = services.iter().find(|service| kind(service) == "web").or(services.first());
    for service in
        services.iter().filter(|service| chosen.is_some_and(|chosen| chosen.place != service.place))
    {
        let title = service.get("name").and_then(Node::text).unwrap_or("a service");
        let message = format!("`{title}` ({}) is another service: deploy it by itself", kind(service));
        page.note(service.place.line, message);
    }
    if let Some(service) = chosen {
        page.take(Key::BuildCommand, service.member("buildCommand"));
        page.take(Key::StartCommand, service.member("startCommand"));
        page.take(Key::HealthPath, service.member("healthCheckPath"));
        page.take(Key::StaticRoot, service.member("staticPublishPath"));
        page.take(Key::StopGrace, service.member("maxShutdownDelaySeconds"));
        page.take(Key::Cron, service.member("schedule"));
        page.take_release(service.member("preDeployCommand"));
        page.take(Key::Dockerfile, service.member("dockerfilePath"));
        page.take(Key::Image, service.get("image").and_then(|image| image.member("url")));
        page.take_variables(service.get("envVars"));
        if let Some(disk) = service.get("disk") {
            let name = disk.get("name").and_then(Node::text).unwrap_or("data");
            match disk.get("mountPath").and_then(Node::text) {
                Some(at) => page.take_volume(name, at, disk.place.line),
                None => page.note(disk.place.line, "this disk has no `mountPath`, ignored"),
            }
            page.unknown(disk, &["name", "mountPath"], &["sizeGB"], "disk.");
        }
        page.unknown(service, &READ, &QUIET, "services.");
    }
    for database in tree.get("databases").map(Node::items).unwrap_or_default() {
        let title = database.get("name").and_then(Node::text).unwrap_or("a database");
        page.note(database.place.line, format!("`{title}`: Trackbed runs no database servers"));
    }
    page.unknown(tree, &["services", "databases"], &["envVarGroups", "previews", "projects", "version"], "");
    Ok(())
}

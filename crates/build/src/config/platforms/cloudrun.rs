//! Reads the `service.yaml` of Cloud Run and Knative (cloud.google.com/run/docs/reference/yaml/v1). Another
//! `service.yaml`, such as one of Kubernetes, is left alone.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::config::yaml;

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let documents = yaml::parse(name, text)?;
    let is_ours = |tree: &&Node| {
        tree.get("apiVersion")
            .and_then(Node::text)
            .is_some_and(|text| text.starts_with("serving.knative.dev/"))
    };
    let Some(tree) = documents.iter().find(is_ours) else { return Ok(()) };
    let mut page = Page::new(name, draft);
    let containers =
        tree.at(&["spec", "template", "spec", "containers"]).map(Node::items).unwrap_or_default();
    let Some(container) = containers.first() else { return Ok(()) };
    for other in &containers[1..] {
        page.note(other.place.line, "a second container is not started: a service runs one process");
    }
    page.note_image(container.member("image"));
    match (container.member("command"), container.member("args")) {
        (Some(command), Some(arguments)) => {
            let words = command.node.items().iter().chain(arguments.node.items());
            let words: Vec<String> = words.filter_map(Node::text).map(super::quote).collect();
            page.take_text(Key::StartCommand, command, &words.join(" "));
        }
        (Some(command), None) => page.take_command(Key::StartCommand, Some(command)),
        (None, Some(arguments)) => {
            page.note(arguments.place.line, "`args` without `command` depend on the image, ignored");
        }
        (None, None) => {}
    }
    if let Some(port) = container.get("ports").and_then(|ports| ports.items().first()) {
        page.take(Key::Port, port.member("containerPort"));
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(get) = container.at(&[probe, "httpGet"]) {
            page.take(Key::HealthPath, get.member("path"));
        }
    }
    if let Some(limits) = container.at(&["resources", "limits"]) {
        page.take(Key::Memory, limits.member("memory"));
        if let Some(cpu) = limits.member("cpu") {
            match cpu.node.text().and_then(|text| text.strip_suffix('m')?.parse::<f64>().ok()) {
                Some(millis) => page.take_text(Key::Cpu, cpu, &(millis / 1000.0).to_string()),
                None => page.take(Key::Cpu, Some(cpu)),
            }
        }
    }
    page.take_variables(container.get("env"));
    let read = [
        "image",
        "command",
        "args",
        "ports",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "resources",
        "env",
    ];
    page.unknown(container, &read, &["name", "volumeMounts", "workingDir"], "containers.");
    Ok(())
}

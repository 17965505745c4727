//! Reads `fly.toml` (fly.io/docs/reference/configuration).

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::toml;
use crate::config::tree::{Node, Value};

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let tree = toml::parse(name, text)?;
    let mut page = Page::new(name, draft);
    processes(&mut page, &tree);
    if let Some(http) = tree.get("http_service") {
        page.take(Key::Port, http.member("internal_port"));
        for check in http.get("checks").map(Node::items).unwrap_or_default() {
            page.take(Key::HealthPath, check.member("path"));
        }
        let quiet = [
            "force_https",
            "auto_stop_machines",
            "auto_start_machines",
            "min_machines_running",
            "max_machines_running",
            "concurrency",
            "processes",
            "tls_options",
            "http_options",
        ];
        page.unknown(http, &["internal_port", "checks"], &quiet, "http_service.");
    }
    for service in tree.get("services").map(Node::items).unwrap_or_default() {
        page.take(Key::Port, service.member("internal_port"));
        for check in service.get("http_checks").map(Node::items).unwrap_or_default() {
            page.take(Key::HealthPath, check.member("path"));
        }
    }
    for check in tree.get("checks").map(Node::members).unwrap_or_default() {
        if check.node.get("type").and_then(Node::text) == Some("http") {
            page.take(Key::HealthPath, check.node.member("path"));
        }
    }
    mounts(&mut page, &tree);
    page.take_variables(tree.get("env"));
    page.take_time(Key::StopGrace, tree.member("kill_timeout"));
    if let Some(signal) = tree.member("kill_signal")
        && !matches!(signal.node.text(), Some("SIGTERM" | "SIGINT"))
    {
        page.note(signal.place.line, "`kill_signal` is not obeyed: an app is asked to end by SIGTERM");
    }
    if let Some(deploy) = tree.get("deploy") {
        page.take_release(deploy.member("release_command"));
        let quiet =
            ["strategy", "max_unavailable", "wait_timeout", "release_command_timeout", "release_command_vm"];
        page.unknown(deploy, &["release_command"], &quiet, "deploy.");
    }
    if let Some(build) = tree.get("build") {
        page.take(Key::Dockerfile, build.member("dockerfile"));
        page.take(Key::DockerfileTarget, build.member("build-target"));
        page.take_build_args(build.get("args"));
        page.take(Key::Image, build.member("image"));
        for key in ["builder", "buildpacks"] {
            if let Some(member) = build.member(key) {
                page.note(
                    member.place.line,
                    format!("`{key}` is not used: the source is built by detection"),
                );
            }
        }
        let read = ["dockerfile", "build-target", "args", "image", "builder", "buildpacks"];
        page.unknown(build, &read, &["ignorefile"], "build.");
    }
    machine(&mut page, &tree);
    let read = [
        "http_service",
        "services",
        "checks",
        "mounts",
        "env",
        "kill_timeout",
        "kill_signal",
        "deploy",
        "build",
        "vm",
        "processes",
        "experimental",
    ];
    let quiet = [
        "app",
        "primary_region",
        "console_command",
        "swap_size_mb",
        "metrics",
        "restart",
        "host_dedication_id",
    ];
    page.unknown(&tree, &read, &quiet, "");
    Ok(())
}

/// The main process is the one that gets the requests, else `app`, else the first; the others run beside it.
fn processes(page: &mut Page<'_>, tree: &Node) {
    if let Some(command) = tree.get("experimental").and_then(|table| table.member("cmd")) {
        page.take_command(Key::StartCommand, Some(command));
    }
    let Some(processes) = tree.get("processes") else { return };
    let served = tree.at(&["http_service", "processes"]).and_then(|list| list.items().first());
    let served = served.and_then(Node::text).unwrap_or("app");
    let all = processes.members();
    let chosen = all.iter().find(|member| member.key == served).or(all.first());
    page.take(Key::StartCommand, chosen);
    for member in all {
        page.take_process(member, member.key == served);
    }
}

/// `[mounts]` is one, `[[mounts]]` are several.
fn mounts(page: &mut Page<'_>, tree: &Node) {
    let Some(mounts) = tree.get("mounts") else { return };
    let several = match &mounts.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![mounts],
    };
    for mount in several {
        let name = mount.get("source").and_then(Node::text).unwrap_or("data");
        match mount.get("destination").and_then(Node::text) {
            Some(at) => page.take_volume(name, at, mount.place.line),
            None => page.note(mount.place.line, "this mount has no `destination`, ignored"),
        }
    }
}

fn machine(page: &mut Page<'_>, tree: &Node) {
    let Some(vm) = tree.get("vm") else { return };
    let first = vm.items().first().unwrap_or(vm);
    match first.member("memory") {
        Some(memory) => page.take(Key::Memory, Some(memory)),
        None => {
            if let Some(memory) = first.member("memory_mb")
                && let Value::Number(number) = &memory.node.value
            {
                page.take_text(Key::Memory, memory, &format!("{number}MB"));
            }
        }
    }
}

//! Reads App Runner's `apprunner.yaml` (docs.aws.amazon.com/apprunner/latest/dg/config-file-ref.html).

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::keys::Key;
use crate::config::tree::Node;
use crate::config::yaml;

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let documents = yaml::parse(name, text)?;
    let Some(tree) = documents.first() else { return Ok(()) };
    let mut page = Page::new(name, draft);
    if let Some(commands) = tree.get("build").and_then(|build| build.get("commands")) {
        if let Some(build) = commands.member("build") {
            let steps: Vec<&str> = build.node.items().iter().filter_map(Node::text).collect();
            page.take_text(Key::BuildCommand, build, &steps.join(" && "));
        }
        for key in ["pre-build", "post-build"] {
            if let Some(member) = commands.member(key) {
                page.note(
                    member.place.line,
                    format!("`build.commands.{key}` is not run; put it into `build`"),
                );
            }
        }
    }
    if let Some(run) = tree.get("run") {
        page.take(Key::StartCommand, run.member("command"));
        if let Some(network) = run.get("network") {
            page.take(Key::Port, network.member("port"));
        }
        page.take_variables(run.get("env"));
        for secret in run.get("secrets").map(Node::items).unwrap_or_default() {
            let title = secret.get("name").and_then(Node::text).unwrap_or("?");
            let message = format!("secret `{title}`: set it with `trackbed variables set {title}=…`");
            page.note(secret.place.line, message);
        }
        if let Some(before) = run.member("pre-run") {
            page.take_release(Some(before));
        }
        let read = ["command", "network", "env", "secrets", "pre-run"];
        page.unknown(run, &read, &["runtime-version"], "run.");
    }
    page.unknown(tree, &["build", "run"], &["version", "runtime"], "");
    Ok(())
}

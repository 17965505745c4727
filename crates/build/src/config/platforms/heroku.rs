//! Reads Heroku's `app.json` (devcenter.heroku.com/articles/app-json-schema). Expo and others use the same name for files
//! of their own: one that has none of Heroku's keys is left alone.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::json;
use crate::config::tree::{Node, Value};

const OWN: [&str; 6] = ["env", "formation", "buildpacks", "addons", "scripts", "stack"];
const QUIET: [&str; 11] = [
    "name",
    "description",
    "keywords",
    "website",
    "repository",
    "logo",
    "success_url",
    "image",
    "stack",
    "environments",
    "$schema",
];

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let tree = json::parse(name, text)?;
    if !OWN.iter().any(|key| tree.get(key).is_some()) || tree.get("expo").is_some() {
        return Ok(());
    }
    let mut page = Page::new(name, draft);
    for member in tree.get("env").map(Node::members).unwrap_or_default() {
        let details = &member.node;
        let value = if details.text().is_some() { Some(details) } else { details.get("value") };
        let required = details.get("required").is_none_or(|node| node.value != Value::Bool(false));
        match value.and_then(Node::text) {
            Some(text) if !text.is_empty() => {
                page.take_variable(&member.key, value.unwrap_or(details), member.place.line);
            }
            _ if required => {
                let title = &member.key;
                page.note(
                    member.place.line,
                    format!("`{title}` has no value here: set it with `trackbed variables set {title}=…`"),
                );
            }
            _ => {}
        }
    }
    for process in tree.get("formation").map(Node::members).unwrap_or_default() {
        if let Some(quantity) = process.node.member("quantity") {
            page.take_count(process, quantity);
        }
    }
    for addon in tree.get("addons").map(Node::items).unwrap_or_default() {
        let plan = addon.text().or_else(|| addon.get("plan").and_then(Node::text)).unwrap_or("?");
        page.note(addon.place.line, format!("add-on `{plan}`: Trackbed runs no servers of others"));
    }
    if let Some(scripts) = tree.get("scripts") {
        page.take_release(scripts.member("predeploy"));
        page.take_release(scripts.get("dokku").and_then(|dokku| dokku.member("predeploy")));
        if let Some(member) = scripts.member("postdeploy") {
            let what = "`scripts.postdeploy` runs once on Heroku, after the first deploy: run it with `trackbed run`";
            page.note(member.place.line, what);
        }
    }
    page.unknown(&tree, &OWN, &QUIET, "");
    Ok(())
}

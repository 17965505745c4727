//! Reads the start command, the variables and the folder of a static site of `railpack.json`; everything else of it is Railpack's own build and is named as ignored.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File};
use crate::config::json;
use crate::config::keys::Key;

/// Reads the file.
pub(crate) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let file = File { name, origin: Origin::Railpack };
    let tree = json::parse(name, text)?;
    if let Some(deploy) = tree.get("deploy") {
        if let Some(member) = deploy.member("startCommand") {
            draft.take(file, Key::StartCommand, member)?;
        }
        if let Some(variables) = deploy.get("variables") {
            draft.declare_table(file, variables);
        }
        draft.unknown(file, deploy, &["startCommand", "variables"], &["base"], "deploy.");
    }
    if let Some(site) = tree.get("staticfile") {
        if let Some(member) = site.member("root") {
            draft.take(file, Key::StaticRoot, member)?;
        }
        draft.unknown(file, site, &["root"], &[], "staticfile.");
    }
    draft.unknown(file, &tree, &["deploy", "staticfile"], &["$schema", "provider"], "");
    Ok(())
}

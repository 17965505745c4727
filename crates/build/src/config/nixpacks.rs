//! Reads the start command of `nixpacks.toml`; its phases are Nix's own build and are named as ignored.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File};
use crate::config::keys::Key;
use crate::config::toml;

/// Reads the file.
pub(crate) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let file = File { name, origin: Origin::Nixpacks };
    let tree = toml::parse(name, text)?;
    if let Some(start) = tree.get("start") {
        if let Some(member) = start.member("cmd") {
            draft.take(file, Key::StartCommand, member)?;
        }
        draft.unknown(file, start, &["cmd"], &["runImage"], "start.");
    }
    if let Some(phases) = tree.get("phases") {
        for phase in phases.members() {
            let message =
                format!("`phases.{}` is not run: dependencies are found by Trackbed itself", phase.key);
            draft.warn(name, Some(phase.place.line), message);
        }
    }
    draft.unknown(file, &tree, &["start", "phases"], &["providers"], "");
    Ok(())
}

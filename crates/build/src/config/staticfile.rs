//! Reads a `Staticfile`, which names the folder of a static site.

use trackbed_core::ports::PortError;
use trackbed_core::settings::Origin;

use crate::config::draft::{Draft, File};
use crate::config::keys::Key;
use crate::config::yaml;

/// Reads the file.
pub(crate) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let file = File { name, origin: Origin::Railpack };
    for tree in yaml::parse(name, text)? {
        if let Some(member) = tree.member("root") {
            draft.take(file, Key::StaticRoot, member)?;
        }
        draft.unknown(file, &tree, &["root"], &[], "");
    }
    Ok(())
}

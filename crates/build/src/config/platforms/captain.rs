//! Reads CapRover's `captain-definition` (caprover.com/docs/captain-definition-file.html): it says nothing but how an image
//! is made.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::json;
use crate::config::keys::Key;

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let tree = json::parse(name, text)?;
    let mut page = Page::new(name, draft);
    let read = ["dockerfilePath", "dockerfileLines", "imageName"];
    page.take(Key::Dockerfile, tree.member("dockerfilePath"));
    page.take(Key::Image, tree.member("imageName"));
    if let Some(lines) = tree.member("dockerfileLines") {
        page.note(lines.place.line, "`dockerfileLines` is not read: write the lines into a Dockerfile");
    }
    page.unknown(&tree, &read, &["schemaVersion", "templateId"], "");
    Ok(())
}

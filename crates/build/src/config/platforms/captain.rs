//! Reads CapRover's `captain-definition` (caprover.com/docs/captain-definition-file.html): it says nothing but how an image
//! is made.

use trackbed_core::ports::PortError;

use super::Page;
use crate::config::draft::Draft;
use crate::config::json;

/// Reads the file.
pub(super) fn read(name: &str, text: &str, draft: &mut Draft) -> Result<(), PortError> {
    let tree = json::parse(name, text)?;
    let mut page = Page::new(name, draft);
    let read = ["dockerfilePath", "dockerfileLines", "imageName"];
    for key in read {
        page.note_docker(tree.member(key));
    }
    page.unknown(&tree, &read, &["schemaVersion", "templateId"], "");
    Ok(())
}

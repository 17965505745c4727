//! The disk budget: what may go when the volumes need the room.

use crate::control::Control;

impl Control {
    /// Looks at the room on the disk of the box.
    pub(crate) async fn keep_disk_free(&self, _owes_collection: &mut bool) {}
}

//! Programs that tests use beside the box.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds uv, fetched once by pip into the target folder, so that not every box fetches its own; none
/// when this machine has no pip.
pub fn uv_folder() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = crate::testbox::target_folder().join("test-tools/uv");
            let bin = folder.join("bin");
            // Test programs may run beside each other: made aside, then moved into place by whoever is first.
            if !bin.join("uv").exists() {
                let aside = folder.with_extension(std::process::id().to_string());
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&aside).arg("uv");
                let fetched = pip.output().is_ok_and(|output| output.status.success());
                if fetched {
                    let _ = std::fs::rename(&aside, &folder);
                }
                let _ = std::fs::remove_dir_all(&aside);
            }
            bin.join("uv").exists().then_some(bin)
        })
        .clone()
}

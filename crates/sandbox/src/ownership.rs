//! Hands the writable directories of an instance to the user that it runs as.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use trackbed_core::instance::InstanceKind;
use trackbed_core::isolation::IsolationLevel;

use crate::records::Order;
use crate::shim;
use crate::tree::{Named, Step};

/// Gives a file to a user, without following links.
pub(crate) fn own(path: &Path, uid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid))
}

/// Gives a tree to a user, unless its top already belongs to it: that costs a walk at first use only. The walk may take
/// minutes, and tells that it goes on.
pub(crate) fn ensure_owned(path: &Path, uid: u32) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let kind = fs::symlink_metadata(path)?;
    if kind.uid() == uid {
        return Ok(());
    }
    if kind.is_dir() {
        own_below(path, uid)?;
    }
    // The top last: a walk that was cut short is done again.
    own(path, uid)
}

fn own_below(folder: &Path, uid: u32) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_below(&entry.path(), uid)?;
        }
        // A walk that is done again need not write again.
        if entry.metadata()?.uid() != uid {
            own(&entry.path(), uid)?;
        }
        shim::report_progress();
    }
    Ok(())
}

/// Returns whether the shim must hand directories to the app's user before the sandbox is made.
pub(crate) fn hands_over(order: &Order) -> bool {
    order.level == IsolationLevel::Full
        || (order.level > IsolationLevel::Userns && nix::unistd::geteuid().is_root())
}

/// Gives the instance's writable directories to its user.
pub(crate) fn hand_over(order: &Order, folder: &Path) -> Step<()> {
    if !hands_over(order) {
        return Ok(());
    }
    let mut paths: Vec<PathBuf> =
        order.volumes.iter().map(|volume| volume.host_path.clone().into()).collect();
    paths.extend(order.binds.iter().filter(|bind| bind.writable).map(|bind| bind.host_path.clone().into()));
    match (&order.app, order.kind) {
        (crate::records::AppRoot::Directory(path), InstanceKind::Job | InstanceKind::Service) => {
            paths.push(path.clone());
        }
        (crate::records::AppRoot::Layers(_), _) => paths.push(folder.join("upper")),
    }
    for path in paths {
        ensure_owned(&path, order.uid).step(|| format!("give {} to user {}", path.display(), order.uid))?;
    }
    let _ = fs::set_permissions(folder.join("upper"), Permissions::from_mode(0o755));
    Ok(())
}

//! Landlock rules for levels without a file tree of the app's own: read the system, write the app and its volumes.

use std::path::{Path, PathBuf};

use landlock::{Access, AccessFs, RulesetAttr, RulesetCreatedAttr};

use crate::records::Order;

/// Makes the rules of an instance; `app` is where its files are.
pub(crate) fn for_app(order: &Order, app: &Path) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    let abi = landlock::ABI::V3;
    let all = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let shown = ["/usr", "/bin", "/lib", "/lib64", "/lib32", "/sbin", "/etc", "/proc", "/sys", "/opt"];
    let mut written: Vec<PathBuf> = vec![app.into(), "/dev".into(), "/tmp".into(), "/var/tmp".into()];
    written.extend(order.volumes.iter().map(|volume| volume.host_path.clone().into()));
    written.extend(order.binds.iter().filter(|bind| bind.writable).map(|bind| bind.host_path.clone().into()));
    let mut read_only: Vec<PathBuf> = shown.iter().map(PathBuf::from).collect();
    read_only.extend(order.host_paths.iter().cloned());
    read_only
        .extend(order.binds.iter().filter(|bind| !bind.writable).map(|bind| bind.host_path.clone().into()));
    landlock::Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(landlock::path_beneath_rules(read_only, read))?
        .add_rules(landlock::path_beneath_rules(written, all))
}

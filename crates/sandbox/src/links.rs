//! Symbolic links from where an app looks for its data to where the data is by now: inside a volume.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use trackbed_core::instance::{AppLink, AppTree, InstanceSpec, VolumeMount};
use trackbed_core::isolation::IsolationLevel;
use trackbed_core::ports::PortError;

use crate::ownership::own;
use crate::records::Order;
use crate::tree::{Named, Step};

/// Checks the links of an instance before anything of it is made.
///
/// # Errors
/// When one leads from elsewhere than below `/app`, or to elsewhere than into a volume of the instance.
pub(crate) fn check(spec: &InstanceSpec) -> Result<(), PortError> {
    for (index, link) in spec.links.iter().enumerate() {
        let refused = |why: &str| {
            let message = format!("cannot link {} to {} for {}: {why}", link.at, link.to, spec.title);
            Err(PortError::new(message))
        };
        let (at, to) = (Path::new(&link.at), Path::new(&link.to));
        if matches!(spec.app, AppTree::Directory { .. }) {
            return refused("it has no files of its own");
        }
        if !is_plain(at) || !is_below(at, Path::new("/app")) {
            return refused("a link must lie below /app");
        }
        if !is_plain(to) || find_volume(&spec.volumes, to).is_none() {
            return refused("it must lead into one of the volumes");
        }
        let mut mounts = spec.volumes.iter().map(|volume| Path::new(volume.mount.as_str()));
        if mounts.any(|mount| at.starts_with(mount) || mount.starts_with(at)) {
            return refused("a volume is mounted there");
        }
        let mut earlier = spec.links[..index].iter().map(|link| Path::new(&link.at));
        if earlier.any(|earlier| at.starts_with(earlier) || earlier.starts_with(at)) {
            return refused("another link is in its way");
        }
    }
    Ok(())
}

/// Makes the links of an instance in its tree, which nobody else can write to yet. `app` is where `/app` is now.
pub(crate) fn make(order: &Order, app: &Path) -> Step<()> {
    for link in &order.links {
        make_one(order, link, app).map_err(|why| format!("cannot link {} to {}: {why}", link.at, link.to))?;
    }
    Ok(())
}

fn make_one(order: &Order, link: &AppLink, app: &Path) -> Step<()> {
    let inside = Path::new(&link.at).strip_prefix("/app").step(|| "find its place".to_owned())?;
    let mut at = app.to_owned();
    let mut names = inside.components().peekable();
    while let Some(name) = names.next() {
        at.push(name);
        if names.peek().is_none() {
            break;
        }
        match fs::symlink_metadata(&at) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => return Err(format!("{} of the image is not a directory", at.display())),
            Err(_) => {
                fs::create_dir(&at).step(|| format!("make {}", at.display()))?;
                give(order, &at)?;
            }
        }
    }
    // What the image has there stays in its layer, hidden.
    trackbed_stdx::files::remove_tree(&at).step(|| format!("make room at {}", at.display()))?;
    symlink(target(order, &link.to), &at).step(|| format!("make {}", at.display()))?;
    give(order, &at)
}

/// Without mounts, a volume is where it lies on the box.
fn target(order: &Order, to: &str) -> PathBuf {
    let to = Path::new(to);
    match find_volume(&order.volumes, to) {
        Some((volume, inside)) if order.level > IsolationLevel::Userns => {
            Path::new(&volume.host_path).join(inside)
        }
        Some(_) | None => to.to_owned(),
    }
}

fn give(order: &Order, path: &Path) -> Step<()> {
    if !crate::ownership::hands_over(order) {
        return Ok(());
    }
    own(path, order.uid).step(|| format!("give {} to the app", path.display()))
}

/// Returns the innermost volume that a path lies in, and the rest of the path.
fn find_volume<'a>(volumes: &'a [VolumeMount], path: &'a Path) -> Option<(&'a VolumeMount, &'a Path)> {
    let inside = volumes.iter().filter_map(|volume| {
        let rest = path.strip_prefix(volume.mount.as_str()).ok()?;
        (!rest.as_os_str().is_empty()).then_some((volume, rest))
    });
    inside.max_by_key(|(volume, _)| volume.mount.as_str().len())
}

/// Returns whether a path is absolute and has no steps that lead up or nowhere.
fn is_plain(path: &Path) -> bool {
    let mut names = path.components();
    let is_absolute = names.next() == Some(Component::RootDir);
    // Components leave out `.` and doubled slashes, which a link must not have either.
    is_absolute
        && names.all(|name| matches!(name, Component::Normal(_)))
        && path.components().as_path().as_os_str() == path.as_os_str()
        && !path.to_string_lossy().contains("/./")
        && !path.to_string_lossy().contains("//")
}

fn is_below(path: &Path, folder: &Path) -> bool {
    path != folder && path.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_plain_is_no_place_for_a_link() {
        for path in ["/app/x", "/app/a/b.db", "/data/x"] {
            assert!(is_plain(Path::new(path)), "{path}");
        }
        for path in ["", "app/x", "/app/../etc/x", "/app/./x", "/app//x", "/app/x/", "/app/x/.."] {
            assert!(!is_plain(Path::new(path)), "{path}");
        }
        assert!(!is_below(Path::new("/app"), Path::new("/app")));
        assert!(!is_below(Path::new("/application/x"), Path::new("/app")));
    }
}

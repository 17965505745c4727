//! What stands at `/app`: the layers of an image under a writable top, a build's directory, or, without mounts, a copy.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use trackbed_core::isolation::IsolationLevel;

use crate::mounts::{self, NODEV, NOSUID, RDONLY};
use crate::records::{AppRoot, Order};
use crate::sandbox::BUILD_UID;
use crate::tree::{Named, Step, make_folder};

/// Mounts `/app` below `root`. The working directory is the instance's directory, with `upper` and `work` in it.
pub(crate) fn mount_app(order: &Order, root: &Path, uid: u32, notes: &mut Vec<String>) -> Step<()> {
    let app = root.join("app");
    make_folder(&app)?;
    let layers = match &order.app {
        AppRoot::Directory(path) => {
            let taken = mounts::take(path, NOSUID | NODEV).step(|| format!("show {}", path.display()))?;
            return mounts::place(&taken, &app).step(|| "mount /app".to_owned());
        }
        AppRoot::Layers(layers) => layers,
    };
    // Short names of our own: lowerdir takes neither `:` nor `,`, and all of it must fit a page.
    let stack = root.join(".layers");
    let mut lower: Vec<String> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let at = stack.join(index.to_string());
        make_folder(&at)?;
        place_layer(order, layer, &at, uid, notes)?;
        lower.push(at.display().to_string());
    }
    if lower.is_empty() {
        let empty = stack.join("empty");
        make_folder(&empty)?;
        lower.push(empty.display().to_string());
    }
    let userns = order.level == IsolationLevel::Userns;
    let options = format!(
        "lowerdir={},upperdir=upper,workdir=work{}",
        lower.join(":"),
        if userns { ",userxattr" } else { "" }
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mounted = mount(Some("overlay"), &app, Some("overlay"), flags, Some(options.as_str()));
    match (mounted, layers.as_slice()) {
        (Ok(()), _) => {}
        (Err(error), [only]) => {
            let taken =
                mounts::take(only, RDONLY | NOSUID | NODEV).step(|| format!("show {}", only.display()))?;
            mounts::place(&taken, &app).step(|| "mount /app".to_owned())?;
            notes.push(format!("writable /app: overlayfs refused ({error}), so it is read-only"));
        }
        (Err(error), _) => {
            return Err(format!("cannot stack {} layers at /app with overlayfs: {error}", layers.len()));
        }
    }
    // The overlay holds its layers by itself.
    for index in 0..layers.len() {
        let _ = umount2(&stack.join(index.to_string()), MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&stack);
    Ok(())
}

/// Shows a layer with its owner changed to the app's user, so that an app may write where its image has directories:
/// what it writes goes to the top, the layer stays as it is.
fn place_layer(order: &Order, layer: &Path, at: &Path, uid: u32, notes: &mut Vec<String>) -> Step<()> {
    let taken =
        mounts::take(layer, RDONLY | NOSUID | NODEV).step(|| format!("show layer {}", layer.display()))?;
    if order.level == IsolationLevel::Full {
        let owner = fs::metadata(layer).step(|| format!("read layer {}", layer.display()))?;
        let shifted =
            mounts::id_map(Path::new("root/proc"), &id_lines(owner.uid(), uid), &id_lines(owner.gid(), uid))
                .and_then(|map| mounts::shift_owner(&taken, &map));
        if let Err(error) = shifted {
            notes.push(format!(
                "writing below directories of the image: its files cannot be shown as the app's own ({error})"
            ));
        }
    }
    mounts::place(&taken, at).step(|| format!("place layer {}", layer.display()))
}

fn id_lines(from: u32, to: u32) -> String {
    let mut lines = format!("{from} {to} 1\n");
    for other in [0, BUILD_UID] {
        if other != from && other != to {
            lines.push_str(&format!("{other} {other} 1\n"));
        }
    }
    lines
}

/// Without mounts, makes `<instance>/root/app` from the layers and links the volumes into it. Returns where `/app` is.
pub(crate) fn copy_app(order: &Order, folder: &Path) -> Step<PathBuf> {
    let app = match &order.app {
        AppRoot::Directory(path) => path.clone(),
        AppRoot::Layers(layers) => {
            let app = folder.join("root/app");
            make_folder(&app)?;
            for layer in layers.iter().rev() {
                copy_tree(layer, &app).step(|| format!("copy layer {}", layer.display()))?;
            }
            app
        }
    };
    for volume in &order.volumes {
        let Some(inside) = volume.mount.as_str().strip_prefix("/app/") else {
            return Err(format!(
                "volume {} cannot be at {}: this box has no mounts for apps, only paths below /app work",
                volume.volume,
                volume.mount.as_str()
            ));
        };
        let at = app.join(inside);
        make_folder(at.parent().unwrap_or(&app))?;
        let _ = fs::remove_dir(&at);
        symlink(&volume.host_path, &at)
            .step(|| format!("link volume {} at {}", volume.volume, at.display()))?;
    }
    crate::links::make(order, &app)?;
    if crate::ownership::hands_over(order) {
        crate::ownership::ensure_owned(&app, order.uid)
            .step(|| format!("give {} to the app", app.display()))?;
    }
    Ok(app)
}

/// Copies files rather than linking them: an app may write to its copy, and a layer must never change. The copies are
/// as old as what they were made from, so that one which is written to can be told.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        crate::shim::report_progress();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if fs::symlink_metadata(&target).is_ok_and(|kind| !kind.is_dir()) {
                fs::remove_file(&target)?;
            }
            fs::create_dir_all(&target)?;
            copy_tree(&source, &target)?;
        } else {
            trackbed_stdx::files::remove_tree(&target)?;
            if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                fs::copy(&source, &target)?;
                let data = entry.metadata()?;
                let modified = TimeSpec::new(data.mtime(), data.mtime_nsec());
                utimensat(
                    AT_FDCWD,
                    &target,
                    &TimeSpec::UTIME_OMIT,
                    &modified,
                    UtimensatFlags::NoFollowSymlink,
                )?;
            }
        }
    }
    Ok(())
}

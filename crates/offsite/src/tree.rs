//! A folder as a tar and back: the same folder always gives the same bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

/// Writes a folder as a tar: entries by name, without owners, with modes and times. Python trusts compiled files by the
/// time of their source.
pub(crate) fn pack(folder: &Path, to: &mut dyn Write) -> io::Result<()> {
    let mut builder = Builder::new(to);
    append(&mut builder, folder, Path::new(""))?;
    builder.finish()
}

fn append(builder: &mut Builder<&mut dyn Write>, folder: &Path, within: &Path) -> io::Result<()> {
    let mut names =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let (path, inside) = (folder.join(&name), within.join(&name));
        let metadata = fs::symlink_metadata(&path)?;
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
        if metadata.is_symlink() {
            // Nobody asks when a link was made, and unpacking makes it anew.
            header.set_mtime(0);
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, &inside, fs::read_link(&path)?)?;
        } else if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            builder.append_data(&mut header, &inside, io::empty())?;
            append(builder, &path, &inside)?;
        } else if metadata.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            builder.append_data(&mut header, &inside, File::open(&path)?.take(metadata.len()))?;
        }
    }
    Ok(())
}

/// Unpacks what [`pack`] wrote into a folder that does not exist yet, and makes it durable. Nothing leaves the folder.
pub(crate) fn unpack(from: &mut dyn Read, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(false);
    archive.set_overwrite(false);
    archive.unpack(folder)?;
    nix::unistd::syncfs(File::open(folder)?)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_folder_comes_back_with_modes_times_and_links_and_packs_to_the_same_bytes() {
        let scratch = tempfile::tempdir().unwrap();
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        fs::create_dir_all(one.join("bin/deep")).unwrap();
        fs::write(one.join("bin/run"), "#!/bin/sh").unwrap();
        fs::set_permissions(one.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(one.join("x".repeat(150)), "a long name").unwrap();
        symlink("bin/run", one.join("link")).unwrap();
        symlink("/usr/bin/python3", one.join("bin/python")).unwrap();
        let past = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
        let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &one.join("link"), &past, &past, follow).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::open(one.join("bin/run")).unwrap().set_modified(long_ago).unwrap();
        let packed = |folder: &Path| {
            let mut bytes = Vec::new();
            pack(folder, &mut bytes).unwrap();
            bytes
        };
        let bytes = packed(&one);
        unpack(&mut bytes.as_slice(), &two).unwrap();
        assert_eq!(packed(&two), bytes);
        assert_eq!(fs::read_link(two.join("bin/python")).unwrap(), Path::new("/usr/bin/python3"));
        assert!(unpack(&mut bytes.as_slice(), &two).is_err(), "a folder that is there is left alone");
    }
}

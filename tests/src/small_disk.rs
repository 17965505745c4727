//! A disk of a few megabytes that a test can fill: a file system in a file, mounted. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file system on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Copies every byte.
    Ext4,
    /// Shares blocks between files.
    XfsReflink,
}

impl FileSystem {
    fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-m", "0"]),
            FileSystem::XfsReflink => ("mkfs.xfs", &["-q", "-m", "reflink=1"]),
        }
    }

    /// Returns whether this machine can make it; says loudly what is not tested when it cannot.
    pub fn is_here(self, what: &str) -> bool {
        let (program, _) = self.program();
        let here = Path::new("/usr/sbin").join(program).exists() || Path::new("/sbin").join(program).exists();
        if !here {
            eprintln!("NOT TESTED (no {program} here): {what}");
        }
        here && crate::is_root(what)
    }
}

/// A mounted disk; it is unmounted when it is dropped.
pub struct SmallDisk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Makes a disk below a folder.
    pub(crate) fn mount(folder: &Path, file_system: FileSystem, megabytes: u64) -> SmallDisk {
        let disk = SmallDisk { image: folder.join("disk.image"), mount_point: folder.join("disk") };
        let image = fs::File::create(&disk.image).expect("a file for the disk");
        image.set_len(megabytes << 20).expect("a sparse file");
        drop(image);
        fs::create_dir(&disk.mount_point).expect("a mount point");
        let (program, arguments) = file_system.program();
        run(Command::new(Path::new("/usr/sbin").join(program)).args(arguments).arg(&disk.image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(&disk.mount_point));
        disk
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Fills it until only so many bytes are free.
    pub fn fill_up_to(&self, free_megabytes: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.mount_point).expect("a mounted disk");
        let free = stat.blocks_available() * stat.fragment_size();
        let taken = free.saturating_sub(free_megabytes << 20);
        run(Command::new("fallocate").arg("--length").arg(taken.to_string()).arg(self.ballast()));
    }

    /// Gives the space back.
    pub fn empty(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mount_point).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.mount_point.display());
            // It must not be emptied through the mount point by whoever removes the folder.
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount_point).status();
        }
        let _ = fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

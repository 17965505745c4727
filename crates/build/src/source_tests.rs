//! What a hostile or broken upload may try, and what a good one becomes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

struct Upload(tar::Builder<Vec<u8>>);

impl Upload {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an entry with exactly this name: the builder itself would refuse the bad ones.
    fn add(mut self, kind: tar::EntryType, name: &str, link: &str, data: &[u8], mode: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(tar::EntryType::Regular, name, "", data.as_bytes(), 0o600)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, name, target, b"", 0o777)
    }

    fn receive(self, data_dir: &Path) -> Result<Source, PortError> {
        receive(&self.0.into_inner().unwrap()[..], data_dir, SourceLimits::default(), None)
    }

    fn refused(self) -> String {
        let data_dir = tempfile::tempdir().unwrap();
        let error = self.receive(data_dir.path()).unwrap_err();
        assert_eq!(fs::read_dir(data_dir.path().join("tmp")).unwrap().count(), 0, "nothing is left");
        assert_eq!(fs::read_dir(data_dir.path().join("sources")).unwrap().count(), 0, "nothing is kept");
        error.message
    }
}

#[test]
fn a_good_upload_becomes_a_normalised_tree_once() {
    let data_dir = tempfile::tempdir().unwrap();
    let upload = || {
        Upload::new()
            .add(tar::EntryType::Directory, "./", "", b"", 0o700)
            .file("./main.py", "print()")
            .add(tar::EntryType::Regular, "bin/run", "", b"#!", 0o700)
            .file(".git/config", "x")
            .file("a/node_modules/x.js", "x")
            .link("latest", "bin/../bin/run")
    };
    let source = upload().receive(data_dir.path()).unwrap();
    let mode = |name: &str| fs::metadata(source.path.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("main.py"), mode("bin/run"), mode("bin")), (0o644, 0o755, 0o755));
    assert!(!source.path.join(".git").exists() && !source.path.join("a").exists());
    assert_eq!(fs::read(source.path.join("latest")).unwrap(), b"#!");
    assert_eq!(upload().receive(data_dir.path()).unwrap(), source);
    assert_eq!(fs::read_dir(data_dir.path().join("tmp")).unwrap().count(), 0);
    let other = Upload::new().file("main.py", "print() ").receive(data_dir.path()).unwrap();
    assert_ne!(other.digest, source.digest);
}

#[test]
fn names_that_leave_the_tree_are_refused() {
    assert!(Upload::new().file("/etc/passwd", "x").refused().contains("is absolute"));
    assert!(Upload::new().file("a/../../x", "x").refused().contains("leads out of the folder"));
    assert!(Upload::new().link("a", "/tmp").file("a/x", "x").refused().contains("not a folder"));
}

#[test]
fn links_that_leave_the_tree_are_refused() {
    assert!(Upload::new().file("x", "x").link("a", "/etc").refused().contains("absolute"));
    assert!(Upload::new().file("x", "x").link("b/a", "../../x").refused().contains("out of the source"));
    // Lexically inside, really outside: `s` leads to the root first.
    let sly = Upload::new().link("x/y/s", "../..").link("t", "x/y/s/..");
    assert!(sly.refused().contains("out of the source"));
    assert!(Upload::new().link("a", "b").link("b", "a").refused().contains("circle"));
}

#[test]
fn special_files_are_refused() {
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo] {
        assert!(Upload::new().add(kind, "dev", "", b"", 0o600).refused().contains("special file"));
    }
    let hard = Upload::new().add(tar::EntryType::Link, "a", "etc/shadow", b"", 0o600);
    assert!(hard.refused().contains("not in the source"));
}

#[test]
fn empty_and_broken_uploads_are_refused() {
    assert!(Upload::new().refused().contains("nothing to deploy"));
    assert!(Upload::new().file(".git/HEAD", "x").refused().contains("nothing to deploy"));
    assert!(Upload::new().file("a", "1").file("./a", "2").refused().contains("twice"));
    let data_dir = tempfile::tempdir().unwrap();
    let whole = Upload::new().file("a", &"x".repeat(5000)).0.into_inner().unwrap();
    let error = receive(&whole[..2000], data_dir.path(), SourceLimits::default(), None).unwrap_err();
    assert!(error.message.contains("broke off"), "{}", error.message);
    // Broken off exactly between two files.
    let error = receive(&whole[..512 + 5120], data_dir.path(), SourceLimits::default(), None).unwrap_err();
    assert!(error.message.contains("the end of the archive is missing"), "{}", error.message);
}

#[test]
fn uploads_over_the_limits_are_refused() {
    let limited = |upload: Upload, limits| {
        let data_dir = tempfile::tempdir().unwrap();
        receive(&upload.0.into_inner().unwrap()[..], data_dir.path(), limits, None).unwrap_err().message
    };
    let limits = SourceLimits { total_bytes: 15, file_bytes: 10, entries: 2, names_bytes: 20 };
    assert!(limited(Upload::new().file("a", "12345678901"), limits).contains("per file"));
    assert!(limited(Upload::new().file("a", "123456789").file("b", "123456789"), limits).contains("in all"));
    let many = Upload::new().file("a", "").file("b", "").file("c", "");
    assert!(limited(many, limits).contains("more than 2 files"));
    let long = Upload::new().file("a", "").link("b", "a/../a/../a/../a/../a");
    assert!(limited(long, limits).contains("longer than 20 bytes"));
}

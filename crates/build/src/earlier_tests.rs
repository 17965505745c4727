//! What an upload may tell against an earlier source, and what it may not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::source::{SourceLimits, receive};
use trackbed_core::ports::Source;

fn file(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &str, mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, data.as_bytes()).unwrap();
}

fn gone(tar: &mut tar::Builder<Vec<u8>>, records: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(records.len() as u64);
    tar.append_data(&mut header, "gone", records.as_bytes()).unwrap();
}

fn whole(data_dir: &Path, files: &[(&str, &str)]) -> Source {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        file(&mut tar, name, data, 0o644);
    }
    receive(&tar.into_inner().unwrap()[..], data_dir, SourceLimits::default(), None).unwrap()
}

fn against(
    data_dir: &Path,
    earlier: &Source,
    limits: SourceLimits,
    fill: impl FnOnce(&mut tar::Builder<Vec<u8>>),
) -> Result<Source, PortError> {
    let mut tar = tar::Builder::new(Vec::new());
    fill(&mut tar);
    let earlier = Earlier::find(data_dir, &earlier.digest).unwrap();
    receive(&tar.into_inner().unwrap()[..], data_dir, limits, Some(earlier))
}

const FIRST: [(&str, &str); 4] = [("a", "1"), ("b/c", "22"), ("b/d", "333"), ("gone/x", "4444")];

#[test]
fn a_difference_makes_the_same_source_as_a_whole_upload() {
    let folder = tempfile::tempdir().unwrap();
    let first = whole(folder.path(), &FIRST);
    let second = against(folder.path(), &first, SourceLimits::default(), |tar| {
        gone(tar, "22 TRACKBED.gone=gone\n24 TRACKBED.gone=gone/x\n32 TRACKBED.gone=never/was/here\n");
        file(tar, "b/c", "two", 0o644);
        file(tar, "b/new", "", 0o755);
    });
    let second = second.unwrap();
    let inode = |source: &Source, name: &str| fs::metadata(source.path.join(name)).unwrap().ino();
    assert_eq!(inode(&first, "b/d"), inode(&second, "b/d"), "what is the same is not stored again");
    assert_ne!(inode(&first, "b/c"), inode(&second, "b/c"));
    assert_eq!(fs::read(first.path.join("b/c")).unwrap(), b"22");
    assert!(!second.path.join("gone").exists());
    assert_eq!(fs::metadata(second.path.join("b")).unwrap().permissions().mode() & 0o7777, 0o755);
    let other = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data, mode) in
        [("a", "1", 0o644), ("b/c", "two", 0o644), ("b/d", "333", 0o644), ("b/new", "", 0o755)]
    {
        file(&mut tar, name, data, mode);
    }
    let told = receive(&tar.into_inner().unwrap()[..], other.path(), SourceLimits::default(), None).unwrap();
    assert_eq!(second.digest, told.digest);
    // The next one is told against this one, and the first is not needed any more.
    files::remove_tree(&first.path).unwrap();
    let third = against(folder.path(), &second, SourceLimits::default(), |tar| file(tar, "a", "one", 0o644));
    assert_eq!(fs::read(third.unwrap().path.join("b/d")).unwrap(), b"333");
}

#[test]
fn a_source_is_only_known_by_what_its_name_proves() {
    let folder = tempfile::tempdir().unwrap();
    let first = whole(folder.path(), &FIRST);
    let listing = place(folder.path(), &first.digest);
    let good = fs::read(&listing).unwrap();
    let find = || Earlier::find(folder.path(), &first.digest).is_some();
    assert!(find());
    let mut other = good.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    for bad in [&other[..], &good[..last], b""] {
        files::write_atomic(&listing, bad, 0o600).unwrap();
        assert!(!find());
    }
    files::write_atomic(&listing, &good, 0o600).unwrap();
    files::remove_tree(&first.path).unwrap();
    assert!(!find());
    assert!(listing.exists());
    forget_gone(folder.path()).unwrap();
    assert!(!listing.exists());
}

#[test]
fn a_file_that_somebody_wrote_to_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let first = whole(folder.path(), &FIRST);
    // The disk's clock goes in steps.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut writer = fs::OpenOptions::new().append(true).open(first.path.join("b/d")).unwrap();
    io::Write::write_all(&mut writer, b"!").unwrap();
    let add = |tar: &mut tar::Builder<Vec<u8>>| file(tar, "e", "5", 0o644);
    let error = against(folder.path(), &first, SourceLimits::default(), add).unwrap_err();
    assert!(error.message.contains("b/d") && error.message.contains("written into the earlier"), "{error}");
    let replace = |tar: &mut tar::Builder<Vec<u8>>| file(tar, "b/d", "5", 0o644);
    against(folder.path(), &first, SourceLimits::default(), replace).unwrap();
}

#[test]
fn limits_and_links_hold_for_what_is_taken_over_too() {
    let folder = tempfile::tempdir().unwrap();
    let first = whole(folder.path(), &FIRST);
    let limits =
        |total_bytes, entries| SourceLimits { total_bytes, file_bytes: 100, entries, names_bytes: 100 };
    let add = |tar: &mut tar::Builder<Vec<u8>>| file(tar, "e", "55555", 0o644);
    let error = against(folder.path(), &first, limits(14, 100), add).unwrap_err();
    assert!(error.message.contains("in all"), "{error}");
    let error = against(folder.path(), &first, limits(100, 6), add).unwrap_err();
    assert!(error.message.contains("more than 6 files"), "{error}");
    // A file that is replaced does not count twice.
    against(folder.path(), &first, limits(10, 6), |tar| file(tar, "gone/x", "4.44", 0o644)).unwrap();
    let error = against(folder.path(), &first, limits(100, 100), |tar| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, "b/out", "../../etc").unwrap();
    });
    assert!(error.unwrap_err().message.contains("out of the source"));
    // A file stands where the earlier source has a folder that is not told to be gone.
    let error =
        against(folder.path(), &first, limits(100, 100), |tar| file(tar, "b", "", 0o644)).unwrap_err();
    assert!(error.message.contains("`b/c` lies below `b`, which is not a folder"), "{error}");
    let error = against(folder.path(), &first, limits(100, 100), |tar| gone(tar, "nonsense\n")).unwrap_err();
    assert!(error.message.contains("which files are gone"), "{error}");
    let error =
        against(folder.path(), &first, limits(100, 100), |tar| gone(tar, &"x".repeat(101))).unwrap_err();
    assert!(error.message.contains("too many files that are gone"), "{error}");
    let error = against(folder.path(), &first, limits(100, 100), |tar| file(tar, &"n".repeat(90), "", 0o644));
    assert!(error.unwrap_err().message.contains("longer than 100 bytes"));
    let error = against(folder.path(), &first, limits(100, 100), |tar| {
        gone(
            tar,
            "19 TRACKBED.gone=a\n21 TRACKBED.gone=b/c\n21 TRACKBED.gone=b/d\n24 TRACKBED.gone=gone/x\n",
        );
    });
    assert!(error.unwrap_err().message.contains("nothing to deploy"));
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0, "nothing is left");
}

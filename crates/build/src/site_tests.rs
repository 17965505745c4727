//! What of a folder becomes a site.

use std::os::unix::fs::symlink;

use rustix::fs::fgetxattr;
use trackbed_stdx::files::write_atomic;

use super::*;

fn tree(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_atomic(&path, b"text", 0o600).unwrap();
    }
    folder
}

#[test]
fn hidden_names_settings_and_packages_are_left_out() {
    let from = tree(&[
        "index.html",
        ".env",
        ".git/config",
        ".well-known/acme",
        "a/.well-known/x",
        "a/Procfile",
        "Procfile",
        "trackbed.toml",
        "railway.json",
        "Staticfile",
        "node_modules/x/index.js",
    ]);
    symlink("index.html", from.path().join("home.html")).unwrap();
    let to = tempfile::tempdir().unwrap();
    assert_eq!(copy(from.path(), to.path(), true).unwrap(), 3);
    for (path, is_there) in [
        ("index.html", true),
        ("home.html", true),
        (".well-known/acme", true),
        ("a/Procfile", true),
        ("a/.well-known", false),
        (".env", false),
        (".git", false),
        ("Procfile", false),
        ("trackbed.toml", false),
        ("railway.json", false),
        ("Staticfile", false),
        ("node_modules", false),
    ] {
        assert_eq!(to.path().join(path).exists(), is_there, "{path}");
    }
}

#[test]
fn a_file_keeps_its_time_and_carries_the_digest_of_its_content() {
    let (from, to) = (tree(&["a.txt", "b.txt"]), tempfile::tempdir().unwrap());
    copy(from.path(), to.path(), true).unwrap();
    let time = |folder: &Path| fs::metadata(folder.join("a.txt")).unwrap().modified().unwrap();
    assert_eq!(time(from.path()), time(to.path()));
    let digest = |name: &str| {
        let mut bytes = [0; 64];
        let file = File::open(to.path().join(name)).unwrap();
        let length = fgetxattr(&file, DIGEST, &mut bytes).ok()?;
        Some(bytes[..length].to_vec())
    };
    // Some file systems keep no attributes; then none of the two has one.
    assert_eq!(digest("a.txt"), digest("b.txt"), "the same content");
    if let Some(digest) = digest("a.txt") {
        // SHA-256 of `text`, the first half.
        assert_eq!(digest, b"982d9e3eb996f559e633f4d194def376");
    }
}

#[test]
fn the_folder_is_one_of_the_tree_itself() {
    let tree = tree(&["dist/index.html", "file"]);
    symlink("dist", tree.path().join("public")).unwrap();
    symlink("/etc", tree.path().join("out")).unwrap();
    for root in ["dist", "public", "."] {
        assert!(folder_of(tree.path(), root, true).is_ok(), "{root}");
    }
    for (root, part) in [
        ("out", "leads out of the source"),
        ("build", "no folder `build`; it has `dist`"),
        ("file", "no folder `file`"),
    ] {
        let error = folder_of(tree.path(), root, true).unwrap_err();
        assert!(error.message.contains(part), "{error}");
    }
}

//! Which files are taken along, and which stop everything.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;
use crate::tests::Scratch;

fn walk(folder: &Path) -> Result<Tree> {
    Walk { root: folder, data_dir: Path::new("/nonexistent"), heed_gitignore: true }.run()
}

fn files(folder: &Path) -> Vec<String> {
    let tree = walk(folder).unwrap();
    let files = tree.entries.iter().filter(|entry| entry.kind != EntryKind::Folder);
    files.map(|entry| entry.path.display().to_string()).collect()
}

fn refusal(folder: &Path) -> String {
    walk(folder).map(|tree| panic!("{tree:?}")).unwrap_or_else(|error| format!("{error:#}"))
}

#[test]
fn ignore_files_count_without_a_repository_and_nested() {
    let folder = Scratch::with(&[
        (".gitignore", "*.log\n/out/\n!keep.log\n"),
        (".railwayignore", "tests/\n"),
        (".env", "A=1"),
        (".hidden/file", ""),
        ("a.log", ""),
        ("keep.log", ""),
        ("main.py", ""),
        ("out/x", ""),
        ("sub/.gitignore", "data.db\n"),
        ("sub/data.db", ""),
        ("sub/out/y", ""),
        ("tests/test.py", ""),
    ]);
    let expected = [
        ".env",
        ".gitignore",
        ".hidden/file",
        ".railwayignore",
        "keep.log",
        "main.py",
        "sub/.gitignore",
        "sub/out/y",
    ];
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn some_folders_are_dropped_wherever_they_stand() {
    let folder = Scratch::with(&[
        (".git/HEAD", ""),
        (".venv/bin/python", ""),
        ("a/node_modules/x/index.js", ""),
        ("a/__pycache__/m.pyc", ""),
        ("a/.git", "gitdir: elsewhere"),
        ("a/m.py", ""),
    ]);
    assert_eq!(files(folder.path()), ["a/m.py"]);
}

#[test]
fn gitignore_can_be_left_out_but_not_railwayignore() {
    let folder = Scratch::with(&[(".gitignore", "a"), (".railwayignore", "b"), ("a", ""), ("b", "")]);
    let walk = Walk { root: folder.path(), data_dir: Path::new("/nonexistent"), heed_gitignore: false };
    let tree = walk.run().unwrap();
    let paths: Vec<_> = tree.entries.iter().map(|entry| entry.path.display().to_string()).collect();
    assert_eq!(paths, [".gitignore", ".railwayignore", "a"]);
}

#[test]
fn ignore_files_above_count_only_within_the_repository() {
    let folder = Scratch::with(&[(".gitignore", "*"), ("app/main.py", "")]);
    assert_eq!(files(&folder.path().join("app")), ["main.py"]);
    let repository =
        Scratch::with(&[(".git/HEAD", ""), (".gitignore", "*.db"), ("app/a.db", ""), ("app/m.py", "")]);
    assert_eq!(files(&repository.path().join("app")), ["m.py"]);
}

#[test]
fn the_data_folder_of_the_box_is_no_source() {
    let folder = Scratch::with(&[("main.py", ""), ("box/state.db", "")]);
    let data_dir = folder.path().join("box");
    let tree = Walk { root: folder.path(), data_dir: &data_dir, heed_gitignore: true }.run().unwrap();
    assert_eq!(tree.files, 1);
}

#[test]
fn links_within_stay_links_and_links_out_are_named() {
    let folder = Scratch::with(&[("a/file", "x")]);
    symlink("a/file", folder.path().join("inside")).unwrap();
    symlink("missing", folder.path().join("dangling")).unwrap();
    let tree = walk(folder.path()).unwrap();
    let link = tree.entries.iter().find(|entry| entry.path == Path::new("inside")).unwrap();
    assert_eq!(link.kind, EntryKind::Link("a/file".into()));

    for target in ["/etc/passwd", "../../etc/passwd", "../x"] {
        let out = folder.path().join("out");
        symlink(target, &out).unwrap();
        let said = refusal(folder.path());
        assert!(said.contains("link out leads out") && said.contains(target), "{said}");
        fs::remove_file(out).unwrap();
    }
}

#[test]
fn a_link_that_leads_out_through_another_link_is_found() {
    let outside = Scratch::with(&[("app/s/x", ""), ("secret", "")]);
    let app = outside.path().join("app");
    symlink("..", app.join("s/up")).unwrap();
    symlink("up/../secret", app.join("s/sly")).unwrap();
    assert!(refusal(&app).contains("link s/sly leads out"));
}

#[test]
fn of_several_refusals_the_same_is_told_each_time() {
    let folder = Scratch::with(&[("b/x", ""), ("c/x", ""), ("a/x", "")]);
    for name in ["b/out", "c/out", "a/out"] {
        symlink("/etc/passwd", folder.path().join(name)).unwrap();
    }
    for _ in 0..50 {
        assert!(refusal(folder.path()).contains("link a/out leads out"));
    }
}

#[test]
fn pipes_and_sockets_are_refused_by_name() {
    let folder = Scratch::with(&[("main.py", "")]);
    let _listener = UnixListener::bind(folder.path().join("app.sock")).unwrap();
    assert!(refusal(folder.path()).contains("app.sock is a socket"));

    let folder = Scratch::with(&[("main.py", "")]);
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
    assert!(made.success());
    assert!(refusal(folder.path()).contains("pipe is a named pipe"));
}

#[test]
fn an_unreadable_file_stops_everything() {
    let folder = Scratch::with(&[("main.py", ""), ("secret", "")]);
    let secret = folder.path().join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&secret).is_ok() {
        // Root reads everything.
        return;
    }
    let said = walk(folder.path()).unwrap().check_readable().unwrap_err().to_string();
    assert!(said.contains("cannot read secret") && said.contains("nothing was uploaded"), "{said}");
}

#[test]
fn no_folder_and_nothing_in_it_are_told_apart() {
    let folder = Scratch::with(&[(".gitignore", "*"), ("a", "")]);
    assert!(refusal(folder.path()).contains("nothing to deploy"));
    assert!(refusal(&folder.path().join("a")).contains("not a folder"));
    assert!(refusal(&folder.path().join("b")).contains("No such file"));
}

#[test]
fn too_much_names_the_biggest_folders() {
    let folder = Scratch::with(&[("main.py", ""), ("models/big/weights", ""), ("notes", "")]);
    File::options()
        .write(true)
        .open(folder.path().join("models/big/weights"))
        .unwrap()
        .set_len(BYTES_MAX + 1)
        .unwrap();
    assert!(refusal(folder.path()).contains("models/big (1 files, 2.1 GB)"), "{}", refusal(folder.path()));
}

//! Every reader of what strangers write, as a function of bytes: the targets of `fuzz/`, and their corpus replayed by the
//! test `corpus`. Each holds its reader to what must be so of any input, and panics when it is not.

#![allow(clippy::disallowed_methods, reason = "a fixture needs no crash safety")]

use std::fs;
use std::path::{Component, Path};

use trackbed_build::source::{Earlier, SourceLimits, receive};
use trackbed_core::Timestamp;
use trackbed_core::cron::CronSchedule;

/// Reads bytes, and panics when what must hold of any input does not.
pub type Reader = fn(&[u8]);

/// The readers, by the names of their targets and of their folders in `fuzz/corpus`.
pub const READERS: [(&str, Reader); 10] = [
    ("answer", answer),
    ("cron", cron),
    ("dotenv", dotenv),
    ("git_request", git_request),
    ("ignore", ignore),
    ("push", push),
    ("request", request),
    ("settings", settings),
    ("source", source),
    ("tar", tar),
];
/// Between the files of one input: a line with this and a name.
const FILE: &str = "=== ";
/// A source that uploads are told against: `a`, `b/c` and `b/link`, which leads to `c`.
const EARLIER: &[u8] = include_bytes!("earlier.tar");
/// Most files of one input.
const FILES_MAX: usize = 16;

/// Reads a request of a caller, head and body.
pub fn request(bytes: &[u8]) {
    trackbed_edge::fuzz::request(bytes);
}

/// Reads an answer of an app, head and body.
pub fn answer(bytes: &[u8]) {
    trackbed_edge::fuzz::response(bytes);
}

/// Reads a file of settings: the first line is its name, the rest what it holds.
pub fn settings(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    if let Ok(name) = std::str::from_utf8(&bytes[..end]) {
        trackbed_build::fuzz::settings(name, bytes.get(end + 1..).unwrap_or_default());
    }
}

/// Plans and checks a source of a few files: requirements, locks, packages, code.
pub fn source(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files(bytes) {
        let path = Path::new(name);
        if path.components().all(|part| matches!(part, Component::Normal(_))) {
            let folders =
                path.parent().map_or(Ok(()), |parent| fs::create_dir_all(folder.path().join(parent)));
            let _ = folders.and_then(|()| fs::write(folder.path().join(path), content));
        }
    }
    trackbed_build::fuzz::source(folder.path());
}

/// Receives an upload, whole and as the difference from an earlier source. What becomes a source holds no link out of
/// itself; what does not leaves nothing.
pub fn tar(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let limits =
        SourceLimits { total_bytes: 1 << 20, file_bytes: 1 << 20, entries: 100, names_bytes: 1 << 14 };
    let left = |name| fs::read_dir(folder.path().join(name)).map_or(0, Iterator::count);
    let received = receive(bytes, folder.path(), limits, None);
    assert_eq!(left("tmp"), 0, "something is left of {received:?}");
    match received {
        Ok(source) => inside(&source.path, &source.path),
        Err(_) => assert_eq!(left("sources"), 0),
    }
    let first = receive(EARLIER, folder.path(), limits, None).expect("a good source");
    let (earlier, before) = (Earlier::find(folder.path(), &first.digest), left("sources"));
    let received = receive(bytes, folder.path(), limits, Some(earlier.expect("it was just received")));
    assert_eq!(left("tmp"), 0, "something is left of {received:?}");
    match received {
        Ok(source) => {
            inside(&source.path, &source.path);
            assert!(Earlier::find(folder.path(), &source.digest).is_some(), "its name does not prove it");
        }
        Err(_) => assert_eq!(left("sources"), before),
    }
    let text = |name| fs::read_to_string(first.path.join(name)).expect("a file of the first source");
    assert_eq!((text("a"), text("b/c"), text("b/link")), ("1\n".into(), "2\n".into(), "2\n".into()));
}

fn inside(root: &Path, folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("a name").path();
        let kind = path.symlink_metadata().expect("it is there").file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{}", path.display());
        if let Ok(end) = path.canonicalize() {
            assert!(end.starts_with(root), "{} leads to {}", path.display(), end.display());
        }
        if kind.is_dir() {
            inside(root, &path);
        }
    }
}

/// Reads a schedule; its next ticks lie ahead, each behind the one before.
pub fn cron(bytes: &[u8]) {
    let Ok(schedule) = String::from_utf8_lossy(bytes).parse::<CronSchedule>() else { return };
    assert_eq!(schedule.as_str().parse::<CronSchedule>().as_ref(), Ok(&schedule));
    for start in [0, 1_582_934_400_000, 1_798_761_599_999, 253_402_300_799_000] {
        let mut now = Timestamp(start);
        for _ in 0..3 {
            let Some(next) = schedule.next_after(now) else { break };
            assert!(next > now, "{next:?} is not after {now:?}");
            now = next;
        }
    }
}

/// Reads a `.env` file.
pub fn dotenv(bytes: &[u8]) {
    trackbed_cli::fuzz::dotenv(&String::from_utf8_lossy(bytes));
}

/// Lists a folder by its ignore files: `.gitignore` and `.railwayignore`. Nothing that never belongs to a source is listed.
pub fn ignore(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a", "sub/b.log", "sub/deep/c", ".git/config", "node_modules/d", "sub/.venv/e", "target/f g"]
    {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("the folder")).expect("a folder");
        fs::write(path, name).expect("a file");
    }
    for (name, content) in files(bytes) {
        if [".gitignore", ".railwayignore", "sub/.gitignore"].contains(&name) {
            fs::write(folder.path().join(name), content).expect("a file");
        }
    }
    for path in trackbed_cli::fuzz::walk(folder.path()).unwrap_or_default() {
        let dropped = |part: Component<'_>| {
            [".git", "node_modules", ".venv"].iter().any(|name| part.as_os_str() == *name)
        };
        assert!(path.is_relative() && !path.components().any(dropped), "{}", path.display());
    }
}

/// Reads what git tells the hook of a push: the first line is the branch of the service, or empty.
pub fn push(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (branch, told) = text.split_once('\n').unwrap_or(("", &text));
    trackbed_cli::fuzz::push(told, (!branch.is_empty()).then_some(branch));
}

/// Reads a request of git: path with query, and behind the first line end the field `Authorization`.
pub fn git_request(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let target = String::from_utf8_lossy(&bytes[..end]);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    trackbed_server::fuzz::git_request(path, query, bytes.get(end + 1..).unwrap_or_default());
}

/// The files of an input, each behind a line `=== NAME`.
fn files(bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    let mut start = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        match line.strip_prefix(FILE.as_bytes()).map(|name| std::str::from_utf8(name.trim_ascii())) {
            Some(Ok(name)) if files.len() < FILES_MAX => files.push((name, &bytes[end..end])),
            _ => {
                if let Some((_, content)) = files.last_mut() {
                    *content = &bytes[start - content.len()..end];
                }
            }
        }
        start = end;
    }
    files
}

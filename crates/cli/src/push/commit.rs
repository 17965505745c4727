//! A pushed commit, looked at and unpacked by the real `git` in the repository that the hook runs in.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::refs::{is_none, list};
use crate::human::plain;

/// Entries that are looked at; a source may not have so many, which the box says when it receives it.
const ENTRIES_MAX: usize = 200_000;
/// Longest record of a tree: a path is at most 4096 bytes, and the rest is short.
const RECORD_MAX_BYTES: u64 = 16 << 10;
/// A pointer of LFS is shorter than this, says its specification.
const POINTER_MAX_BYTES: u64 = 1024;
/// As much of a message's first line as is read; the box keeps less.
const SUBJECT_MAX_BYTES: u64 = 1000;
/// What a pointer of LFS begins with.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// How many characters of a commit's name people need.
const SHORT: usize = 10;

/// A commit, by a name that git has told.
#[derive(Debug, Clone)]
pub(super) struct Commit(pub(super) String);

/// What a commit's tree has that a push does not bring along.
#[derive(Debug, Default)]
pub(super) struct Missing {
    submodules: Vec<String>,
    pointers: Vec<String>,
}

impl Missing {
    /// Returns what is missing, and how to mend it.
    pub(super) fn complaints(&self) -> Vec<(String, &'static str)> {
        let mut complaints = Vec::new();
        if !self.submodules.is_empty() {
            complaints.push((
                format!("{} a submodule, whose files are not pushed with it", list(&self.submodules)),
                "commit the files themselves in its place, or send the folder with its submodules: trackbed up",
            ));
        }
        if !self.pointers.is_empty() {
            complaints.push((
                format!("{} a pointer of Git LFS, whose content is not pushed to the box", list(&self.pointers)),
                "take the files out of LFS (git lfs migrate export), put them on a volume, or send the folder: trackbed up",
            ));
        }
        complaints
    }
}

impl Commit {
    /// Returns the name as people write it.
    pub(super) fn short(&self) -> &str {
        &self.0[..SHORT]
    }

    /// Returns the first line of its message.
    pub(super) fn subject(&self) -> Result<String> {
        let mut command = git(&["log", "--max-count=1", "--no-show-signature", "--format=%s", &self.0]);
        let (mut child, stdout) = start(&mut command)?;
        let mut line = Vec::new();
        stdout.take(SUBJECT_MAX_BYTES).read_to_end(&mut line).context("cannot read the commit's message")?;
        // Git ends by itself when nobody reads on.
        let _ = child.wait();
        Ok(plain(String::from_utf8_lossy(&line).trim()))
    }

    /// Returns whether the history of this commit holds `old`; none holds nothing.
    pub(super) fn follows(&self, old: &str) -> Result<bool> {
        if is_none(old) {
            return Ok(true);
        }
        let status = git(&["merge-base", "--is-ancestor", old, &self.0]).stderr(Stdio::null()).status();
        Ok(status.context("cannot start git")?.success())
    }

    /// Looks for what is named in the tree and not in it.
    pub(super) fn look(&self) -> Result<Missing> {
        let mut missing = Missing::default();
        let mut small = Vec::new();
        let (mut child, stdout) =
            start(&mut git(&["ls-tree", "-r", "-z", "--long", "--full-tree", &self.0]))?;
        let mut records = BufReader::new(stdout);
        for _ in 0..ENTRIES_MAX {
            let mut record = Vec::new();
            records.by_ref().take(RECORD_MAX_BYTES).read_until(0, &mut record)?;
            if record.is_empty() {
                break;
            }
            let record = String::from_utf8_lossy(&record);
            let Some((about, path)) = record.trim_end_matches('\0').split_once('\t') else {
                bail!("git listed `{}` in the tree", plain(&record));
            };
            let about: Vec<&str> = about.split_ascii_whitespace().collect();
            match about.as_slice() {
                [_, "commit", ..] => missing.submodules.push(plain(path)),
                [mode, "blob", object, size] if mode.starts_with("100") && may_be_pointer(size) => {
                    small.push(((*object).to_owned(), plain(path)));
                }
                _ => {}
            }
        }
        // It may still have something to say when there are too many.
        drop(records);
        let _ = child.wait();
        missing.pointers = pointers(small)?;
        Ok(missing)
    }

    /// Writes the tree as a tar.
    pub(super) fn archive(&self, mut to: impl Write) -> Result<()> {
        let (mut child, mut stdout) = start(&mut git(&["archive", "--format=tar", &self.0]))?;
        let copied = io::copy(&mut stdout, &mut to).and_then(|_| to.flush());
        // Git ends by itself when nobody reads on.
        drop(stdout);
        let status = child.wait().context("git archive was lost")?;
        copied.context("cannot pack the commit")?;
        ensure!(status.success(), "git cannot pack the commit {}: it ended with {status}", self.short());
        Ok(())
    }
}

/// Returns whether a ref is still at the object that the pusher has seen it at.
pub(super) fn is_at(name: &str, object: &str) -> Result<bool> {
    let found = git(&["rev-parse", "--verify", "--quiet", name]).output();
    let found = found.context("cannot start git")?.stdout;
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    Ok(found == object || (found.is_empty() && is_none(object)))
}

/// Returns the paths of the files that are pointers of LFS.
fn pointers(small: Vec<(String, String)>) -> Result<Vec<String>> {
    let mut command = git(&["cat-file", "--batch"]);
    let (mut child, stdout) = start(command.stdin(Stdio::piped()))?;
    let mut stdin = child.stdin.take().context("git has no input")?;
    let objects: String = small.iter().map(|(object, _)| format!("{object}\n")).collect();
    // On a thread of its own: git answers while it reads.
    let asking = std::thread::spawn(move || stdin.write_all(objects.as_bytes()));
    let mut answers = BufReader::new(stdout);
    let mut found = Vec::new();
    for (object, path) in small {
        let mut head = String::new();
        answers.by_ref().take(RECORD_MAX_BYTES).read_line(&mut head)?;
        let size = head.trim_end().rsplit_once(' ').and_then(|(_, size)| size.parse::<usize>().ok());
        let size = size.filter(|size| (*size as u64) < POINTER_MAX_BYTES);
        let mut content =
            vec![0; size.with_context(|| format!("git said `{}` of {object}", plain(&head)))? + 1];
        answers.read_exact(&mut content)?;
        if content.starts_with(POINTER) {
            found.push(path);
        }
    }
    drop(answers);
    let _ = asking.join();
    let _ = child.wait();
    Ok(found)
}

/// Returns whether a file of this size may be a pointer of LFS.
fn may_be_pointer(size: &str) -> bool {
    size.parse::<u64>().is_ok_and(|size| size < POINTER_MAX_BYTES && size > POINTER.len() as u64)
}

fn git(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn start(command: &mut Command) -> Result<(Child, ChildStdout)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start git")?;
    let stdout = child.stdout.take().context("git has no output")?;
    Ok((child, stdout))
}

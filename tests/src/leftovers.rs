//! What a box may leave behind: nothing. Processes, mounts, control groups, links and sockets are looked for by the
//! marks that the box puts on all of them.

use std::fs;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers(pub Vec<String>);

impl Leftovers {
    /// Looks for everything that belongs to a data directory. `tag` is what the box puts into kernel names.
    pub fn of(data_dir: &Path, tag: &str) -> Leftovers {
        let mut found = Vec::new();
        found.extend(processes(data_dir).into_iter().map(|(id, line)| format!("process {id}: {line}")));
        found.extend(mounts(data_dir));
        found.extend(control_groups(Path::new("/sys/fs/cgroup"), tag, 0));
        found.extend(links(tag));
        found.extend(
            files_in(&data_dir.join("run")).into_iter().map(|path| format!("socket {}", path.display())),
        );
        found.extend(
            files_in(&data_dir.join("tmp")).into_iter().map(|path| format!("temporary {}", path.display())),
        );
        Leftovers(found)
    }
}

/// Processes that have the data directory in their command line, by id; the dead that wait for their parent left out.
pub fn processes(data_dir: &Path) -> Vec<(u64, String)> {
    let mark = data_dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let id = process.file_name().to_string_lossy().parse().unwrap_or(0);
        if line.contains(&mark) && id != u64::from(std::process::id()) {
            found.push((id, line));
        }
    }
    found
}

fn mounts(data_dir: &Path) -> Vec<String> {
    let mark = data_dir.to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(&mark)).map(|line| format!("mount {line}")).collect()
}

fn control_groups(folder: &Path, tag: &str, depth: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(tag) {
            found.push(format!("control group {}", entry.path().display()));
        } else if depth < 4 {
            found.extend(control_groups(&entry.path(), tag, depth + 1));
        }
    }
    found
}

fn links(tag: &str) -> Vec<String> {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A link of an instance has room for a part of the mark only.
    names.filter(|name| name.contains(&tag[..5])).map(|name| format!("network link {name}")).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

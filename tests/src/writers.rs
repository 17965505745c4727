//! Who may write to a volume at this moment, in the kernel's words: the processes of each instance and the table of
//! locks, read again and again while a test goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// An instance as its records and the kernel tell it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Name of its service.
    pub service: String,
    /// Its supervisor.
    pub shim: Process,
    /// First process of its sandbox, once there is one.
    pub init: Option<Process>,
    /// Lock files of its volumes.
    pub locks: Vec<PathBuf>,
    folder: PathBuf,
    /// Folder of its control group; none where the box may make none.
    group: Option<PathBuf>,
}

/// A process and the time of its start, so that it is not mistaken for a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u64,
    /// Clock ticks from the boot to its start.
    pub start: u64,
}

impl Process {
    /// Returns the living process with a number; the dead that wait for their parent do not live.
    pub fn find(pid: u64) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; the fields follow its bracket.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Process { pid, start })
    }

    fn on_record(record: &Value) -> Option<Process> {
        Some(Process { pid: record["pid"].as_u64()?, start: record["start_time"].as_u64()? })
    }

    /// Returns whether it lives.
    pub fn is_alive(self) -> bool {
        Process::find(self.pid) == Some(self)
    }
}

impl Instance {
    /// Returns all instances of a data directory whose records are there, the ended ones too.
    pub fn all(data_dir: &Path) -> Vec<Instance> {
        let folders = fs::read_dir(data_dir.join("instances")).into_iter().flatten().flatten();
        folders.filter_map(|entry| Instance::read(&entry.path())).collect()
    }

    fn read(folder: &Path) -> Option<Instance> {
        let json =
            |name: &str| -> Option<Value> { serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok() };
        let (order, state) = (json("spec.json")?, json("state.json")?);
        if order["kind"] != "service" {
            return None;
        }
        let volumes = order["volumes"].as_array()?;
        let groups = order["cgroup"]["dirs"].as_array()?;
        Some(Instance {
            folder: folder.to_owned(),
            id: order["id"].as_str()?.to_owned(),
            service: order["title"].as_str()?.split(' ').next()?.to_owned(),
            shim: Process::on_record(&state["shim"])?,
            init: Process::on_record(&state["init"]),
            locks: volumes.iter().filter_map(|volume| Some(volume["lock_path"].as_str()?.into())).collect(),
            group: groups.last().and_then(|group| Some(group[1].as_str()?.into())),
        })
    }

    /// Returns the living processes of the app itself, its supervisor and init left out.
    pub fn app(&self) -> BTreeSet<Process> {
        let pids = match self.group.as_ref().map(|group| fs::read_to_string(group.join("cgroup.procs"))) {
            Some(Ok(text)) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            // Its group is gone, and with it everybody who was in it.
            Some(Err(_)) => Vec::new(),
            None => self.init.map(|init| descendants(init.pid)).unwrap_or_default(),
        };
        let own = [Some(self.shim), self.init];
        let found = pids.into_iter().filter_map(Process::find);
        found.filter(|process| !own.contains(&Some(*process))).collect()
    }

    /// Returns whether its end is on record.
    pub fn has_ended(&self) -> bool {
        self.folder.join("exit.json").exists()
    }

    /// Returns whether its supervisor, its init or a process of its app lives.
    pub fn is_alive(&self) -> bool {
        self.shim.is_alive() || self.init.is_some_and(Process::is_alive) || !self.app().is_empty()
    }

    /// Returns whether its supervisor or init holds a lock; none when the kernel does not tell, because its init is just
    /// being ended and has no files any more.
    fn holds(&self, lock: &Path) -> Option<bool> {
        let Ok(inode) = fs::metadata(lock).map(|metadata| metadata.ino()) else { return None };
        if writers_of(inode).contains(&self.shim.pid) {
            return Some(true);
        }
        // A lock belongs to the open file that init inherited. With its first owner dead, it is not in the table.
        let folder = format!("/proc/{}/fdinfo", self.init?.pid);
        let mut is_told = false;
        for file in fs::read_dir(&folder).ok()?.flatten() {
            let Ok(text) = fs::read_to_string(file.path()) else { continue };
            is_told = true;
            if text.lines().any(|line| line.contains("WRITE") && line.contains(&format!(":{inode} "))) {
                return Some(true);
            }
        }
        // The kernel closes all files of a dying process at once: with some left, none was closed meanwhile.
        let has_files = || fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some());
        (is_told && has_files()).then_some(false)
    }
}

fn descendants(root: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<u64> = children.split(' ').filter_map(|text| text.parse().ok()).collect();
        found.extend(&children);
        open.extend(children);
    }
    found
}

/// Returns who holds the file exclusively, by the kernel's table.
fn writers_of(inode: u64) -> BTreeSet<u64> {
    let table = fs::read_to_string("/proc/locks").unwrap_or_default();
    let ours = |line: &&str| line.contains("FLOCK") && line.contains(&format!(":{inode} "));
    let holder = |line: &str| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "WRITE");
        fields.nth(1)?.parse().ok()
    };
    // `->` is one who waits.
    table.lines().filter(ours).filter(|line| !line.contains("->")).filter_map(holder).collect()
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watched {
    /// Looks at a volume whose app was alive.
    pub looks: usize,
    /// Looks at a volume of which two instances were on record at once.
    pub close: usize,
    /// Two writers, or one without the lock.
    pub violations: Vec<String>,
}

/// Watches the volumes of a box.
pub struct Writers {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    thread: JoinHandle<Watched>,
}

impl Writers {
    /// Begins to watch.
    pub fn watch(data_dir: &Path) -> Writers {
        let (stop, data_dir) = (Arc::new(AtomicBool::new(false)), data_dir.to_owned());
        let (looks, stopped) = (Arc::new(AtomicUsize::new(0)), stop.clone());
        let looked = looks.clone();
        let thread = std::thread::spawn(move || {
            let (mut over, mut watched) = (BTreeSet::new(), Watched::default());
            while !stopped.load(Ordering::SeqCst) {
                look(&data_dir, &mut over, &mut watched);
                looked.store(watched.looks, Ordering::SeqCst);
                std::thread::sleep(LOOK_INTERVAL);
            }
            watched
        });
        Writers { stop, looks, thread }
    }

    /// Returns how often an app was seen alive on its volume.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// Returns what was seen.
    pub fn end(self) -> Watched {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("a watcher does not panic")
    }
}

/// Looks once. Nothing can be read at one instant: who was there before and after was there in between.
/// `over` are instances of which nothing can live any more.
fn look(data_dir: &Path, over: &mut BTreeSet<PathBuf>, watched: &mut Watched) {
    let folders = fs::read_dir(data_dir.join("instances")).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path()).filter(|folder| !over.contains(folder));
    let instances: Vec<Instance> = folders.filter_map(|folder| Instance::read(&folder)).collect();
    let mut by_lock: BTreeMap<&Path, Vec<&Instance>> = BTreeMap::new();
    for instance in &instances {
        for lock in &instance.locks {
            by_lock.entry(lock).or_default().push(instance);
        }
    }
    for (lock, instances) in by_lock {
        let apps = || instances.iter().map(|instance| instance.app()).collect::<Vec<_>>();
        let before = apps();
        let inode = fs::metadata(lock).map(|metadata| metadata.ino()).unwrap_or_default();
        // The table is read in pieces: what changes hands in between is in it twice, but not the next time.
        let holders = &writers_of(inode) & &writers_of(inode);
        let held: Vec<Option<bool>> = instances.iter().map(|instance| instance.holds(lock)).collect();
        let between = apps();
        let after = apps();
        let stayed: Vec<bool> =
            before.iter().zip(&after).map(|(before, after)| !before.is_disjoint(after)).collect();
        watched.looks += usize::from(stayed.contains(&true));
        watched.close += usize::from(instances.iter().filter(|instance| instance.is_alive()).count() > 1);
        if holders.len() > 1 {
            watched.violations.push(format!("{} has the holders {holders:?}", lock.display()));
        }
        for (number, instance) in instances.iter().enumerate() {
            if stayed[number] && held[number] == Some(false) {
                let id = &instance.id;
                watched.violations.push(format!("{id} runs {:?} without its lock", after[number]));
            }
            for (other, also) in instances.iter().enumerate() {
                if other != number && stayed[number] && !between[other].is_empty() {
                    let (one, two) = (&instance.id, &also.id);
                    watched
                        .violations
                        .push(format!("{one} ran {:?} when {two} ran {:?}", after[number], between[other]));
                }
            }
        }
    }
    let ended = instances.into_iter().filter(|instance| instance.has_ended() && !instance.is_alive());
    over.extend(ended.map(|instance| instance.folder));
}

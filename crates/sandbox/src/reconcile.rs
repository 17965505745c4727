//! What is true of instances whose shim is gone, and the removal of everything that belongs to no living instance.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use trackbed_core::InstanceId;
use trackbed_core::instance::{Exit, InstanceKind};
use trackbed_core::ports::PortError;
use trackbed_stdx::clock::now_ms;

use crate::control::{self, Ask};
use crate::folder::End;
use crate::network::Network;
use crate::process::{self, ProcessId};
use crate::records::{Order, State};
use crate::sandbox::{Inner, MARK, START_LIMIT, Sandbox};

/// Longest wait for processes that were killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Longest wait for what a vanished shim has left; who asks again waits again.
const BURY_LIMIT: Duration = Duration::from_secs(2);

/// Longest time from the order to the first sign of its shim.
const SPAWN_LIMIT: Duration = Duration::from_secs(5);
/// A shim that is just ending has no socket any more.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What is known of an instance.
pub(crate) enum Life {
    Living {
        state: crate::records::State,
    },
    /// Written down, and its shim is about to be.
    Beginning,
    Ended(End),
}

impl Sandbox {
    /// Makes the records true and removes strays, when a control plane starts: ends jobs that nobody waits for and
    /// services that `keep` does not know, marks the vanished as [`Exit::Lost`], and removes control groups, links and
    /// sockets of this data directory that belong to no living instance. Puts the network rules in force again; call it
    /// now and then, because a firewall that is reloaded forgets them.
    ///
    /// # Errors
    /// When the records cannot be read, or the network rules cannot be put in force.
    pub fn reconcile(&self, keep: &dyn Fn(&InstanceId) -> bool) -> Result<(), PortError> {
        let inner = &self.inner;
        // First what is in the kernel, then the records: whatever begins in between is in the records alone.
        let objects = inner.objects();
        for id in inner.ids()? {
            inner.thaw_left_behind(&id);
            let ours = { inner.memory().jobs.contains(&id) || inner.memory().starting.contains(&id) };
            let order = inner.folder(&id).find_order();
            let wanted = order.as_ref().is_some_and(|order| order.kind == InstanceKind::Service) && keep(&id);
            if ours || wanted {
                // Settles it when its shim has vanished.
                inner.life(&id);
                inner.folder(&id).remove_leftovers();
            } else if let Err(error) = inner.kill(&id).and_then(|()| inner.remove(&id)) {
                // One that hangs in the kernel must not keep the others from their work.
                tracing::warn!(instance = %id, %error, "an instance that nobody wants could not be ended");
            }
        }
        inner.remove_strays(objects);
        match inner.network.as_ref().map(Network::ensure_rules) {
            Some(Err(error)) => {
                Err(PortError::new(format!("cannot put the network rules in force: {error}")))
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Removes everything that this data directory has in the kernel (control groups, bridge, rules), for example
    /// before the box is uninstalled. Does nothing while an instance lives.
    pub fn dismantle(&self) {
        let inner = &self.inner;
        if inner.ids().is_ok_and(|ids| ids.iter().any(|id| inner.is_living(id))) {
            return;
        }
        inner.remove_strays(inner.objects());
        if let Some(network) = &inner.network {
            network.dismantle();
        }
        inner.cgroup.remove();
    }
}

impl Inner {
    /// Returns what is known of an instance, and settles it when its shim vanished.
    pub(crate) fn life(&self, id: &InstanceId) -> Option<Life> {
        let folder = self.folder(id);
        if let Some(end) = folder.find_end() {
            return Some(Life::Ended(end));
        }
        let order = folder.find_order()?;
        if let Some((state, _)) = folder.living_shim() {
            return Some(Life::Living { state });
        }
        // Either way, because a clock that was set back must not keep it beginning for ever.
        let age = now_ms().abs_diff(order.started_at.0);
        let fresh = u128::from(age) < SPAWN_LIMIT.as_millis();
        if folder.find_state().is_none() && fresh && folder.find_end().is_none() {
            return Some(Life::Beginning);
        }
        // Again: the shim may have written its record just before it ended.
        if folder.find_end().is_none() && !self.bury(&order) {
            return Some(match folder.find_state() {
                Some(state) => Life::Living { state },
                None => Life::Beginning,
            });
        }
        folder.find_end().map(Life::Ended)
    }

    /// Ends what a vanished shim has left and writes that it is lost. Returns false, and writes nothing, while some of it
    /// lives: what is frozen, or hangs in the kernel, may still write when it comes back.
    fn bury(&self, order: &Order) -> bool {
        let folder = self.folder(&order.id);
        let boot = process::boot_id();
        // It was killed as well, and what is frozen does not die.
        order.cgroup.thaw();
        let init = folder.find_state().filter(|state| state.boot_id == boot).and_then(|state| state.init);
        if let Some(init) = init {
            init.signal(libc::SIGKILL);
            init.wait_gone(BURY_LIMIT);
        }
        let group_is_empty = order.cgroup.kill_all();
        let none_is_marked =
            order.level <= trackbed_core::isolation::IsolationLevel::Userns || kill_marked(&order.id);
        if init.is_some_and(ProcessId::is_alive) || !group_is_empty || !none_is_marked {
            return false;
        }
        order.cgroup.remove();
        folder.clear_variables_at_end(order);
        let _ = fs::remove_file(&order.socket);
        if folder.find_end().is_none() {
            let _ = folder.close(Exit::Lost);
        }
        // One that began at the very same moment reads the record, or is seen here.
        if let Some((_, late)) = folder.living_shim() {
            late.signal(libc::SIGKILL);
            late.wait_gone(KILL_LIMIT);
        }
        true
    }

    /// Ends an instance at once.
    pub(crate) fn kill(&self, id: &InstanceId) -> Result<(), PortError> {
        self.end(id, Duration::ZERO)
    }

    /// Ends an instance and waits until nothing of it lives.
    pub(crate) fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        // One whose start is just being written down, because whoever asked for it has gone.
        let deadline = std::time::Instant::now() + START_LIMIT;
        let is_unwritten = || self.memory().starting.contains(id) && self.life(id).is_none();
        while is_unwritten() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end_begun(id, grace)
    }

    /// As [`Inner::end`], for one that is on record or never will be.
    pub(crate) fn end_begun(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        let folder = self.folder(id);
        let deadline = std::time::Instant::now() + START_LIMIT;
        while matches!(self.life(id), Some(Life::Beginning)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some((state, shim)) = folder.living_shim() {
            self.end_shim(id, &state, shim, grace)?;
        }
        // Writes the record when there is none, and ends what is left.
        match self.life(id) {
            None | Some(Life::Ended(_)) => Ok(()),
            Some(Life::Living { .. } | Life::Beginning) => Err(stuck(id, "some of its processes do")),
        }
    }

    fn end_shim(
        &self,
        id: &InstanceId,
        state: &State,
        shim: ProcessId,
        grace: Duration,
    ) -> Result<(), PortError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let ask = if grace.is_zero() { Ask::Kill } else { Ask::Stop { grace_ms } };
        let patience = match (control::call(&self.socket(id), ask), state.init) {
            (Ok(_), _) => grace.saturating_add(KILL_LIMIT),
            // Its socket is gone or it hangs: init passes the signal on all the same.
            (Err(_), Some(init)) if !grace.is_zero() => {
                init.signal(libc::SIGTERM);
                grace
            }
            (Err(_), _) => LAST_MOMENT,
        };
        if shim.wait_gone(patience) {
            return self.end_init(id);
        }
        // Init before its shim, which holds the locks: nothing may be written once they are free.
        self.end_init(id)?;
        if !shim.wait_gone(LAST_MOMENT) {
            shim.signal(libc::SIGKILL);
            if !shim.wait_gone(KILL_LIMIT) {
                return Err(stuck(id, &format!("its supervisor (pid {}) does", shim.pid)));
            }
        }
        self.end_init(id)
    }

    /// Kills init, and with it the sandbox, and waits for it.
    fn end_init(&self, id: &InstanceId) -> Result<(), PortError> {
        let state = self.folder(id).find_state().filter(|state| state.boot_id == process::boot_id());
        let Some(init) = state.and_then(|state| state.init) else { return Ok(()) };
        init.signal(libc::SIGKILL);
        // A supervisor that hangs may have left it frozen.
        self.thaw(id);
        match init.wait_gone(KILL_LIMIT) {
            true => Ok(()),
            false => Err(stuck(id, &format!("its first process (pid {}) does", init.pid))),
        }
    }

    /// Returns whether an instance lives or is about to.
    fn is_living(&self, id: &InstanceId) -> bool {
        self.memory().starting.contains(id)
            || matches!(self.life(id), Some(Life::Living { .. } | Life::Beginning))
    }

    /// Lists what this data directory has in the kernel and beside it.
    fn objects(&self) -> Objects {
        let sockets = fs::read_dir(&self.config.run_dir).into_iter().flatten().flatten();
        Objects {
            groups: self.cgroup.children(),
            sockets: sockets.map(|entry| entry.path()).collect(),
            links: self.network.as_ref().map(Network::links).unwrap_or_default(),
        }
    }

    /// Removes what belongs to no living instance, as seen right before each is touched. An object is made after its
    /// instance is on record, and no instance is begun twice: an object of the list whose instance does not live now has
    /// nobody to come.
    fn remove_strays(&self, objects: Objects) {
        for name in objects.groups {
            if name.parse().is_ok_and(|id| self.is_living(&id)) {
                continue;
            }
            let group = self.cgroup.child(&name);
            if !group.kill_all() {
                tracing::warn!(group = %name, "processes of a control group that nobody wants do not go away");
            }
            group.remove();
        }
        for path in objects.sockets {
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_suffix(".sock")?.parse::<InstanceId>().ok());
            if id.is_some_and(|id| !self.is_living(&id)) {
                let _ = fs::remove_file(path);
            }
        }
        let Some(network) = &self.network else { return };
        for link in objects.links {
            // Without the records nobody knows whose it is.
            let Ok(ids) = self.ids() else { return };
            let mut owners = ids.iter().filter(|id| network.veth_name(id) == link);
            if !owners.any(|id| self.is_living(id)) {
                network.remove_link(&link);
            }
        }
    }
}

/// What instances have outside their directories.
struct Objects {
    groups: Vec<String>,
    sockets: Vec<PathBuf>,
    links: Vec<String>,
}

fn stuck(id: &InstanceId, who: &str) -> PortError {
    PortError::new(format!("cannot end instance {id}: {who} not go away"))
        .hint("a process that is frozen or hangs in the kernel, often on a disk, cannot be killed")
}

/// Kills every process that carries the instance's mark, where neither namespace nor group holds them together. Returns
/// whether none is left.
fn kill_marked(id: &InstanceId) -> bool {
    let mark = format!("{MARK}={id}");
    for _ in 0..100 {
        let marked: Vec<i32> = process::all_pids().into_iter().filter(|pid| is_marked(*pid, &mark)).collect();
        if marked.is_empty() {
            return true;
        }
        for process in marked.into_iter().filter_map(ProcessId::of) {
            process.signal(libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn is_marked(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
}

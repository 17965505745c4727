//! What is true of containers whose keeper is gone, and the removal of everything in the engine that belongs to no living
//! instance.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::query_parameters::{KillContainerOptions, ListContainersOptions, RemoveContainerOptions};
use tokio::time::sleep;
use trackbed_core::InstanceId;
use trackbed_core::instance::{Exit, InstanceKind};
use trackbed_core::ports::PortError;
use trackbed_sandbox::beside::{End, Process, boot_id, forget_container};
use trackbed_stdx::clock::now_ms;

use crate::container::{BOX_LABEL, INSTANCE_LABEL};
use crate::control::{self, Ask};
use crate::daemon::{self, Daemon, words};
use crate::engine::{Docker, START_LIMIT};
use crate::records::{Folder, Order, State, container_name, find_init, living_keeper};

/// Longest wait for what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// How long the kernel may take to end what was just killed, before the engine is believed.
const BURY_LIMIT: Duration = Duration::from_secs(2);
/// Longest time from the order to the first sign of its keeper.
const SPAWN_LIMIT: Duration = Duration::from_secs(5);
/// A keeper that is just ending has no socket any more.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Attempts to remove a container. One that is just being removed cannot be removed.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of an instance.
pub(crate) enum Life {
    /// Its keeper lives, or what it left may.
    Living {
        state: Option<State>,
    },
    /// Written down, and its keeper is about to be.
    Beginning,
    Ended(End),
}

/// Removes a container with everything that is its own. None of that name is fine.
///
/// # Errors
/// When the engine does not say that it is gone.
pub(crate) async fn remove_container(daemon: &Daemon, name: &str) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match daemon.api.remove_container(name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) if daemon::is_missing(&error) => return Ok(()),
            // Somebody else removes it at this moment, or it changes its state.
            Err(error @ bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => {
                last = words(&error);
            }
            Err(error) => {
                last = words(&error);
                break;
            }
        }
        sleep(PAUSE).await;
    }
    Err(format!("{} does not remove container {name}: {last}", daemon.title))
}

impl Docker {
    /// Returns what is known of an instance, and settles it when its keeper vanished.
    pub(crate) async fn life(&self, id: &InstanceId) -> Option<Life> {
        let folder = self.folder(id);
        if let Some(end) = folder.find_end() {
            return Some(Life::Ended(end));
        }
        let order = folder.find_order()?;
        if let Some(state) = living_keeper(&folder) {
            return Some(Life::Living { state: Some(state) });
        }
        // Either way, because a clock that was set back must not keep it beginning for ever.
        let age = now_ms().abs_diff(order.started_at.0);
        let is_fresh = u128::from(age) < SPAWN_LIMIT.as_millis();
        if folder.find_state().is_none() && is_fresh && folder.find_end().is_none() {
            return Some(Life::Beginning);
        }
        // Again: the keeper may have written its record just before it ended.
        if folder.find_end().is_none() && !self.bury(&folder, &order).await {
            return Some(Life::Living { state: folder.find_state() });
        }
        folder.find_end().map(Life::Ended)
    }

    /// Ends what a vanished keeper has left and writes that it is lost. Returns false, and writes nothing, while it cannot
    /// be known that nothing of it lives, or can come to life.
    async fn bury(&self, folder: &Folder, order: &Order) -> bool {
        let state = folder.find_state();
        let is_this_boot = state.as_ref().is_none_or(|state| state.boot_id == boot_id());
        let init = state.and_then(|state| state.init).filter(|_| is_this_boot);
        if let Some(init) = init {
            // What is frozen does not die.
            if let Some(switch) = init.find_switch() {
                let _ = switch.thaw();
            }
            init.signal(9);
            let _ = tokio::time::timeout(BURY_LIMIT, init.gone()).await;
        }
        let is_dead = match init {
            // Nothing outlives the first process of its namespace.
            Some(init) => !init.is_alive() || self.kill_by_engine(order, init).await,
            // Engines start nothing again that was not told to be.
            None if !is_this_boot => true,
            // It may be started at any moment, unless it is gone.
            None => self.remove_unstarted(order).await,
        };
        if !is_dead {
            tracing::warn!(instance = %order.id, "a container whose keeper is gone may still run");
            return false;
        }
        order.unlink_volumes();
        folder.clear_variables_at_end(order);
        let _ = std::fs::remove_file(&order.socket);
        if folder.find_end().is_none() {
            let _ = folder.write_end(Exit::Lost);
        }
        // One that began at the very same moment reads the record, or is seen here.
        if let Some(late) = living_keeper(folder) {
            late.keeper.signal(9);
            return false;
        }
        true
    }

    /// Has the engine kill what this user may not. Returns whether nothing of it lives.
    async fn kill_by_engine(&self, order: &Order, init: Process) -> bool {
        if let Ok(daemon) = daemon::connect(&order.daemon).await {
            let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
            let _ = daemon.api.kill_container(&order.container(), Some(options)).await;
        }
        tokio::time::timeout(BURY_LIMIT, init.gone()).await.is_ok()
    }

    /// Removes a container that was asked for and of which nobody knows whether it runs. Returns whether it is gone.
    async fn remove_unstarted(&self, order: &Order) -> bool {
        let Ok(daemon) = daemon::connect(&order.daemon).await else { return false };
        if let Err(error) = remove_container(&daemon, &order.container()).await {
            tracing::warn!(instance = %order.id, error, "a container could not be removed");
            return false;
        }
        let (name, locks) = (order.container(), lock_paths(order));
        let forgotten = tokio::task::spawn_blocking(move || {
            locks.iter().try_for_each(|lock| forget_container(lock, &name))
        });
        match forgotten.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(instance = %order.id, %error, "the lock of a volume names a container that is gone");
                false
            }
            Err(_) => false,
        }
    }

    /// Ends an instance and waits until nothing of it lives.
    pub(crate) async fn end(&self, id: &InstanceId, grace: Duration) -> Result<(), PortError> {
        let deadline = Instant::now() + START_LIMIT;
        let begins = async || matches!(self.life(id).await, Some(Life::Beginning));
        while (self.is_starting(id) && self.life(id).await.is_none()) || begins().await {
            if Instant::now() >= deadline {
                break;
            }
            sleep(LOOK).await;
        }
        if let Some(state) = living_keeper(&self.folder(id)) {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let asked = control::call(&self.socket(id), Ask::Stop { grace_ms }).await;
            let patience = match asked {
                Ok(_) => grace.saturating_add(KILL_LIMIT),
                // It may just be starting, or ending; or it hangs.
                Err(_) if state.init.is_none() => self.ask_until_heard(id, grace).await,
                Err(_) => LAST_MOMENT,
            };
            if tokio::time::timeout(patience, state.keeper.gone()).await.is_err() {
                // The container, then its keeper, which holds the locks.
                if let (Some(order), Some(init)) = (self.folder(id).find_order(), find_init(&self.folder(id)))
                {
                    init.signal(9);
                    if init.is_alive() && !self.kill_by_engine(&order, init).await {
                        return Err(stuck(id, "its first process does not go away"));
                    }
                }
                state.keeper.signal(9);
                let _ = tokio::time::timeout(BURY_LIMIT, state.keeper.gone()).await;
            }
        }
        // Writes the record when there is none, and ends what is left.
        match self.life(id).await {
            None | Some(Life::Ended(_)) => Ok(()),
            Some(Life::Living { .. } | Life::Beginning) => {
                Err(stuck(id, "the container engine does not answer"))
            }
        }
    }

    /// A keeper that is still making its container has a socket soon. Returns how long to wait for its end.
    async fn ask_until_heard(&self, id: &InstanceId, grace: Duration) -> Duration {
        let deadline = Instant::now() + START_LIMIT;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        while Instant::now() < deadline && living_keeper(&self.folder(id)).is_some() {
            if control::call(&self.socket(id), Ask::Stop { grace_ms }).await.is_ok() {
                return grace.saturating_add(KILL_LIMIT);
            }
            sleep(LOOK).await;
        }
        LAST_MOMENT
    }

    /// Makes the records true and removes strays: ends jobs of an earlier control plane, marks the vanished as lost, lets go
    /// what was left frozen, and removes containers of this box that belong to no living instance. Call it when a control
    /// plane starts, and now and then.
    ///
    /// # Errors
    /// When the records cannot be read. An engine that is not there has no strays.
    pub async fn reconcile(&self) -> Result<(), PortError> {
        for id in self.ids()? {
            self.thaw_left_behind(&id);
            let is_job = self.folder(&id).find_order().is_none_or(|order| order.kind == InstanceKind::Job);
            if is_job && !self.is_starting(&id) {
                let ended = self.end(&id, Duration::ZERO).await;
                let removed = match ended {
                    Ok(()) => self.forget(&id).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    tracing::warn!(instance = %id, %error, "a job that nobody waits for could not be ended");
                }
            } else {
                // Settles it when its keeper has vanished.
                self.life(&id).await;
                self.folder(&id).remove_leftovers();
            }
        }
        if let Ok(daemon) = daemon::find(self.environment()).await {
            self.remove_strays(&daemon).await;
        }
        Ok(())
    }

    /// Removes the network of this box, for example before it is uninstalled. One that a container is in stays.
    pub async fn dismantle(&self) {
        if let Ok(daemon) = daemon::find(self.environment()).await {
            let _ = daemon.api.remove_network(&self.network_name()).await;
        }
    }

    /// Removes what carries this box's label and no living instance.
    async fn remove_strays(&self, daemon: &Daemon) {
        let label = format!("{BOX_LABEL}={}", self.tag());
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = match daemon.api.list_containers(Some(options)).await {
            Ok(found) => found,
            Err(error) => {
                return tracing::warn!(reason = words(&error), "containers could not be listed");
            }
        };
        for container in found {
            let id = container.labels.as_ref().and_then(|labels| labels.get(INSTANCE_LABEL));
            let Some(id) = id.and_then(|id| id.parse::<InstanceId>().ok()) else { continue };
            let name = container_name(self.tag(), &id);
            let has_name = |known: &String| known.trim_start_matches('/') == name;
            if !container.names.unwrap_or_default().iter().any(has_name) {
                // Somebody made it with our labels: not ours.
                continue;
            }
            // One that has ended stays with its record, for what it wrote outside its volumes.
            if self.life(&id).await.is_none()
                && !self.is_starting(&id)
                && let Err(error) = remove_container(daemon, &name).await
            {
                tracing::warn!(container = name, error, "a container that nobody wants could not be removed");
            }
        }
    }

    /// Forgets an instance that has ended, with its container. Without its engine the container stays, until the next
    /// [`Docker::reconcile`] that finds one.
    pub(crate) async fn forget(&self, id: &InstanceId) -> Result<(), PortError> {
        if let Some(order) = self.folder(id).find_order() {
            match daemon::connect(&order.daemon).await {
                Ok(daemon) => {
                    remove_container(&daemon, &order.container()).await.map_err(PortError::new)?;
                }
                Err(error) => {
                    tracing::warn!(container = order.container(), %error, "a container stays for now")
                }
            }
        }
        self.remove_folder(id)
    }

    /// Lets an instance go that somebody has left frozen: a control plane that is gone, together with the keeper.
    pub(crate) fn thaw_left_behind(&self, id: &InstanceId) {
        let state = self.folder(id).find_state().filter(|state| state.boot_id == boot_id());
        let init = state.and_then(|state| state.init).filter(|init| init.is_alive());
        let Some(switch) = init.and_then(|init| init.find_switch()) else { return };
        // A keeper that lives looks after it itself.
        if switch.is_on() && living_keeper(&self.folder(id)).is_none() {
            tracing::warn!(instance = %id, "an instance was left frozen");
            let _ = switch.thaw();
        }
    }
}

fn lock_paths(order: &Order) -> Vec<PathBuf> {
    order.volumes.iter().map(|volume| Path::new(&volume.lock_path).to_owned()).collect()
}

fn stuck(id: &InstanceId, why: &str) -> PortError {
    PortError::new(format!("cannot end instance {id}: {why}")).hint(
        "start the container engine again (`systemctl start docker`); until then its volumes stay locked",
    )
}

//! A container that stands still: by the switch of its control group, else by the engine's pause.

use std::time::{Duration, Instant};

use trackbed_sandbox::beside::{GroupSwitch, Process};

use crate::daemon::{self, Daemon};

/// Longest time that anything stands still, whoever asks (ARCHITECTURE.md, invariants).
pub(crate) const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait until everything does.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// Time between two looks until then.
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// How it is done.
enum Means {
    /// Works without the engine: it may hang or be gone, and still nothing stays frozen.
    Switch(GroupSwitch),
    /// Where this user may not write to the control group.
    Pause,
}

/// A hold on a container.
pub(crate) struct Hold {
    /// Tells it from every other.
    pub(crate) number: u64,
    means: Means,
    pub(crate) since: Instant,
    pub(crate) limit: Duration,
    /// When everything stood still.
    pub(crate) still: Option<Instant>,
}

impl Hold {
    /// Begins to make a container stand still.
    ///
    /// # Errors
    /// When neither way works; then it goes on.
    pub(crate) async fn begin(
        number: u64,
        init: Process,
        daemon: &Daemon,
        container: &str,
        limit: Duration,
    ) -> Result<Hold, String> {
        let since = Instant::now();
        let limit = limit.min(FREEZE_LIMIT);
        let switch = init.find_switch().filter(|switch| switch.freeze().is_ok());
        let means = match switch {
            Some(switch) => Means::Switch(switch),
            None => {
                daemon.api.pause_container(container).await.map_err(|error| daemon::words(&error))?;
                Means::Pause
            }
        };
        let still = matches!(means, Means::Pause).then(Instant::now);
        Ok(Hold { number, means, since, limit, still })
    }

    /// Looks whether everything stands still.
    pub(crate) fn look(&mut self) -> bool {
        if self.still.is_none() && self.is_still() {
            self.still = Some(Instant::now());
        }
        self.still.is_some()
    }

    fn is_still(&self) -> bool {
        match &self.means {
            Means::Switch(switch) => switch.is_still(),
            Means::Pause => true,
        }
    }

    /// Lets the container go on. Returns how long it stood still.
    ///
    /// # Errors
    /// When it did not until now.
    pub(crate) async fn end(self, daemon: &Daemon, container: &str) -> Result<Duration, String> {
        let is_over = self.since.elapsed() >= self.limit;
        let stood = self.still.filter(|_| self.is_still());
        let ended = match &self.means {
            Means::Switch(switch) => switch.thaw().map_err(|error| error.to_string()),
            // It answers with an error when somebody else has let it go.
            Means::Pause => {
                daemon.api.unpause_container(container).await.map_err(|error| daemon::words(&error))
            }
        };
        match (is_over, stood, ended) {
            (true, ..) => Err(format!("it was let go at its limit of {} ms", self.limit.as_millis())),
            (false, None, _) => Err("something else has let it go".to_owned()),
            (false, Some(_), Err(why)) => Err(why),
            (false, Some(since), Ok(())) => Ok(since.elapsed()),
        }
    }
}

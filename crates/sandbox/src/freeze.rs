//! Holding an instance still: the control plane's end. The lease is the connection to the shim, which lets the instance
//! go as soon as the connection ends; only when the shim itself is gone does this side do it.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use trackbed_core::InstanceId;
use trackbed_core::ports::{Frozen, PortError};

use crate::control::{self, Answer, Ask};
use crate::records::Phase;
use crate::sandbox::{Inner, Sandbox};
use crate::stillness::FREEZE_LIMIT;

/// What the shim's word may be late by, on a box with more to do than it can.
const WORD_LIMIT: Duration = Duration::from_secs(2);
/// A process whose connections have just closed is about to be gone.
const GOING_LIMIT: Duration = Duration::from_millis(300);

/// Makes an instance stand still; see [`trackbed_core::ports::Engine::freeze`].
pub(crate) async fn freeze(
    sandbox: &Sandbox,
    id: &InstanceId,
    limit: Duration,
) -> Result<Box<dyn Frozen>, PortError> {
    let id = id.clone();
    let shared = sandbox.inner.clone();
    // When the future is dropped, so is the hold that the thread returns.
    let hold = sandbox.blocking(move |_| hold(&shared, &id, limit)).await?;
    Ok(Box::new(hold))
}

fn hold(inner: &Arc<Inner>, id: &InstanceId, limit: Duration) -> Result<Hold, PortError> {
    let (_, state) = inner.living(id)?;
    if state.phase == Phase::Starting {
        return Err(PortError::new(format!("instance {id} is still starting")));
    }
    let failed = |why: String| PortError::new(format!("cannot freeze instance {id}: {why}"));
    let limit = limit.min(FREEZE_LIMIT);
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    // From the first moment on, so that nobody of this process takes it for left behind.
    let counted = Counted::new(inner.clone(), id.clone());
    let asked = control::ask(&inner.socket(id), Ask::Freeze { limit_ms }, &[]).and_then(|line| {
        line.set_read_timeout(Some(limit + WORD_LIMIT))?;
        Ok((control::answer(&line)?, line.try_clone()?, line))
    });
    let (answer, watched, line) = asked.map_err(|error| {
        if is_silence(&error) {
            // It may have begun, and hangs.
            inner.thaw(id);
            return failed(format!(
                "its supervisor does not answer within {} s",
                (limit + WORD_LIMIT).as_secs()
            ));
        }
        failed(error.to_string())
    })?;
    if let Some(why) = answer.error {
        let is_older = why.contains("unknown variant");
        let error = failed(why);
        return Err(match is_older {
            true => error.hint("its supervisor is of an earlier version: restart the service once"),
            false => error,
        });
    }
    let (tell, told) = oneshot::channel();
    let watch = move || {
        let outcome = counted.watch(&watched);
        // Nobody listens when the hold was dropped.
        let _ = tell.send(outcome);
    };
    let watcher = std::thread::Builder::new().name(format!("freeze-{id}")).spawn(watch);
    // Without the thread the line closes, which lets the instance go.
    watcher.map_err(|error| failed(format!("no thread can be made: {error}")))?;
    Ok(Hold { id: id.clone(), line, told: Some(told) })
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A hold on an instance that stands still.
struct Hold {
    id: InstanceId,
    line: UnixStream,
    told: Option<oneshot::Receiver<Result<Duration, String>>>,
}

#[async_trait]
impl Frozen for Hold {
    async fn thaw(mut self: Box<Self>) -> Result<Duration, PortError> {
        // A shim that has let it go already has said why, and hears no more.
        let _ = control::send(&self.line, Ask::Thaw, &[]);
        let told = match self.told.take() {
            Some(told) => told.await.unwrap_or_else(|_| Err("nobody watched it".to_owned())),
            None => Err("it was thawed before".to_owned()),
        };
        told.map_err(|why| PortError::new(format!("instance {} did not stand still: {why}", self.id)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.line.shutdown(Shutdown::Write);
    }
}

/// Counts as a hold of this process.
struct Counted {
    inner: Arc<Inner>,
    id: InstanceId,
}

impl Counted {
    fn new(inner: Arc<Inner>, id: InstanceId) -> Counted {
        *inner.memory().holds.entry(id.clone()).or_default() += 1;
        Counted { inner, id }
    }

    /// Waits for the shim's word, as long as the line allows, or lets the instance go when none can come.
    fn watch(&self, line: &UnixStream) -> Result<Duration, String> {
        match control::answer(line) {
            Ok(Answer { error: None, stood_still_us: Some(micros), .. }) => Ok(Duration::from_micros(micros)),
            Ok(Answer { error, .. }) => {
                Err(error.unwrap_or_else(|| "its supervisor does not say".to_owned()))
            }
            Err(error) => {
                let hangs = is_silence(&error);
                self.inner.take_back(&self.id, hangs);
                let what = if hangs { "its supervisor hangs" } else { "its supervisor has closed the line" };
                Err(format!("{what} ({error})"))
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut memory = self.inner.memory();
        if let Some(count) = memory.holds.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                memory.holds.remove(&self.id);
            }
        }
    }
}

impl Inner {
    /// Does what the shim did not: one that lives has let its instance go before it closed the line.
    fn take_back(&self, id: &InstanceId, hangs: bool) {
        let shim = self.folder(id).living_shim();
        let is_gone = shim.is_none_or(|(_, shim)| shim.wait_gone(GOING_LIMIT));
        if hangs || is_gone {
            self.thaw(id);
        }
        // Settles it when the shim is gone.
        self.life(id);
    }

    /// Switches every freezer of an instance's group off.
    pub(crate) fn thaw(&self, id: &InstanceId) {
        if let Some(order) = self.folder(id).find_order() {
            order.cgroup.thaw();
        }
    }

    /// Lets an instance go that somebody has left frozen: a control plane that is gone, together with the shim.
    pub(crate) fn thaw_left_behind(&self, id: &InstanceId) {
        let Some(order) = self.folder(id).find_order() else { return };
        if !order.cgroup.is_frozen() || self.memory().holds.contains_key(id) {
            return;
        }
        tracing::warn!(instance = %id, "an instance was left frozen");
        order.cgroup.thaw();
    }
}

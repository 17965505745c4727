//! Holding a container still: the control plane's end. The lease is the line to the keeper, which lets the container go as
//! soon as the line ends; only when the keeper itself is gone does this side do it (docs/decisions/0007).

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use trackbed_core::InstanceId;
use trackbed_core::ports::{Frozen, PortError};
use trackbed_sandbox::beside::Process;

use crate::control::{Answer, Ask, Line};
use crate::engine::Docker;
use crate::still::{FREEZE_LIMIT, SETTLE_LIMIT};

/// What the keeper's word may be late by, on a box with more to do than it can.
const WORD_LIMIT: Duration = Duration::from_secs(2);

/// Makes an instance stand still; see [`trackbed_core::ports::Engine::freeze`].
pub(crate) async fn freeze(
    docker: &Docker,
    id: &InstanceId,
    limit: Duration,
) -> Result<Box<dyn Frozen>, PortError> {
    let (_, _, init) = docker.living(id).await?;
    let failed = |why: String| PortError::new(format!("cannot freeze instance {id}: {why}"));
    let limit = limit.min(FREEZE_LIMIT);
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let socket = docker.socket(id);
    let asked = async {
        let mut line = Line::open(&socket).await?;
        line.send(&Ask::Freeze { limit_ms }).await?;
        let answer = line.receive::<Answer>().await?;
        Ok::<_, std::io::Error>((line, answer))
    };
    let asked = tokio::time::timeout(SETTLE_LIMIT + WORD_LIMIT, asked).await;
    let (line, answer) = match asked {
        Ok(Ok((line, Some(answer)))) => (line, answer),
        Ok(Ok((_, None))) => {
            thaw(init);
            return Err(failed("its keeper has closed the line".to_owned()));
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => {
            // It may have begun, and hangs.
            thaw(init);
            return Err(failed("its keeper does not answer".to_owned()));
        }
    };
    if let Some(why) = answer.error {
        return Err(failed(why));
    }
    let (ask, asks) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    docker.tasks().spawn(format!("hold on {id}"), async move {
        // Nobody listens when the hold was dropped.
        let _ = tell.send(watch(line, asks, init, limit).await);
    });
    Ok(Box::new(Hold { id: id.clone(), ask: Some(ask), told }))
}

/// Watches the line until the container goes on. Ends the line when the hold was dropped.
async fn watch(
    mut line: Line,
    mut asks: oneshot::Receiver<()>,
    init: Process,
    limit: Duration,
) -> Result<Duration, String> {
    let heard = tokio::select! {
        asked = &mut asks => {
            if asked.is_err() {
                return Err("it was let go".to_owned());
            }
            // A keeper that has let it go already has said why, and hears no more.
            let _ = line.send(&Ask::Thaw).await;
            tokio::time::timeout(limit + WORD_LIMIT, line.receive::<Answer>()).await
        }
        heard = tokio::time::timeout(limit + WORD_LIMIT, line.receive::<Answer>()) => heard,
    };
    match heard {
        Ok(Ok(Some(Answer { error: None, stood_still_us: Some(micros) }))) => {
            Ok(Duration::from_micros(micros))
        }
        Ok(Ok(Some(Answer { error, .. }))) => {
            Err(error.unwrap_or_else(|| "its keeper does not say".to_owned()))
        }
        // The keeper is gone, or hangs: what it does not do any more is done here.
        Ok(Ok(None) | Err(_)) => {
            thaw(init);
            Err("its keeper has closed the line".to_owned())
        }
        Err(_) => {
            thaw(init);
            Err("its keeper hangs".to_owned())
        }
    }
}

fn thaw(init: Process) {
    if let Some(switch) = init.find_switch().filter(|_| init.is_alive()) {
        let _ = switch.thaw();
    }
}

/// A hold on an instance that stands still. Dropping it drops the line.
struct Hold {
    id: InstanceId,
    ask: Option<oneshot::Sender<()>>,
    told: oneshot::Receiver<Result<Duration, String>>,
}

#[async_trait]
impl Frozen for Hold {
    async fn thaw(mut self: Box<Self>) -> Result<Duration, PortError> {
        if let Some(ask) = self.ask.take() {
            let _ = ask.send(());
        }
        let told = (&mut self.told).await.unwrap_or_else(|_| Err("nobody watched it".to_owned()));
        told.map_err(|why| PortError::new(format!("instance {} did not stand still: {why}", self.id)))
    }
}

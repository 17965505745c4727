//! Makes the instances of a service stand still for the moment in which its data is read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use trackbed_core::InstanceId;
use trackbed_core::instance::InstanceState;
use trackbed_core::ports::{Engine, Freezer, Frozen, PortError};
use trackbed_core::service::Service;

use crate::control::{Control, ControlError};

/// How long an instance may stand still: far above every capture that is worth its pause, and well below what a caller
/// takes for an outage.
const STILL: Duration = Duration::from_secs(10);
/// How long another capture of the same instance is waited for.
const TURN: Duration = Duration::from_secs(15);
/// How often an instance is asked at least, however long an answer took. Where only signals can stop processes, an app that
/// forks without pause on a box with more to do than it can may outrun the looks of its shim once in some dozens of times;
/// asked again it stands still. A capture that fails costs more than the seconds of a second try.
const ASKED_AT_LEAST: u32 = 2;
/// How often it is tried.
const TURN_POLL: Duration = Duration::from_millis(100);

/// Instances that write to the same volumes.
pub(crate) struct InstanceFreezer {
    engine: Arc<dyn Engine>,
    instances: Vec<InstanceId>,
}

#[async_trait]
impl Freezer for InstanceFreezer {
    async fn freeze(&self) -> Result<Box<dyn Frozen>, PortError> {
        let began = Instant::now();
        let mut held = Vec::new();
        for instance in &self.instances {
            let mut asked = 0;
            loop {
                asked += 1;
                match self.engine.freeze(instance, STILL).await {
                    Ok(frozen) => {
                        held.push(frozen);
                        break;
                    }
                    // Another capture may hold it for its own moment, or it did not come to its stop in time.
                    Err(error) if began.elapsed() >= TURN && asked >= ASKED_AT_LEAST => return Err(error),
                    Err(error) => {
                        let status = self.engine.inspect(instance).await?;
                        let runs = status.is_some_and(|status| status.state == InstanceState::Running);
                        if !runs {
                            return Err(error);
                        }
                        sleep(TURN_POLL).await;
                    }
                }
            }
        }
        Ok(Box::new(AllFrozen { held }))
    }
}

/// Instances that stand still together.
struct AllFrozen {
    held: Vec<Box<dyn Frozen>>,
}

#[async_trait]
impl Frozen for AllFrozen {
    async fn thaw(self: Box<Self>) -> Result<Duration, PortError> {
        let mut longest = Duration::ZERO;
        let mut lost = None;
        for frozen in self.held {
            match frozen.thaw().await {
                Ok(pause) => longest = longest.max(pause),
                Err(error) => lost = Some(error),
            }
        }
        lost.map_or(Ok(longest), Err)
    }
}

impl Control {
    /// Returns what makes the writers of a service's volumes stand still, or none when nobody runs.
    pub(crate) async fn freezer_of(
        &self,
        service: &Service,
    ) -> Result<Option<InstanceFreezer>, ControlError> {
        // It may have been started again since the service was read.
        let id = service.id.clone();
        let live = self.inner.store.with(move |db| db.load_service(&id)).await?.live;
        let Some(instance) = live.and_then(|live| live.instance) else { return Ok(None) };
        if self.ended(&instance).await?.is_some() {
            return Ok(None);
        }
        Ok(Some(InstanceFreezer { engine: self.inner.engine.clone(), instances: vec![instance] }))
    }
}

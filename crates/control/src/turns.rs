//! Turns of builds: so many run at once, the others wait in the order in which they came, and are told for whom.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trackbed_core::Name;
use trackbed_core::deployment::{Deployment, EventKind};
use trackbed_core::service::Service;
use trackbed_store::StoreError;

use crate::control::{Control, ControlError};

/// What the turn of another build may take: two commands with 20 minutes each, and some for copying.
const TURN: Duration = Duration::from_secs(45 * 60);

/// Who builds and who waits.
pub(crate) struct Turns {
    /// One for each build that may run. Who holds all of them keeps any from beginning.
    pub(crate) slots: Arc<Semaphore>,
    at_once: usize,
    /// The services of builds that run or wait, in the order in which they came.
    queue: Mutex<Vec<(u64, Name)>>,
}

/// A turn. Dropping it gives it to the next.
pub(crate) struct Turn<'a> {
    _slot: OwnedSemaphorePermit,
    _place: Place<'a>,
}

/// A place in the queue, which whoever leaves gives up.
struct Place<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Ok(mut queue) = self.turns.queue.lock() {
            queue.retain(|(number, _)| *number != self.number);
        }
    }
}

impl Turns {
    pub(crate) fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self { slots: Arc::new(Semaphore::new(at_once)), at_once, queue: Mutex::default() }
    }

    fn enter(&self, service: &Name) -> (Place<'_>, Vec<Name>) {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        let number = queue.last().map_or(0, |(last, _)| last + 1);
        let before = queue.iter().map(|(_, service)| service.clone()).collect();
        queue.push((number, service.clone()));
        (Place { turns: self, number }, before)
    }

    /// Returns how long a build that comes now may have to wait for its turn, at most.
    pub(crate) fn longest_wait(&self) -> Duration {
        let ahead = self.queue.lock().map_or(0, |queue| queue.len());
        let rounds = ahead.div_ceil(self.at_once);
        TURN.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

impl Control {
    /// Waits until a build of this service may begin, and tells its deployment when that is not at once. Cancel-safe.
    pub(crate) async fn build_turn(
        &self,
        service: &Service,
        deployment: &Deployment,
    ) -> Result<Turn<'_>, ControlError> {
        let turns = &self.inner.turns;
        let (place, before) = turns.enter(&service.name);
        let slots = turns.slots.clone();
        let slot = match slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                let text = waits_for(&before, turns.at_once);
                self.event(deployment, EventKind::Note, &text).await?;
                slots.acquire_owned().await.map_err(|_| StoreError::Closed)?
            }
        };
        Ok(Turn { _slot: slot, _place: place })
    }
}

fn waits_for(before: &[Name], at_once: usize) -> String {
    let names: Vec<String> = before.iter().map(|name| format!("`{name}`")).collect();
    match (names.as_slice(), at_once) {
        ([], _) => "waits until the box has removed what no release needs".to_owned(),
        (names, 1) => {
            format!("waits for its turn: one build runs at a time, and {} came before", names.join(", "))
        }
        (names, _) => {
            format!("waits for its turn: {at_once} builds run at once, and {} came before", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_the_queue_is_no_longer_waited_for() {
        let turns = Turns::new(1);
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (first, before) = turns.enter(&name("api"));
        assert!(before.is_empty());
        let (second, before) = turns.enter(&name("web"));
        assert_eq!(
            waits_for(&before, 1),
            "waits for its turn: one build runs at a time, and `api` came before"
        );
        assert_eq!(turns.longest_wait(), TURN * 2);
        drop(first);
        let (_third, before) = turns.enter(&name("job"));
        assert_eq!(before, [name("web")]);
        drop(second);
        assert_eq!(turns.longest_wait(), TURN);
    }
}

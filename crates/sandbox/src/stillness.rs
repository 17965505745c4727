//! The time that an instance stands still, as its shim keeps it: from the request to whatever ends it first.

use std::time::{Duration, Instant};

use crate::freezer::Means;
use crate::records::Order;

/// Longest time that an instance stands still, whatever was asked for: callers wait meanwhile.
pub(crate) const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait until everything stands still. What hangs in the kernel does not, and may write when it comes back.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// Time between two looks until then.
const LOOK: Duration = Duration::from_millis(1);

/// An instance that stands still, or is about to. Dropping it lets the instance go on.
pub(crate) struct Stillness {
    means: Means,
    limit: Duration,
    since: Instant,
    is_still: bool,
}

/// What a look came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing new.
    Nothing,
    /// Everything stands still from now on.
    Still,
    /// It must end, for this reason.
    Over(String),
}

impl Stillness {
    /// Begins to make everything below `init` stand still, for at most `limit`.
    pub(crate) fn begin(order: &Order, init: i32, limit: Duration) -> Stillness {
        let since = Instant::now();
        let means = Means::begin(order, init);
        Stillness { means, limit: limit.min(FREEZE_LIMIT), since, is_still: false }
    }

    /// Returns when to look next.
    pub(crate) fn look_at(&self) -> Instant {
        if self.is_still { self.since + self.limit } else { Instant::now() + LOOK }
    }

    pub(crate) fn look(&mut self) -> Look {
        let over = |what: &str, limit: Duration| Look::Over(format!("{what} {} ms", limit.as_millis()));
        let age = self.since.elapsed();
        if age >= self.limit {
            return over("it was let go at its limit of", self.limit);
        }
        if self.is_still {
            return Look::Nothing;
        }
        self.is_still = self.means.advance();
        match self.is_still {
            true => Look::Still,
            false if age >= SETTLE_LIMIT => {
                let (limit, who) = (SETTLE_LIMIT.as_millis(), self.means.describe_running());
                Look::Over(format!("some of its processes did not stand still within {limit} ms {who}"))
            }
            false => Look::Nothing,
        }
    }

    /// Lets the instance go on. Returns how long it stood still.
    ///
    /// # Errors
    /// When it did not until now, because somebody else has let it go.
    pub(crate) fn end(self) -> Result<Duration, String> {
        // The limit first: who comes too late must not hear that all was well.
        if !self.is_still || self.since.elapsed() >= self.limit {
            return Err(format!(
                "it did not stand still until now, but at most {} ms",
                self.limit.as_millis()
            ));
        }
        if !self.means.is_still() {
            return Err("something else has let it go".to_owned());
        }
        Ok(self.since.elapsed())
    }
}

impl Drop for Stillness {
    fn drop(&mut self) {
        // A group that is gone has nobody left to let go.
        let _ = self.means.end();
    }
}

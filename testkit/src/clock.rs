//! A wall clock that follows tokio's clock, so that stamps and waits agree when time is paused.

use std::cell::Cell;

use tokio::time::Instant;
use trackbed_core::Timestamp;

/// What the clock shows when a world begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Sets the clock of this thread's runtime to its beginning. Called by every new world.
pub fn restart() {
    BEGAN.set(Some(Instant::now()));
}

/// Returns the time. Only on the thread that the test's runtime lives on: paused clocks need a current-thread one.
///
/// # Panics
/// When no world was made on this thread.
pub fn now() -> Timestamp {
    let began = BEGAN.get().expect("the clock is read on the thread of a test that made a world");
    Timestamp(EPOCH_MS + i64::try_from(began.elapsed().as_millis()).expect("tests last less than an age"))
}

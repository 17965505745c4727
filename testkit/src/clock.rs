//! A wall clock that follows tokio's clock, so that stamps and waits agree when time is paused.

use std::cell::Cell;

use tokio::time::Instant;
use trackbed_core::Timestamp;

/// What the clock shows when a world begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// How far the wall clock of the control plane is off, in milliseconds.
    static OFF_MS: Cell<i64> = const { Cell::new(0) };
}

/// Sets the clock of this thread's runtime to its beginning. Called by every new world.
pub fn restart() {
    BEGAN.set(Some(Instant::now()));
    OFF_MS.set(0);
}

/// Lets the wall clock of the control plane jump by so many milliseconds, backwards when negative. What the world does
/// goes by a clock that does not jump.
pub fn jump(by_ms: i64) {
    OFF_MS.set(OFF_MS.get() + by_ms);
}

/// Returns what the wall clock of the control plane shows.
pub fn wall() -> Timestamp {
    Timestamp(now().0 + OFF_MS.get())
}

/// Returns the time. Only on the thread that the test's runtime lives on: paused clocks need a current-thread one.
///
/// # Panics
/// When no world was made on this thread.
pub fn now() -> Timestamp {
    let began = BEGAN.get().expect("the clock is read on the thread of a test that made a world");
    Timestamp(EPOCH_MS + i64::try_from(began.elapsed().as_millis()).expect("tests last less than an age"))
}

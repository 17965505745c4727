//! Bandwidth: whoever moves bytes waits until they fit under the cap.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A cap that all transfers of a target share.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the line is free again.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may move. Dropping the wait gives the turn up, not back.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let turn = {
            let mut free_at = self.free_at.lock().expect("no holder of this lock panics");
            let turn = (*free_at).max(Instant::now());
            *free_at = turn + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn transfers_share_the_cap() {
        let pace = Pace::new(Some(1000));
        let begun = Instant::now();
        let both = futures_util::future::join(async { pace.take(2000).await }, async {
            pace.take(1000).await;
            pace.take(1).await
        });
        both.await;
        assert_eq!(begun.elapsed().as_millis(), 3000);
        Pace::new(None).take(usize::MAX).await;
        assert_eq!(begun.elapsed().as_millis(), 3000);
    }
}

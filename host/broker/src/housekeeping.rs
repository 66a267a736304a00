//! The thread that looks after the store: expired records, segments that are mostly dead and compaction now and then, and
//! in between a check of older data, a little at a time. It also gives up instances of plugins that nobody needs.
//!
//! Owns the interval and the pace. What is expired or dead, and how it goes, is the store's.

use std::time::Duration;

use storage::{
    CleanReport, Health, RetentionReport, ScrubProgress, Store,
    sync::{Receiver, RecvTimeoutError},
};
use transform::PluginHost;

/// How fast the cleaner reads and writes: a part of what a small host's disk can do, so that producers hardly notice.
const CLEAN_BYTES_PER_SECOND: u64 = 32 << 20;

/// What is scrubbed at a time. A part is read whole, so it may be 1 MiB.
const SCRUB_STEP_BYTES: usize = 256 << 10;

/// From the end of one scrub to the begin of the next: what was sound an hour ago is not worth a disk's attention.
const SCRUB_REST: Duration = Duration::from_secs(3_600);

/// From one round to the next while producers are refused or slowed for want of space.
const HURRIED_INTERVAL: Duration = Duration::from_secs(1);

/// How long an instance may wait for a batch before its memory is given back: starting another takes microseconds.
const INSTANCE_IDLE: Duration = Duration::from_secs(10);

/// When the next step of the scrub is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// From now on; never where nothing is scrubbed.
    due: Option<Duration>,
}

impl Pace {
    /// Begins at once, unless the rate is 0.
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second, due: (bytes_per_second > 0).then_some(Duration::ZERO) }
    }

    /// Time went by; whether a step is due.
    fn is_due_after(&mut self, waited: Duration) -> bool {
        self.due = self.due.map(|due| due.saturating_sub(waited));
        self.due == Some(Duration::ZERO)
    }

    /// A step was made.
    fn stepped(&mut self, progress: ScrubProgress) {
        let nanos = u128::from(progress.bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.due = Some(if progress.wrapped { wait.max(SCRUB_REST) } else { wait });
    }
}

/// Runs until the other end of `stop` is dropped.
pub(crate) fn run(store: &Store, plugins: &PluginHost, interval: Duration, mut scrub: Pace, stop: &Receiver<()>) {
    let mut round_due = interval;
    loop {
        let wait = scrub.due.unwrap_or(interval).min(round_due).min(HURRIED_INTERVAL);
        if stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        round_due -= wait;
        plugins.trim(INSTANCE_IDLE);
        if scrub.is_due_after(wait) {
            scrub.stepped(store.scrub_step(SCRUB_STEP_BYTES));
        }
        if round_due.is_zero() {
            delete_expired(store);
            clean(store, stop);
            round_due = interval;
        }
        if round_due > HURRIED_INTERVAL && !matches!(store.stats().health, Health::Healthy) {
            round_due = HURRIED_INTERVAL;
        }
    }
}

fn delete_expired(store: &Store) {
    match store.run_retention(store.now_ms()) {
        Ok(RetentionReport { partitions_trimmed: 0, segments_removed: 0, .. }) => {}
        Ok(report) => tracing::info!(?report, "deleted expired records"),
        // What is not deleted now is still expired the next time.
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to delete expired records"),
    }
}

fn clean(store: &Store, stop: &Receiver<()>) {
    let mut pace = |bytes: usize| {
        let wait = Duration::from_nanos(bytes as u64 * 1_000_000_000 / CLEAN_BYTES_PER_SECOND);
        stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
    };
    match store.clean(store.now_ms(), &mut pace) {
        Ok(CleanReport { segments_rewritten: 0, .. }) => {}
        Ok(report) => tracing::info!(?report, "rewrote segments"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to clean the log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scrub_keeps_to_its_rate_and_rests_between_rounds() {
        let mut pace = Pace::new(4 << 20);
        assert!(pace.is_due_after(Duration::ZERO));
        pace.stepped(ScrubProgress { bytes: 1 << 20, ..ScrubProgress::default() });
        assert!(!pace.is_due_after(Duration::from_millis(249)));
        assert!(pace.is_due_after(Duration::from_millis(1)));
        pace.stepped(ScrubProgress { wrapped: true, ..ScrubProgress::default() });
        assert!(!pace.is_due_after(SCRUB_REST / 2));
        assert!(pace.is_due_after(SCRUB_REST));
        assert!(!Pace::new(0).is_due_after(SCRUB_REST));
    }
}

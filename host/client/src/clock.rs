//! The only place where this crate reads the time or takes a random number.

#[expect(clippy::disallowed_types, reason = "this is clock.rs")]
use std::collections::hash_map::RandomState;
use std::{
    hash::BuildHasher,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) use tokio::time::Instant;

/// The monotonic clock that deadlines and timers use; a paused runtime's clock in tests.
#[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970: what a record is stamped with.
#[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A random number below 1, for jitter; std's hasher seeds itself from the operating system.
#[expect(clippy::disallowed_types, reason = "this is clock.rs")]
fn chance() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Waits that double from `first` to `longest`, each shortened by up to a half at random, so that many clients that
/// lost the same broker do not come back in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, attempts: 0 }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.attempts.min(20)).min(self.longest);
        self.attempts += 1;
        full.mul_f64(0.5 + chance() / 2.0)
    }

    /// Something succeeded: begin again with the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_again() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(80));
        let mut backoff = Backoff::new(first, longest);
        for full in [10, 20, 40, 80, 80].map(Duration::from_millis) {
            let wait = backoff.wait();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
    }
}

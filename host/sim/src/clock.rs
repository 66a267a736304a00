//! Time: the store's, which a simulation makes up, and the host's, for people who wait.
//!
//! Start at [`SimClock`].

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use storage::Clock;

/// Where a store takes the time from: each look at it is a millisecond later.
#[derive(Debug, Default)]
pub struct SimClock(AtomicI64);

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn random_id(&self) -> [u8; 16] {
        *b"a simulated one!"
    }
}

/// The host's clock. Nothing that is simulated depends on it.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

//! The only place of this crate that reads the time. Dates are by the store's clock.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::time::Instant;

/// A moment to count from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start(Instant);

impl Start {
    pub(crate) fn now() -> Start {
        Start(Instant::now())
    }

    /// Milliseconds since then.
    pub(crate) fn elapsed_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

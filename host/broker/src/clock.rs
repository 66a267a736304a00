//! The only place of this crate that reads the time.

#![expect(clippy::disallowed_methods, reason = "this is the clock")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

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

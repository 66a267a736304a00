//! Time and chance: the only place of the crate that reads either.
//!
//! The simulator and tests hand in a [`Clock`] of their own through the store's options.

use std::fmt;

/// Where a store takes the time and its identity from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch; written into commit records.
    fn now_ms(&self) -> i64;
    /// 128 bits that no other store has; asked for once, when a store is made.
    fn random_id(&self) -> [u8; 16];
}

/// The host's clock and the process's random keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> i64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_types, reason = "this is the source of randomness")]
    fn random_id(&self) -> [u8; 16] {
        use std::hash::{BuildHasher, RandomState};
        // Keys of `RandomState` come from the system's random source; two of them, hashed with the time and the
        // process, are ample for an identity that only has to differ.
        let half = || RandomState::new().hash_one((self.now_ms(), std::process::id()));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&half().to_le_bytes());
        id[8..].copy_from_slice(&half().to_le_bytes());
        id
    }
}

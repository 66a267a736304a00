//! How well a broker's store takes writes.

use minicbor::{Decode, Encode};

/// Whether writes are taken, and if not as usual, why not. Reads go on in every state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Health {
    /// Everything is taken at once.
    #[default]
    #[n(0)]
    Healthy,
    /// Everything is taken, produced records after a delay: the disk is almost full.
    #[n(1)]
    Slowed {
        /// Which limit is near, and the way out.
        #[n(0)]
        why: String,
    },
    /// Records are refused, because the disk is full; offset commits, deletes and retention go on. Ends by itself when
    /// there is space again.
    #[n(2)]
    Full {
        /// Which limit is reached, and the way out.
        #[n(0)]
        why: String,
    },
    /// Nothing is taken: the disk fails. Ends by itself when it can be written to again.
    #[n(3)]
    ReadOnly {
        /// What the disk said.
        #[n(0)]
        why: String,
    },
}

impl Health {
    /// Whether records can be produced.
    #[must_use]
    pub const fn takes_appends(&self) -> bool {
        matches!(self, Health::Healthy | Health::Slowed { .. })
    }

    /// The word used in JSON and in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Slowed { .. } => "slowed",
            Health::Full { .. } => "full",
            Health::ReadOnly { .. } => "read_only",
        }
    }

    /// What is wrong, if anything.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Health::Healthy => None,
            Health::Slowed { why } | Health::Full { why } | Health::ReadOnly { why } => Some(why),
        }
    }
}

//! What a produced batch is answered with: its place, the books, the records that were refused.
//!
//! Invariant: the books balance, `records_in = kept + dropped + dead_lettered + rejected` ([`Books::balance`]).

use minicbor::{Decode, Encode};

use crate::Offset;

/// What became of the records of one batch, or of many summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Books {
    /// Records the producer sent.
    #[n(0)]
    pub records_in: u64,
    /// Inputs of which at least one output is stored.
    #[n(1)]
    pub kept: u64,
    /// Outputs stored in the own topic and in topics routed to; more than `kept` after a flat-map.
    #[n(2)]
    pub stored: u64,
    /// Inputs a transform dropped.
    #[n(3)]
    pub dropped: u64,
    /// Inputs that failed and lie in the dead letter topic.
    #[n(4)]
    pub dead_lettered: u64,
    /// Inputs that failed and were refused, each with a [`RecordError`].
    #[n(5)]
    pub rejected: u64,
}

impl Books {
    /// Whether every input is accounted for exactly once.
    #[must_use]
    pub const fn balance(&self) -> bool {
        self.records_in == self.kept + self.dropped + self.dead_lettered + self.rejected
    }

    /// Adds the books of another batch.
    pub const fn add(&mut self, other: &Books) {
        self.records_in += other.records_in;
        self.kept += other.kept;
        self.stored += other.stored;
        self.dropped += other.dropped;
        self.dead_lettered += other.dead_lettered;
        self.rejected += other.rejected;
    }
}

/// One record that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecordError {
    /// Its index in the batch as sent.
    #[n(0)]
    pub index: u32,
    /// The plugin's own code; from 0xff00 on, one of the host's (`abi::HostCode`).
    #[n(1)]
    pub code: u16,
    /// The reason, at most [`GUEST_TEXT_BYTES_MAX`](crate::limits::GUEST_TEXT_BYTES_MAX).
    #[n(2)]
    pub text: String,
}

/// The whole answer to one produced batch; a retry of the batch gets the same one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProduceAnswer {
    /// First offset the batch covers.
    #[n(0)]
    pub base_offset: Offset,
    /// First offset after those it covers.
    #[n(1)]
    pub next_offset: Offset,
    /// What became of its records.
    #[n(2)]
    pub books: Books,
    /// The refused records, by index.
    #[n(3)]
    pub rejects: Vec<RecordError>,
}

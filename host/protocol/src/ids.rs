//! Positions and identities: newtypes, so that an offset is never mistaken for a count or another id.
//!
//! Owns no behaviour beyond checked arithmetic on offsets.

use std::fmt;

use minicbor::{Decode, Encode};

/// Position of a record in its partition: from 0, growing, with gaps where records were dropped or compacted.
///
/// Ranges of offsets are half open. The value never exceeds `i64::MAX`, so that it fits a Kafka `base_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Offset(#[n(0)] pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset that the record batch format can carry.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset `count` places further on.
    ///
    /// # Panics
    /// When the sum leaves the range of the format: a partition would need 2^63 records for that.
    #[must_use]
    pub fn plus(self, count: u64) -> Offset {
        let sum = self.0.checked_add(count).filter(|sum| *sum <= Offset::MAX.0);
        Offset(sum.expect("a partition holds fewer than 2^63 offsets"))
    }

    /// How many offsets lie in `[earlier, self)`; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition's id, unique in the store and never reused, so that nothing stale can come back under it.
///
/// People name partitions by topic and number ([`TopicPartition`](crate::TopicPartition)); the store knows only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PartitionId(#[n(0)] pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a producer across its connections; what its sequences are counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ProducerId(#[n(0)] pub u64);

/// Which incarnation of a producer writes; a newer one fences the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Epoch(#[n(0)] pub u16);

/// Number of a producer's record within one partition: from 0, by one, wrapping after `i32::MAX` as in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Sequence(#[n(0)] pub u32);

impl Sequence {
    /// The sequence `count` records further on, wrapping from 2^31 - 1 to 0.
    #[must_use]
    pub const fn plus(self, count: u32) -> Sequence {
        Sequence(self.0.wrapping_add(count) & 0x7fff_ffff)
    }
}

/// Ties an answer to its request on a control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CorrelationId(pub u64);

/// A topic-partition bound once on a producer stream; chosen by the client, small and dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Handle(#[n(0)] pub u32);

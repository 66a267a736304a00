//! A topic's settings, as every door shows them.

use minicbor::{Decode, Encode};

use crate::{TopicName, limits::RECORD_BYTES_MAX};

/// When records of a topic may be deleted: by age, by size, or (both `None`) never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Retention {
    /// Records older than this, by their own timestamp, may go. Milliseconds.
    #[n(0)]
    pub age_ms: Option<u64>,
    /// The oldest records of a partition may go while it holds more than this. Bytes of record batches.
    #[n(1)]
    pub bytes: Option<u64>,
}

impl Default for Retention {
    /// Seven days, any size: Kafka's default.
    fn default() -> Self {
        Retention { age_ms: Some(7 * 24 * 3_600 * 1_000), bytes: None }
    }
}

/// What can be set on a topic, at creation and later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TopicConfig {
    /// When its records may be deleted.
    #[n(0)]
    pub retention: Retention,
    /// Largest record (key, value and headers, uncompressed), in bytes.
    #[n(1)]
    pub max_record_bytes: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig { retention: Retention::default(), max_record_bytes: RECORD_BYTES_MAX as u32 }
    }
}

/// A topic as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TopicDescription {
    /// Its name.
    #[n(0)]
    pub name: TopicName,
    /// Its settings.
    #[n(1)]
    pub config: TopicConfig,
    /// Its partitions, by number.
    #[n(2)]
    pub partitions: Vec<PartitionDescription>,
}

/// A partition as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PartitionDescription {
    /// Its id in the store.
    #[n(0)]
    pub id: crate::PartitionId,
    /// First offset still kept.
    #[n(1)]
    pub log_start_offset: crate::Offset,
    /// First offset readers may not see yet.
    #[n(2)]
    pub high_watermark: crate::Offset,
    /// Bytes of its record batches.
    #[n(3)]
    pub bytes: u64,
}

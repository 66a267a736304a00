//! A topic's settings, as every door shows them.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::{TopicName, limits::RECORD_BYTES_MAX};

/// How long a tombstone stays readable by default: a day, as in Kafka.
const DELETE_RETENTION_MS: u64 = 24 * 3_600 * 1_000;

/// What makes records of a topic go: their age and the partition's size, newer records of their key, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum CleanupPolicy {
    /// Records go when they are too old or too many.
    #[default]
    #[n(0)]
    Delete,
    /// The newest record of each key stays for ever; those before it go.
    #[n(1)]
    Compact,
    /// The newest record of each key stays until it is too old or there are too many.
    #[n(2)]
    CompactAndDelete,
}

impl CleanupPolicy {
    /// The word used in the CLI and in JSON: Kafka's, for `cleanup.policy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CleanupPolicy::Delete => "delete",
            CleanupPolicy::Compact => "compact",
            CleanupPolicy::CompactAndDelete => "compact,delete",
        }
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is none of `delete`, `compact`, `compact,delete`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of `delete`, `compact`, `compact,delete`")]
pub struct CleanupPolicyUnknown(String);

impl FromStr for CleanupPolicy {
    type Err = CleanupPolicyUnknown;

    /// The two words of a list come in either order.
    fn from_str(words: &str) -> Result<Self, CleanupPolicyUnknown> {
        match words {
            "delete" => Ok(CleanupPolicy::Delete),
            "compact" => Ok(CleanupPolicy::Compact),
            "compact,delete" | "delete,compact" => Ok(CleanupPolicy::CompactAndDelete),
            _ => Err(CleanupPolicyUnknown(words.to_owned())),
        }
    }
}

/// When records of a topic may go: by age, by size, by newer records of their key, or never ([`Retention::FOREVER`]).
///
/// The bounds hold as the policy says: ask [`Retention::expires_age_ms`] and [`Retention::expires_bytes`] what applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Retention {
    /// Records older than this, by their own timestamp, may go. Milliseconds.
    #[n(0)]
    pub age_ms: Option<u64>,
    /// The oldest records of a partition may go while it holds more than this. Bytes of record batches.
    #[n(1)]
    pub bytes: Option<u64>,
    /// Whether the bounds above apply, and whether older records of a key go.
    #[n(2)]
    pub policy: CleanupPolicy,
    /// In a topic that compacts, a tombstone (a key with a null value) stays readable this long, so that readers on
    /// their way learn that the key is gone. Milliseconds.
    #[n(3)]
    pub delete_retention_ms: u64,
}

impl Retention {
    /// Nothing ever goes.
    pub const FOREVER: Retention = Retention {
        age_ms: None,
        bytes: None,
        policy: CleanupPolicy::Delete,
        delete_retention_ms: DELETE_RETENTION_MS,
    };

    /// The age past which records go, if age makes them go at all: a topic that only compacts has no such bound.
    #[must_use]
    pub const fn expires_age_ms(&self) -> Option<u64> {
        if self.expires() { self.age_ms } else { None }
    }

    /// The size past which a partition's oldest records go, if size makes them go at all.
    #[must_use]
    pub const fn expires_bytes(&self) -> Option<u64> {
        if self.expires() { self.bytes } else { None }
    }

    const fn expires(&self) -> bool {
        matches!(self.policy, CleanupPolicy::Delete | CleanupPolicy::CompactAndDelete)
    }

    /// Whether older records of a key go, so that every record needs one.
    #[must_use]
    pub const fn compacts(&self) -> bool {
        matches!(self.policy, CleanupPolicy::Compact | CleanupPolicy::CompactAndDelete)
    }
}

impl Default for Retention {
    /// Seven days, any size: Kafka's default.
    fn default() -> Self {
        Retention { age_ms: Some(7 * 24 * 3_600 * 1_000), ..Retention::FOREVER }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_only_compacts_keeps_the_newest_of_each_key_however_old_and_many() {
        let bounded = |policy| Retention { age_ms: Some(1), bytes: Some(2), policy, ..Retention::FOREVER };
        let applies = |policy| {
            let retention = bounded(policy);
            (retention.expires_age_ms(), retention.expires_bytes(), retention.compacts())
        };
        assert_eq!(applies(CleanupPolicy::Delete), (Some(1), Some(2), false));
        assert_eq!(applies(CleanupPolicy::Compact), (None, None, true));
        assert_eq!(applies(CleanupPolicy::CompactAndDelete), (Some(1), Some(2), true));
    }

    #[test]
    fn a_policy_is_read_as_it_is_written_and_in_either_order() {
        for policy in [CleanupPolicy::Delete, CleanupPolicy::Compact, CleanupPolicy::CompactAndDelete] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("delete,compact".parse(), Ok(CleanupPolicy::CompactAndDelete));
        let unknown = "shrink".parse::<CleanupPolicy>().unwrap_err();
        assert_eq!(unknown.to_string(), "`shrink` is not one of `delete`, `compact`, `compact,delete`");
    }
}

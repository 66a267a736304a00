//! The rows that a simulated broker keeps beside its logs: topics with where their versions begin, and producers' answers.
//!
//! Owns their layouts. They go into the same commit as what they are about, as the broker's do.
//!
//! ```text
//! Catalog    topic/N                                       version u32, (partition u32, begins at u64)...
//! Producers  partition u32, producer u64, slot u8          number u32, sequence u32, count u32, base offset u64
//! ```
//! Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use protocol::PartitionId;
use storage::{StateChange, StateTable};

/// How many of a producer's last batches are remembered.
pub const WINDOW: u32 = 5;

/// The key of every topic begins so.
pub const TOPICS: &[u8] = b"topic/";

/// A topic: its partitions, and where in each the version of its pipeline begins that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRow {
    /// The version.
    pub version: u32,
    /// The first offset of that version in each.
    pub partitions: Vec<(PartitionId, u64)>,
}

impl TopicRow {
    /// The change that sets it, or removes the topic.
    #[must_use]
    pub fn change(name: u8, row: Option<&TopicRow>) -> StateChange {
        let key = [TOPICS, &[b'0' + name]].concat();
        StateChange { table: StateTable::Catalog, key: key.into(), value: row.map(TopicRow::encode) }
    }

    /// The name in a key.
    #[must_use]
    pub fn name(key: &[u8]) -> Option<u8> {
        match key.strip_prefix(TOPICS)? {
            [digit] => digit.checked_sub(b'0'),
            _ => None,
        }
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32(self.version);
        for (id, begins_at) in &self.partitions {
            bytes.put_u32(id.0);
            bytes.put_u64(*begins_at);
        }
        bytes.freeze()
    }

    /// What a row says.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<TopicRow> {
        let version = bytes.try_get_u32().ok()?;
        let mut partitions = Vec::new();
        while !bytes.is_empty() {
            partitions.push((PartitionId(bytes.try_get_u32().ok()?), bytes.try_get_u64().ok()?));
        }
        Some(TopicRow { version, partitions })
    }
}

/// The answer to one of a producer's batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerRow {
    /// Which of its batches, counted from 0.
    pub number: u32,
    /// The sequence of its first record.
    pub sequence: u32,
    /// Its records.
    pub count: u32,
    /// Where they begin.
    pub base_offset: u64,
}

impl ProducerRow {
    /// Where the rows of a producer are.
    #[must_use]
    pub fn prefix(partition: PartitionId, producer: u64) -> Vec<u8> {
        [&partition.0.to_be_bytes()[..], &producer.to_be_bytes()].concat()
    }

    /// Whose a row is.
    #[must_use]
    pub fn whose(mut key: &[u8]) -> Option<(PartitionId, u64)> {
        Some((PartitionId(key.try_get_u32().ok()?), key.try_get_u64().ok()?))
    }

    /// The change that sets it.
    #[must_use]
    pub fn change(self, partition: PartitionId, producer: u64) -> StateChange {
        let mut key = ProducerRow::prefix(partition, producer);
        key.push((self.number % WINDOW) as u8);
        let mut value = BytesMut::new();
        value.put_u32(self.number);
        value.put_u32(self.sequence);
        value.put_u32(self.count);
        value.put_u64(self.base_offset);
        StateChange { table: StateTable::Producers, key: key.into(), value: Some(value.freeze()) }
    }

    /// What a row says.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<ProducerRow> {
        let (number, sequence) = (bytes.try_get_u32().ok()?, bytes.try_get_u32().ok()?);
        let (count, base_offset) = (bytes.try_get_u32().ok()?, bytes.try_get_u64().ok()?);
        Some(ProducerRow { number, sequence, count, base_offset })
    }

    /// The sequence after it.
    #[must_use]
    pub fn next_sequence(self) -> u32 {
        self.sequence + self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_was_put_into_them() {
        let topic = TopicRow { version: 7, partitions: vec![(PartitionId(3), 9), (PartitionId(4), 0)] };
        let change = TopicRow::change(2, Some(&topic));
        assert_eq!(TopicRow::name(&change.key), Some(2));
        assert_eq!(TopicRow::decode(&change.value.unwrap()), Some(topic));
        let answer = ProducerRow { number: 11, sequence: 30, count: 4, base_offset: 77 };
        let change = answer.change(PartitionId(3), 8);
        assert_eq!(ProducerRow::whose(&change.key), Some((PartitionId(3), 8)));
        assert!(change.key.starts_with(&ProducerRow::prefix(PartitionId(3), 8)));
        assert_eq!(ProducerRow::decode(&change.value.unwrap()), Some(answer));
    }
}

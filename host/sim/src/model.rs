//! A store as plain maps have it: what it should look like after some commits.
//!
//! Start at [`Model::apply`].

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{PartitionId, RecordBatch, Retention};
use storage::{Commit, PartitionChange, StateChange, StateTable};

use crate::rows::{ProducerRow, TopicRow};

/// In which table each commit leaves its number.
pub const MARKER_TABLE: StateTable = StateTable::Positions;

/// Under which key it does.
pub const MARKER_KEY: &[u8] = b"marker";

/// One batch of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its first offset.
    pub start: u64,
    /// Behind its last.
    pub end: u64,
    /// Whose it is.
    pub producer: Option<u64>,
    /// All of it.
    pub bytes: Bytes,
}

impl Batch {
    /// The sequence of its first record, if it has one.
    #[must_use]
    pub fn sequence(&self) -> Option<u32> {
        let batch = RecordBatch::decode(self.bytes.clone()).ok()?;
        batch.header().producer().map(|producer| producer.base_sequence.0)
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// First offset kept.
    pub log_start: u64,
    /// Behind the last.
    pub next_offset: u64,
    /// When its records may go.
    pub retention: Retention,
    /// It compacts by key, or did once.
    pub compacts: bool,
    /// All that were appended.
    pub batches: Vec<Batch>,
}

/// A batch of a commit.
#[derive(Debug, Clone)]
pub struct Written {
    /// To which partition.
    pub partition: PartitionId,
    /// What.
    pub batch: Batch,
}

/// What a store should look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The partitions.
    pub partitions: BTreeMap<PartitionId, Log>,
    /// The rows of the state.
    pub state: BTreeMap<(StateTable, Bytes), Bytes>,
    /// The lowest partition id never used.
    pub next_id: u32,
}

impl Model {
    /// Does what a store does with a commit, in its order.
    ///
    /// # Panics
    /// When the commit is not one that a store would admit.
    pub fn apply(&mut self, commit: &Commit, written: &[Written]) {
        for change in &commit.partitions {
            if let PartitionChange::Create { id, retention } = *change {
                let compacts = retention.compacts();
                let log = Log { log_start: 0, next_offset: 0, retention, compacts, batches: Vec::new() };
                self.partitions.insert(id, log);
                self.next_id = self.next_id.max(id.0 + 1);
            }
        }
        for append in &commit.appends {
            let log = self.log(append.partition);
            assert_eq!(log.next_offset, append.cover_start.0, "appends begin where the log ends");
            log.next_offset = append.cover_end.0;
        }
        written.iter().for_each(|written| self.log(written.partition).batches.push(written.batch.clone()));
        commit.partitions.iter().for_each(|change| self.apply_change(change));
        commit.state.iter().for_each(|change| self.apply_state(change));
    }

    fn apply_change(&mut self, change: &PartitionChange) {
        match *change {
            PartitionChange::Create { .. } => {}
            PartitionChange::SetRetention { id, retention } => {
                let log = self.log(id);
                log.retention = retention;
                log.compacts |= retention.compacts();
            }
            PartitionChange::Delete { id } => drop(self.partitions.remove(&id)),
            PartitionChange::SetLogStart { id, offset } => {
                let log = self.log(id);
                log.log_start = log.log_start.max(offset.0);
            }
        }
    }

    fn apply_state(&mut self, StateChange { table, key, value }: &StateChange) {
        match value {
            Some(value) => self.state.insert((*table, key.clone()), value.clone()),
            None => self.state.remove(&(*table, key.clone())),
        };
    }

    fn log(&mut self, id: PartitionId) -> &mut Log {
        self.partitions.get_mut(&id).expect("a commit is about partitions that exist")
    }

    /// The topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = (u8, TopicRow)> {
        let rows = self.state.iter().filter(|((table, _), _)| *table == StateTable::Catalog);
        rows.filter_map(|((_, key), value)| Some((TopicRow::name(key)?, TopicRow::decode(value)?)))
    }

    /// The answers to a producer's last batches.
    pub fn answers(&self, partition: PartitionId, producer: u64) -> impl Iterator<Item = ProducerRow> {
        let prefix = Bytes::from(ProducerRow::prefix(partition, producer));
        let rows = self.state.range((StateTable::Producers, prefix.clone())..);
        let rows =
            rows.take_while(move |((table, key), _)| *table == StateTable::Producers && key.starts_with(&prefix));
        rows.filter_map(|(_, value)| ProducerRow::decode(value))
    }

    /// The number of the last commit.
    #[must_use]
    pub fn marker(&self) -> Option<u64> {
        marker(&self.state)
    }
}

/// The number of the last commit, as the state has it.
pub(crate) fn marker(state: &BTreeMap<(StateTable, Bytes), Bytes>) -> Option<u64> {
    let value = state.get(&(MARKER_TABLE, Bytes::from_static(MARKER_KEY)))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

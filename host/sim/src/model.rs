//! A store as plain maps have it: what it should look like after some commits.
//!
//! Start at [`Model::apply`].

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{PartitionId, Retention};
use storage::{Commit, PartitionChange, StateChange, StateTable};

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
    /// All of it.
    pub bytes: Bytes,
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
    /// All that were appended.
    pub batches: Vec<Batch>,
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
    pub fn apply(&mut self, commit: &Commit, batches: &[Batch]) {
        for change in &commit.partitions {
            if let PartitionChange::Create { id, retention } = *change {
                let log = Log { log_start: 0, next_offset: 0, retention, batches: Vec::new() };
                self.partitions.insert(id, log);
                self.next_id = self.next_id.max(id.0 + 1);
            }
        }
        let mut batches = batches.iter();
        for append in &commit.appends {
            let log = self.partitions.get_mut(&append.partition).expect("appends are to partitions that exist");
            assert_eq!(log.next_offset, append.cover_start.0, "appends begin where the log ends");
            log.next_offset = append.cover_end.0;
            if append.batches.is_some() {
                log.batches.push(batches.next().expect("each append has its batch").clone());
            }
        }
        for change in &commit.partitions {
            match *change {
                PartitionChange::Create { .. } => {}
                PartitionChange::SetRetention { id, retention } => {
                    self.partitions.get_mut(&id).expect("it exists").retention = retention;
                }
                PartitionChange::Delete { id } => drop(self.partitions.remove(&id)),
                PartitionChange::SetLogStart { id, offset } => {
                    let log = self.partitions.get_mut(&id).expect("it exists");
                    log.log_start = log.log_start.max(offset.0);
                }
            }
        }
        for StateChange { table, key, value } in &commit.state {
            match value {
                Some(value) => self.state.insert((*table, key.clone()), value.clone()),
                None => self.state.remove(&(*table, key.clone())),
            };
        }
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

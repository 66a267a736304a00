//! What a commit is: a plain value that says everything that must become true together.
//!
//! Owns no I/O. The same value is what replication will ship.
//!
//! Start at [`Commit`].

use bytes::Bytes;
use protocol::{Offset, PartitionId, Retention};
use thiserror::Error;

/// Everything that becomes durable together, or not at all.
///
/// The store takes it apart in this order: partitions created, appends, other partition changes, state. Several
/// commits may share one transaction (a group); each of them still holds together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Coverage and record batches, per partition in order of offsets.
    pub appends: Vec<Append>,
    /// Partitions created, changed and deleted.
    pub partitions: Vec<PartitionChange>,
    /// Rows of the projected state; of two changes of one key the later wins.
    pub state: Vec<StateChange>,
}

/// The next piece of one partition's log.
#[derive(Debug, Clone)]
pub struct Append {
    /// Whose log.
    pub partition: PartitionId,
    /// First offset covered: exactly the partition's next offset.
    pub cover_start: Offset,
    /// End of the offsets covered (not included): where the next append begins.
    pub cover_end: Offset,
    /// Encoded v2 record batches, one after the other, with base offsets set, ascending and inside the coverage; `None`
    /// when every record was dropped and only the gap is left.
    pub batches: Option<Bytes>,
    /// Largest record timestamp among the batches, in milliseconds; what time lookup and retention by age go by.
    pub max_timestamp_ms: i64,
}

/// A change of the set of partitions or of one's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChange {
    /// A new partition, empty at offset 0. Its id is at least [`Store::partition_id_next`](crate::Store::partition_id_next).
    Create {
        /// Its id, never used before.
        id: PartitionId,
        /// When its records may be deleted.
        retention: Retention,
    },
    /// Another rule of deletion.
    SetRetention {
        /// Which partition.
        id: PartitionId,
        /// When its records may be deleted.
        retention: Retention,
    },
    /// The partition and everything in it goes.
    Delete {
        /// Which partition.
        id: PartitionId,
    },
    /// Records before `offset` go. Never moves back; at most the next offset.
    SetLogStart {
        /// Which partition.
        id: PartitionId,
        /// First offset kept.
        offset: Offset,
    },
}

/// The tables of the projected state. Opaque rows to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StateTable {
    /// Topics, plugins, transforms and their settings.
    Catalog = 0,
    /// Producer windows.
    Producers = 1,
    /// Committed offsets of consumer groups.
    GroupOffsets = 2,
    /// Input positions of derived transforms.
    Positions = 3,
    /// What plugins keep. May be large, so it alone is not in the segment headers' snapshot.
    PluginState = 4,
}

impl StateTable {
    /// Every table.
    pub const ALL: [StateTable; 5] = [
        StateTable::Catalog,
        StateTable::Producers,
        StateTable::GroupOffsets,
        StateTable::Positions,
        StateTable::PluginState,
    ];

    /// Whether segment headers carry a snapshot of this table.
    #[must_use]
    pub const fn is_small(self) -> bool {
        !matches!(self, StateTable::PluginState)
    }

    pub(crate) fn from_number(number: u8) -> Option<StateTable> {
        StateTable::ALL.get(usize::from(number)).copied()
    }
}

/// One row set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// In which table.
    pub table: StateTable,
    /// Under which key.
    pub key: Bytes,
    /// The new value; `None` removes the row.
    pub value: Option<Bytes>,
}

/// The answer to a commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitReceipt {
    /// Its place in the log of commits; commits of one group share it.
    pub sequence: u64,
}

/// Why a commit was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// The disk failed under it. Whether it is durable is *unknown* until the store is opened again; a retry decides.
    #[error("commit failed, its outcome is unknown: {cause}")]
    Failed {
        /// What the disk said.
        cause: String,
    },
    /// Nothing was written: the disk failed, and there is no new segment to write to yet. Ends by itself soon after the
    /// disk can be written to again.
    #[error("the store is read-only: {why}")]
    ReadOnly {
        /// The failure that made it so.
        why: String,
    },
    /// Nothing was written: the disk is full. Commits without appends get it only when the reserve is used up, too. Ends
    /// by itself when there is space again.
    #[error("the disk is full: {why}")]
    Full {
        /// Which limit is reached, and the way out.
        why: String,
    },
    /// Nothing was written: the store is being closed.
    #[error("the store is shutting down")]
    ShuttingDown,
    /// Nothing was written: the append does not begin where the partition ends. Also what every commit built on a
    /// failed one gets.
    #[error("append to partition {partition} begins at {cover_start}, but its next offset is {next_offset}")]
    Hole {
        /// Whose append.
        partition: PartitionId,
        /// Where the append begins.
        cover_start: Offset,
        /// Where it had to begin.
        next_offset: Offset,
    },
    /// Nothing was written: the append contradicts itself (coverage backwards, batches outside it or cut off).
    #[error("append to partition {partition} at {cover_start} is malformed: {why}")]
    Malformed {
        /// Whose append.
        partition: PartitionId,
        /// Where it begins.
        cover_start: Offset,
        /// What is wrong.
        why: &'static str,
    },
    /// Nothing was written: there is no such partition (any more).
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The id.
        partition: PartitionId,
    },
    /// Nothing was written: the id to be created was used before, or lies below one that was.
    #[error("partition id {partition} was used before; the next free one is {next}")]
    PartitionIdUsed {
        /// The id.
        partition: PartitionId,
        /// First id that can be created.
        next: PartitionId,
    },
    /// Nothing was written: the log start would lie beyond the log's end.
    #[error("log start {offset} of partition {partition} lies beyond its next offset {next_offset}")]
    LogStartBeyondEnd {
        /// Whose log start.
        partition: PartitionId,
        /// Where it was to be.
        offset: Offset,
        /// The end of the log.
        next_offset: Offset,
    },
    /// Nothing was written: the commit alone is larger than a transaction may be.
    #[error("commit of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Its batches and state rows together.
        bytes: usize,
        /// `COMMIT_BYTES_MAX`.
        limit: usize,
    },
}

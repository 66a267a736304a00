//! The store's handle: opening, and every operation in one place.
//!
//! Start at [`Store::open`].

use std::{fmt, path::Path};

use bytes::Bytes;
use protocol::{Offset, PartitionId, Retention};
use thiserror::Error;

use crate::{Commit, CommitError, CommitReceipt, ReadError, ReadOutcome, RetentionError, RetentionReport, StateTable};

/// Called once with a commit's answer, on the committer's thread: be quick (send on a channel).
pub type CommitDone = Box<dyn FnOnce(Result<CommitReceipt, CommitError>) + Send>;

/// A store's identity, made at its creation: parts of other stores are never taken for its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Sizes of a store; the defaults suit an edge host.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// A segment's file is rolled before it grows past this. Bytes.
    pub segment_bytes_max: u64,
    /// A segment is rolled at this many index entries, which bounds the memory of the active index.
    pub segment_entries_max: usize,
    /// What one transaction gathers from the commits that wait. Bytes.
    pub group_bytes_max: usize,
    /// Memory that keeps the newest batches of all partitions for readers. Bytes.
    pub tail_bytes_max: usize,
    /// How far ahead of the commit the active segment's blocks are allocated. Bytes.
    pub preallocate_bytes: u64,
    /// redb's cache for sealed segments and the state, all together. Bytes.
    pub cache_bytes: usize,
    /// State changes committed but not yet in `state.redb`; past it the committer waits. Bytes.
    pub overlay_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            segment_bytes_max: 256 << 20,
            segment_entries_max: 128 << 10,
            group_bytes_max: 4 << 20,
            tail_bytes_max: 32 << 20,
            preallocate_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            overlay_bytes_max: 16 << 20,
        }
    }
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPlace {
    /// First offset still kept.
    pub log_start_offset: Offset,
    /// First offset readers may not see yet: the end of the last synced commit.
    pub high_watermark: Offset,
    /// Bytes of its record batches.
    pub bytes: u64,
    /// When its records may be deleted.
    pub retention: Retention,
}

/// The store in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Segments, the active one included.
    pub segments: usize,
    /// Sequence of the last commit.
    pub commit_sequence: u64,
    /// Sequence up to which `state.redb` is applied.
    pub applied_sequence: u64,
    /// Transactions since the store was opened.
    pub commits: u64,
    /// Bytes of record batches taken since the store was opened.
    pub bytes_appended: u64,
    /// Bytes written to segments since the store was opened.
    pub bytes_written: u64,
    /// Bytes of record batches held in memory for readers.
    pub tail_bytes: usize,
    /// Why the store takes no commits any more, if so.
    pub read_only: Option<String>,
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process (or another handle of this one) has it open.
    #[error("`{dir}` is in use by another broker; stop it first, or choose another data directory")]
    InUse {
        /// The directory.
        dir: String,
    },
    /// A newer weir wrote it. Nothing was touched.
    #[error("`{file}` has format version {found}, but this version of weir reads up to {supported}; use a newer weir")]
    NewerFormat {
        /// The file that says so.
        file: String,
        /// The version found.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The bytes of a file are not what a store writes.
    #[error("`{file}` is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What does not match.
        what: String,
    },
    /// The disk or the system refused.
    #[error("failed to {action} `{file}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why closing did not end well. What was acknowledged is durable all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CloseError {
    /// `state.redb` could not be brought up to the last commit; the next start does it.
    #[error("failed to apply the state: {cause}")]
    State {
        /// What redb said.
        cause: String,
    },
}

/// A handle on an open store. Cheap to clone; the last one dropped closes the store.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the store in `dir`, and makes a new one where there is none.
    ///
    /// # Errors
    /// See [`OpenError`]. A newer format and a directory in use are refused before anything is written.
    pub fn open(_dir: &Path, _options: StoreOptions) -> Result<Store, OpenError> {
        todo!()
    }

    /// The store's identity.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        todo!()
    }

    /// Hands a commit to the committer. Never blocks; first come, first served; the caller bounds what is in flight.
    ///
    /// `done` runs after the sync and after the watermarks moved, in the order of the submits.
    pub fn submit(&self, _commit: Commit, _done: CommitDone) {
        todo!()
    }

    /// [`Store::submit`], and waits for the answer.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(&self, _commit: Commit) -> Result<CommitReceipt, CommitError> {
        todo!()
    }

    /// Where a partition stands; `None` when there is none of that id.
    #[must_use]
    pub fn partition(&self, _id: PartitionId) -> Option<PartitionPlace> {
        todo!()
    }

    /// Every partition, by id.
    #[must_use]
    pub fn partitions(&self) -> Vec<(PartitionId, PartitionPlace)> {
        todo!()
    }

    /// The lowest id never used.
    #[must_use]
    pub fn partition_id_next(&self) -> PartitionId {
        todo!()
    }

    /// Reads from memory alone, without waiting for anything slow. `None` when the tail does not reach back to `from`
    /// (or the offset is out of range): use [`Store::read`] then.
    #[must_use]
    pub fn read_tail(&self, _id: PartitionId, _from: Offset, _max_bytes: usize) -> Option<ReadOutcome> {
        todo!()
    }

    /// Reads whole batches from `from` on, about `max_bytes` of them, the first even if it is larger. May read the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, _id: PartitionId, _from: Offset, _max_bytes: usize) -> Result<ReadOutcome, ReadError> {
        todo!()
    }

    /// The first record at or after a time: its offset, or `None` when every record is older.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_timestamp(&self, _id: PartitionId, _timestamp_ms: i64) -> Result<Option<Offset>, ReadError> {
        todo!()
    }

    /// One row of the state, as of the last commit.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn state_get(&self, _table: StateTable, _key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        todo!()
    }

    /// Every row whose key begins with `prefix`, in order of keys, as of the last commit.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn state_scan(&self, _table: StateTable, _prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        todo!()
    }

    /// Deletes what has expired at `now_ms`. Blocks for a commit and for unlinks.
    ///
    /// # Errors
    /// See [`RetentionError`].
    pub fn run_retention(&self, _now_ms: i64) -> Result<RetentionReport, RetentionError> {
        todo!()
    }

    /// The store in numbers.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        todo!()
    }

    /// Commits what waits, applies the state, ends the threads. Later submits get `ShuttingDown`; reads go on.
    /// Dropping the last handle does the same.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub fn close(&self) -> Result<(), CloseError> {
        todo!()
    }
}

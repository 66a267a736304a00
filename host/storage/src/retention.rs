//! Deletes what has expired, by age and by size: moves log starts, then unlinks sealed segments in which nothing lives.

use thiserror::Error;

use crate::CommitError;

/// What one round of retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Partitions whose log start moved.
    pub partitions_trimmed: usize,
    /// Segments unlinked.
    pub segments_removed: usize,
    /// Bytes of the files unlinked.
    pub bytes_removed: u64,
}

/// Why a round of retention ended early. What it did until then stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RetentionError {
    /// The log starts could not be moved.
    #[error("failed to move the log starts")]
    Commit(#[source] CommitError),
    /// A dead segment could not be unlinked.
    #[error("failed to unlink `{file}`: {cause}")]
    Unlink {
        /// The file.
        file: String,
        /// What the system said.
        cause: String,
    },
}

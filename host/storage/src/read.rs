//! What a read answers.

use bytes::Bytes;
use protocol::{Offset, PartitionId};
use thiserror::Error;

/// Record batches of one partition from an offset on, and how far they reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Runs of whole encoded batches, ascending. The first may begin before the offset asked for (it contains it).
    pub batches: Vec<Bytes>,
    /// Where to read on: behind everything that was covered, gaps included. Equal to the offset asked for (and
    /// `batches` empty) only at the high watermark.
    pub next_offset: Offset,
    /// The partition's high watermark when the read began.
    pub high_watermark: Offset,
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// There is no such partition (any more).
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The id.
        partition: PartitionId,
    },
    /// The offset is not there any more, or not there yet.
    #[error("offset {offset} of partition {partition} is outside [{log_start_offset}, {high_watermark}]")]
    OutOfRange {
        /// Whose.
        partition: PartitionId,
        /// What was asked for.
        offset: Offset,
        /// First offset still kept.
        log_start_offset: Offset,
        /// First offset not there yet.
        high_watermark: Offset,
    },
    /// The bytes on disk are not the ones that were written, or not in the place where they were. Nothing of them is
    /// served; other ranges and partitions are not affected.
    #[error("damaged data in `{file}`: {what}")]
    Damaged {
        /// The file that holds them.
        file: String,
        /// What did not match.
        what: String,
    },
    /// The disk did not answer.
    #[error("failed to read `{file}`: {cause}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        cause: String,
    },
}

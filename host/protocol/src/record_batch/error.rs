//! What can be wrong with a batch.

use crate::{
    Compression,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADERS_MAX},
};

/// A batch, or a record in it, that breaks the format or a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header announces.
    #[error("record batch of {bytes} bytes is cut off: it needs {needed}")]
    Truncated {
        /// How many there are.
        bytes: usize,
        /// How many there should be.
        needed: usize,
    },
    /// Something follows the batch where exactly one was expected.
    #[error("record batch is followed by {bytes} bytes that do not belong to it")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The length field is below what a header needs.
    #[error("record batch has an impossible length of {length}")]
    Length {
        /// What it says.
        length: i32,
    },
    /// Over the limit for batches.
    #[error("record batch of {bytes} bytes is larger than `batch_bytes_max` ({BATCH_BYTES_MAX})")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not the format we speak; older Kafka clients send 0 and 1.
    #[error("record batch has magic {found}, not 2")]
    Magic {
        /// What it says.
        found: i8,
    },
    /// The batch was damaged.
    #[error("record batch has checksum {found:#010x}, not {expected:#010x}")]
    Crc {
        /// What it says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// A codec nobody has defined.
    #[error("record batch has the unknown compression codec {number}")]
    UnknownCompression {
        /// Its number.
        number: u16,
    },
    /// The offsets of the batch do not fit the format.
    #[error(
        "record batch at offset {base_offset} with last offset delta {last_offset_delta} leaves the range of offsets"
    )]
    OffsetRange {
        /// What its header says.
        base_offset: i64,
        /// What its header says.
        last_offset_delta: i32,
    },
    /// More records than its offsets or bytes can hold, or fewer than none.
    #[error("record batch cannot hold {record_count} records")]
    ImpossibleCount {
        /// What its header says.
        record_count: i32,
    },
    /// Over the limit for records in a batch.
    #[error("record batch of {records} records is over `batch_records_max` ({BATCH_RECORDS_MAX})")]
    TooManyRecords {
        /// How many.
        records: u64,
    },
    /// A client may not send this.
    #[error("produced record batch is not acceptable: {rule}")]
    NotProducible {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The compressed section is damaged.
    #[error("{compression} section of a record batch cannot be read: {reason}")]
    Decompress {
        /// Its codec.
        compression: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The section unfolds to more than it may.
    #[error("{compression} section of a record batch unfolds to more than the {budget} bytes it may")]
    Budget {
        /// Its codec.
        compression: Compression,
        /// What it may unfold to.
        budget: usize,
    },
    /// A record that is none.
    #[error("record {index} of the batch is malformed: {what}")]
    MalformedRecord {
        /// Its index in the batch.
        index: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// Over the limit for records.
    #[error("record {index} of {bytes} bytes is larger than `max_record_bytes` ({limit})")]
    RecordTooLarge {
        /// Its index in the batch.
        index: u32,
        /// Key, value and headers.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Over the limit for headers.
    #[error("record {index} with {headers} headers is over `headers_max` ({HEADERS_MAX})")]
    TooManyHeaders {
        /// Its index in the batch.
        index: u32,
        /// How many.
        headers: usize,
    },
    /// Offsets must ascend and stay in the batch.
    #[error("record {index} has offset delta {offset_delta}, which is out of order or outside of the batch")]
    OffsetOrder {
        /// Its index in the batch.
        index: u32,
        /// Its delta.
        offset_delta: u32,
    },
    /// The section holds another number of records than the header says.
    #[error("record batch holds {found} records, not {expected}")]
    CountMismatch {
        /// How many are there.
        found: u32,
        /// How many the header announces.
        expected: u32,
    },
}

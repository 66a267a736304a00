//! Record batches: Kafka's RecordBatch v2 (magic 2), the one format of wire, store and guests.
//!
//! Owns encoding, checking, (de)compression and iteration of batches, and the partitioner of keys. Never rewrites a
//! batch that nobody changed: bytes pass through as they came, only the base offset is set.
//!
//! ```text
//! batch, 61 bytes of header, big endian
//!   0  i64  base_offset             outside the CRC: the broker sets it
//!   8  i32  batch_length            bytes after this field
//!  12  i32  partition_leader_epoch  outside the CRC
//!  16  i8   magic                   2
//!  17  u32  crc                     CRC-32C of everything after this field
//!  21  u16  attributes              bits 0-2 codec, 3 log append time, 4 transactional, 5 control
//!  23  i32  last_offset_delta
//!  27  i64  base_timestamp          milliseconds since 1970
//!  35  i64  max_timestamp
//!  43  i64  producer_id             -1 for none, as the next two
//!  51  i16  producer_epoch
//!  53  i32  base_sequence
//!  57  i32  record_count
//!  61       records section, compressed as a whole or not at all
//!
//! record, all numbers zigzag varints
//!   length (of what follows) | i8 attributes | timestamp_delta | offset_delta
//!   | key length (-1: null) | key | value length (-1: null) | value
//!   | header count | per header: name length | name | value length (-1: null) | value
//! ```
//!
//! Invariants
//! - A [`RecordBatch`] that exists has the right magic, lengths and CRC, a known codec, counts that can be true, and
//!   offsets that fit the format. Its records are checked by [`RecordBatch::validate_records`] when somebody needs them.
//! - What foreign bytes claim (lengths, counts) is compared with the bytes at hand and with a limit before it is used.
//! - Decompression never holds more output than the budget it is given.
//!
//! Start at [`RecordBatch`] to read, at [`BatchBuilder`] to write.

mod batch;
mod builder;
mod compression;
mod error;
mod header;
mod partitioner;
mod produced;
mod record;
mod records;
mod retain;
mod snappy;
pub mod varint;

pub use batch::RecordBatch;
pub use builder::{BatchBuilder, RecordRun, encode_in_place, encode_section};
pub use compression::{Compression, CompressionUnknown};
pub use error::BatchError;
pub use header::{Attributes, BatchHeader, BatchProducer, HEADER_BYTES, RECORD_BYTES_MIN};
pub use partitioner::{murmur2, partition_for_key};
pub use record::{Header, Record};
pub use records::{HeadersView, RecordIter, RecordView, records};
pub use retain::Retained;

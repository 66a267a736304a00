//! Record batches as a producer would send them, filled with chance.
//!
//! Start at [`append`].

use protocol::{BatchBuilder, Compression, Offset, PartitionId, Record};
use storage::Append;

use crate::{records::value, rng::Rng};

/// The version of its topic's pipeline that a batch says it came through.
pub const VERSION: u32 = 1;

/// The append of one batch of two records, of about so many bytes.
///
/// # Panics
/// When the batch is larger than any may be.
#[must_use]
pub fn append(partition: PartitionId, start: u64, bytes: usize, timestamp_ms: i64, rng: &mut Rng) -> Append {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..2 {
        let record = Record::unkeyed(value(VERSION, bytes / 2, rng), timestamp_ms);
        builder.append(&record).expect("a record below the limit");
    }
    let batches = builder.finish(Offset(start)).expect("a batch below the limit").into_bytes();
    let (cover_start, cover_end) = (Offset(start), Offset(start + 2));
    Append { partition, cover_start, cover_end, batches: Some(batches), max_timestamp_ms: timestamp_ms }
}

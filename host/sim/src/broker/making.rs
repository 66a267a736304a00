//! The batches that a producer makes: records that say whose they are and what guests do with them, and some that nobody
//! may take.
//!
//! Start at [`Maker::make`].

use bytes::Bytes;
use protocol::{BatchBuilder, BatchHeader, Compression, Offset, Record, RecordBatch, encode_section};

use super::{explain::value, guests::Marks, ledger::BatchId, world::now_ms};
use crate::rng::Rng;

/// Values of so many bytes are below every limit that a topic here has.
const SMALL_VALUE_BYTES: usize = 400;

/// What is over the smaller of the limits, and below the larger one.
const OVERSIZED_FILLING_BYTES: usize = 2_000;

/// What the records of a producer are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    /// Bytes that a value is filled with, at most.
    pub(super) filling: u64,
    /// Records that may be larger than their topic allows, in a hundred.
    pub(super) oversized: u64,
}

/// A batch as it was made.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub(super) records: Vec<Record>,
    pub(super) encoded: RecordBatch,
    /// No topic's limit makes a difference to it.
    pub(super) is_small: bool,
}

impl Maker {
    /// A batch of this number.
    pub(super) fn make(self, id: BatchId, rng: &mut Rng) -> Fresh {
        let count = rng.pick(&[1, 1, 2, 3, 5, 8, 17]);
        let records: Vec<Record> = (0..count).map(|source| self.record(id, source, rng)).collect();
        let compression = rng.pick(&[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd]);
        let largest = records.iter().map(|record| record.value.as_ref().map_or(0, Bytes::len)).max().unwrap_or(0);
        Fresh { encoded: encode(&records, compression), records, is_small: largest <= SMALL_VALUE_BYTES }
    }

    fn record(self, id: BatchId, source: u32, rng: &mut Rng) -> Record {
        let marks = Marks { verdicts: [verdict(rng), verdict(rng)], sifted: rng.percent(10) };
        let mut bytes = rng.within(0..=self.filling) as usize;
        if rng.percent(self.oversized) {
            bytes += OVERSIZED_FILLING_BYTES;
        }
        let value = value(marks.bytes(), id, source, &vec![b'x'; bytes]);
        if rng.percent(50) {
            Record::new(format!("key-{}", rng.below(6)), value, now_ms())
        } else {
            Record::unkeyed(value, now_ms())
        }
    }
}

fn verdict(rng: &mut Rng) -> u8 {
    match rng.below(100) {
        0..60 => b'k',
        60..70 => b'd',
        70..80 => b'r',
        80..90 => b'm',
        90..98 => b'f',
        _ => b't',
    }
}

/// A batch of these records.
pub(super) fn encode(records: &[Record], compression: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.append(record).expect("the records of a simulation are small");
    }
    builder.finish(Offset::ZERO).expect("the records of a simulation are few")
}

/// The same header around records that are none, with a checksum that says all is well.
pub(super) fn unreadable(batch: &RecordBatch) -> RecordBatch {
    let header = BatchHeader { producer_id: -1, producer_epoch: -1, base_sequence: -1, ..*batch.header() };
    encode_section(&header, &Bytes::from_static(&[0x55; 40]), Compression::None).expect("a few bytes fit")
}

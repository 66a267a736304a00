//! The 61 bytes before the records: read, checked and written here alone.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use bytes::{Buf, BufMut};

use crate::{
    BatchError, Compression, Epoch, Offset, ProducerId, Sequence,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
};

/// Length of a batch's header.
pub const HEADER_BYTES: usize = 61;

/// The shortest record: its length, attributes, two deltas, null key, null value, no headers.
pub const RECORD_BYTES_MIN: usize = 7;

/// Bytes before the part that the length field counts.
pub(super) const LENGTH_END: usize = 12;
/// Where the CRC begins to count.
pub(super) const CRC_END: usize = 21;

const MAGIC: i8 = 2;
const LOG_APPEND_TIME: u16 = 1 << 3;
const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;

/// Attribute bits of a batch; the codec among them is a known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(u16);

impl Attributes {
    /// Attributes from their bits. Bits without a meaning are kept as they are.
    ///
    /// # Errors
    /// When the codec is unknown.
    pub const fn from_bits(bits: u16) -> Result<Attributes, BatchError> {
        match Compression::from_number(bits & 7) {
            Some(_) => Ok(Attributes(bits)),
            None => Err(BatchError::UnknownCompression { number: bits & 7 }),
        }
    }

    /// The bits as they travel.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The same with another codec.
    #[must_use]
    pub const fn with_compression(self, compression: Compression) -> Attributes {
        Attributes(self.0 & !7 | compression.number())
    }

    /// How the records section is compressed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        Compression::from_number(self.0 & 7).expect("attributes hold a known codec")
    }

    /// Whether `max_timestamp` is the broker's time of arrival and stands for every record's timestamp.
    #[must_use]
    pub const fn log_append_time(self) -> bool {
        self.0 & LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker that a broker wrote, not data.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }
}

/// Who wrote a batch, and the sequence of its first record: what makes a retry harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its incarnation.
    pub epoch: Epoch,
    /// Number of the first record within the partition.
    pub base_sequence: Sequence,
}

/// A batch's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (or of the place it had before it was dropped).
    pub base_offset: Offset,
    /// Length of the whole batch as encoded, this header included.
    pub batch_bytes: usize,
    /// Kafka's leader epoch; meaningless here and kept as it came.
    pub partition_leader_epoch: i32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// The batch covers offsets up to `base_offset + last_offset_delta`, that one included.
    pub last_offset_delta: u32,
    /// What the records' timestamp deltas count from, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// Largest timestamp of its records.
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    /// -1 for none.
    pub producer_epoch: i16,
    /// -1 for none.
    pub base_sequence: i32,
    /// How many records the section holds.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads and checks the header at the front of `bytes`, which may go on behind the batch. Does not look at the CRC.
    pub(super) fn decode(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let truncated = |needed| BatchError::Truncated { bytes: bytes.len(), needed };
        // The length and the magic come first, so that what is no batch of this format is called by its name.
        if let Some(&magic) = bytes.get(16).filter(|magic| **magic as i8 != MAGIC) {
            return Err(BatchError::Magic { found: magic as i8 });
        }
        let mut fields = &bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| truncated(HEADER_BYTES))?[..];
        let base_offset = fields.get_i64();
        let length = fields.get_i32();
        let partition_leader_epoch = fields.get_i32();
        let (_magic, _crc) = (fields.get_i8(), fields.get_u32());
        let attributes = Attributes::from_bits(fields.get_u16())?;
        let last_offset_delta = fields.get_i32();
        let (base_timestamp, max_timestamp) = (fields.get_i64(), fields.get_i64());
        let (producer_id, producer_epoch, base_sequence) = (fields.get_i64(), fields.get_i16(), fields.get_i32());
        let record_count = fields.get_i32();

        let batch_bytes = batch_bytes(length)?;
        if bytes.len() < batch_bytes {
            return Err(truncated(batch_bytes));
        }
        if base_offset < 0 || last_offset_delta < 0 || base_offset > i64::MAX - i64::from(last_offset_delta) - 1 {
            return Err(BatchError::OffsetRange { base_offset, last_offset_delta });
        }
        let header = BatchHeader {
            base_offset: Offset(base_offset as u64),
            batch_bytes,
            partition_leader_epoch,
            attributes,
            last_offset_delta: last_offset_delta as u32,
            base_timestamp,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: record_count.max(0) as u32,
        };
        header.check_count(record_count)?;
        Ok(header)
    }

    fn check_count(&self, record_count: i32) -> Result<(), BatchError> {
        if record_count < 0 || record_count as u32 > self.last_offset_delta + 1 {
            return Err(BatchError::ImpossibleCount { record_count });
        }
        if record_count as usize > BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { records: record_count as u64 });
        }
        let section_bytes = self.batch_bytes - HEADER_BYTES;
        let uncompressed = self.attributes.compression() == Compression::None;
        if uncompressed && section_bytes < record_count as usize * RECORD_BYTES_MIN {
            return Err(BatchError::ImpossibleCount { record_count });
        }
        Ok(())
    }

    /// Makes the batch this producer's.
    pub(super) const fn set_producer(&mut self, producer: BatchProducer) {
        self.producer_id = producer.id.0 as i64;
        self.producer_epoch = producer.epoch.0 as i16;
        self.base_sequence = producer.base_sequence.0 as i32;
    }

    /// Writes the header over the first 61 bytes of `batch`, with the CRC of what follows.
    ///
    /// # Panics
    /// When `batch` is shorter, or longer than a batch may be: the encoder's own bug.
    #[expect(clippy::indexing_slicing, reason = "our own bytes; the length is asserted")]
    pub(super) fn encode_over(&self, batch: &mut [u8]) {
        assert!(batch.len() >= HEADER_BYTES, "room for the header was left");
        assert_eq!(batch.len(), self.batch_bytes, "the header was made for this batch");
        let mut fields = &mut batch[..HEADER_BYTES];
        fields.put_u64(self.base_offset.0);
        fields.put_u32((self.batch_bytes - LENGTH_END) as u32);
        fields.put_i32(self.partition_leader_epoch);
        fields.put_i8(MAGIC);
        fields.put_u32(0);
        fields.put_u16(self.attributes.bits());
        fields.put_u32(self.last_offset_delta);
        fields.put_i64(self.base_timestamp);
        fields.put_i64(self.max_timestamp);
        fields.put_i64(self.producer_id);
        fields.put_i16(self.producer_epoch);
        fields.put_i32(self.base_sequence);
        fields.put_u32(self.record_count);
        let crc = crc32c::crc32c(&batch[CRC_END..]);
        batch[CRC_END - 4..CRC_END].copy_from_slice(&crc.to_be_bytes());
    }

    /// First offset after those the batch covers.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta) + 1)
    }

    /// Who wrote it; `None` when the producer is not idempotent.
    #[must_use]
    pub const fn producer(&self) -> Option<BatchProducer> {
        if self.producer_id < 0 || self.producer_epoch < 0 || self.base_sequence < 0 {
            return None;
        }
        Some(BatchProducer {
            id: ProducerId(self.producer_id as u64),
            epoch: Epoch(self.producer_epoch as u16),
            base_sequence: Sequence(self.base_sequence as u32),
        })
    }

    /// The timestamp of a record with this delta, in milliseconds since 1970.
    ///
    /// Wraps as Kafka does, so that every timestamp survives encoding, however strange.
    #[must_use]
    pub const fn timestamp(&self, timestamp_delta: i64) -> i64 {
        if self.attributes.log_append_time() {
            self.max_timestamp
        } else {
            self.base_timestamp.wrapping_add(timestamp_delta)
        }
    }
}

/// The length of the whole batch from its length field.
fn batch_bytes(length: i32) -> Result<usize, BatchError> {
    let batch_bytes = usize::try_from(length).ok().map(|length| length + LENGTH_END);
    match batch_bytes.filter(|bytes| *bytes >= HEADER_BYTES) {
        Some(bytes) if bytes > BATCH_BYTES_MAX => Err(BatchError::TooLarge { bytes }),
        Some(bytes) => Ok(bytes),
        None => Err(BatchError::Length { length }),
    }
}

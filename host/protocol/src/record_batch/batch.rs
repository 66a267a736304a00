//! One encoded batch that has been checked.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};

use super::header::CRC_END;
use crate::{BatchError, BatchHeader, BatchProducer, Compression, HEADER_BYTES, Offset, RecordView, records};

/// One encoded batch with the right magic, lengths, CRC and possible counts. A clone shares the bytes.
///
/// ```
/// use protocol::{BatchBuilder, Compression, Offset, Record, RecordBatch, records};
///
/// let mut builder = BatchBuilder::new(Compression::Zstd);
/// builder.append(&Record::new("key", "value", 1_700_000_000_000))?;
/// let sent = builder.finish(Offset::ZERO)?;
///
/// let received = RecordBatch::decode(sent.into_bytes())?.with_base_offset(Offset(42));
/// let section = received.records_section(1 << 20)?;
/// let record = records(&section).next().expect("one was sent")?;
/// assert_eq!((record.key, record.value), (Some(&b"key"[..]), Some(&b"value"[..])));
/// assert_eq!(received.next_offset(), Offset(43));
/// # Ok::<(), protocol::BatchError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Checks that `bytes` are exactly one batch. Does not decompress and does not look at the records.
    ///
    /// # Errors
    /// When magic, lengths, counts, codec or CRC are wrong, or a limit is passed.
    pub fn decode(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        let header = BatchHeader::decode(&bytes)?;
        match bytes.len() - header.batch_bytes {
            0 => RecordBatch::checked(header, bytes),
            more => Err(BatchError::Trailing { bytes: more }),
        }
    }

    /// Takes the first batch off a run of batches; `None` at its end. On an error `bytes` stay as they were.
    ///
    /// # Errors
    /// As [`RecordBatch::decode`], and when the run ends within a batch.
    pub fn split_first(bytes: &mut Bytes) -> Result<Option<RecordBatch>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::decode(bytes)?;
        let batch = RecordBatch::checked(header, bytes.slice(..header.batch_bytes))?;
        *bytes = bytes.slice(header.batch_bytes..);
        Ok(Some(batch))
    }

    fn checked(header: BatchHeader, bytes: Bytes) -> Result<RecordBatch, BatchError> {
        let (head, counted) = bytes.split_at_checked(CRC_END).expect("the header was read, so it is there");
        let found = u32::from_be_bytes(*head.last_chunk().expect("21 bytes hold 4"));
        match crc32c::crc32c(counted) {
            expected if expected == found => Ok(RecordBatch { header, bytes }),
            expected => Err(BatchError::Crc { found, expected }),
        }
    }

    /// A batch that an encoder has just written.
    pub(super) fn encoded(header: BatchHeader, mut bytes: Vec<u8>) -> RecordBatch {
        header.encode_over(&mut bytes);
        RecordBatch { header, bytes: bytes.into() }
    }

    /// [`RecordBatch::encoded`], of bytes that others may hold: then they are copied.
    pub(super) fn encoded_in_place(header: BatchHeader, bytes: Bytes) -> RecordBatch {
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        header.encode_over(&mut bytes);
        RecordBatch { header, bytes: bytes.freeze() }
    }

    /// The same batch at another place. Touches 8 bytes when nobody else holds them, and copies the batch otherwise;
    /// the CRC does not cover them.
    ///
    /// # Panics
    /// When the batch would leave the range of offsets: a partition would need 2^63 records for that.
    #[must_use]
    pub fn with_base_offset(mut self, base_offset: Offset) -> RecordBatch {
        if self.header.base_offset == base_offset {
            return self;
        }
        self.header.base_offset = base_offset;
        assert!(self.header.next_offset() <= Offset::MAX, "a partition holds fewer than 2^63 offsets");
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        *bytes.first_chunk_mut().expect("a batch has a header") = base_offset.0.to_be_bytes();
        RecordBatch { header: self.header, bytes: bytes.freeze() }
    }

    /// The same batch by this producer, with this sequence: what a client sends again after its sequences changed. The
    /// CRC is set anew, over the whole batch.
    #[must_use]
    pub fn with_producer(mut self, producer: BatchProducer) -> RecordBatch {
        self.header.set_producer(producer);
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.header.encode_over(&mut bytes);
        RecordBatch { header: self.header, bytes: bytes.freeze() }
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as it travels.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The batch as it travels.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// First offset after those it covers.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.header.next_offset()
    }

    /// Its records, uncompressed: no copy when they are not compressed, and else at most `budget` bytes.
    ///
    /// # Errors
    /// When the section is damaged or unfolds to more than `budget`, which is noticed before more is allocated.
    pub fn records_section(&self, budget: usize) -> Result<Bytes, BatchError> {
        let section = self.bytes.slice(HEADER_BYTES..);
        match self.header.attributes.compression() {
            compression @ Compression::None if section.len() > budget => {
                Err(BatchError::Budget { compression, budget })
            }
            Compression::None => Ok(section),
            compression => compression.decompress(&section, budget).map(Bytes::from),
        }
    }

    /// Checks the records of the section that [`RecordBatch::records_section`] gave: each well formed and at most
    /// `max_record_bytes` of key, value and headers; offsets ascending within the batch; as many as the header says.
    ///
    /// # Errors
    /// At the first record that breaks a rule.
    pub fn validate_records(&self, section: &[u8], max_record_bytes: usize) -> Result<(), BatchError> {
        let (mut found, mut offset_min) = (0u32, 0u32);
        for record in records(section) {
            let record = record?;
            if record.offset_delta < offset_min || record.offset_delta > self.header.last_offset_delta {
                return Err(BatchError::OffsetOrder { index: found, offset_delta: record.offset_delta });
            }
            // The raw record is a few bytes longer than its payload, so the common case needs one comparison.
            if record.raw.len() > max_record_bytes {
                check_payload(found, record, max_record_bytes)?;
            }
            offset_min = record.offset_delta + 1;
            found += 1;
        }
        match self.header.record_count {
            expected if expected == found => Ok(()),
            expected => Err(BatchError::CountMismatch { found, expected }),
        }
    }

    /// Checks what the header of a batch from a client must say: records without gaps, no flags that are the
    /// broker's, a producer identity that is whole or absent.
    ///
    /// # Errors
    /// With the rule that is broken.
    pub fn check_produced(&self) -> Result<(), BatchError> {
        let header = &self.header;
        let rule = if header.record_count == 0 {
            "it holds no record"
        } else if header.record_count != header.last_offset_delta + 1 {
            "its record count does not match its last offset delta"
        } else if header.attributes.is_control() {
            "control batches are the broker's"
        } else if header.attributes.log_append_time() {
            "the log append time is the broker's"
        } else if header.producer_id >= 0 && header.producer().is_none() {
            "it has a producer id but no epoch or sequence"
        } else {
            return Ok(());
        };
        Err(BatchError::NotProducible { rule })
    }
}

#[cold]
fn check_payload(index: u32, record: RecordView<'_>, limit: usize) -> Result<(), BatchError> {
    match record.payload_bytes() {
        bytes if bytes > limit => Err(BatchError::RecordTooLarge { index, bytes, limit }),
        _ => Ok(()),
    }
}

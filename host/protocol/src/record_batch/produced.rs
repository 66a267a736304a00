//! Turns a stored batch back into one that a client can produce.
//!
//! A broker marks what it stores, and its transforms and cleaners leave gaps; a producer's batch has neither.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use bytes::BytesMut;

use super::batch::RecordBatch;
use crate::{Attributes, BatchBuilder, BatchError, BatchHeader, Offset, limits::DECOMPRESSED_BYTES_MAX, records};

impl RecordBatch {
    /// The same records as a client produces them: from offset 0, one after the other, by no producer yet, without the
    /// marks of the broker that stored them. Keys, values, headers, timestamps and codec stay.
    ///
    /// The records are not looked at, and not even decompressed, unless there are gaps between them or their timestamps
    /// are the broker's time of arrival: then they are encoded anew. Of a transaction nothing but the records is left.
    ///
    /// # Errors
    /// When it holds no record, or is a control batch; when it has to be encoded anew and cannot be read, or becomes
    /// larger than a batch may be.
    ///
    /// ```
    /// use protocol::{BatchBuilder, Compression, Offset};
    ///
    /// let mut stored = BatchBuilder::new(Compression::Lz4);
    /// for offset_delta in [2, 3, 7] {
    ///     stored.append_parts(offset_delta, 1_700_000_000_000, None, Some(b"kept by a filter"), std::iter::empty())?;
    /// }
    /// let produced = stored.finish(Offset(1_000))?.into_produced()?;
    /// produced.check_produced()?;
    /// assert_eq!((produced.header().record_count, produced.next_offset()), (3, Offset(3)));
    /// # Ok::<(), protocol::BatchError>(())
    /// ```
    pub fn into_produced(self) -> Result<RecordBatch, BatchError> {
        let header = self.header();
        if header.record_count == 0 {
            return Err(BatchError::NotProducible { rule: "it holds no record" });
        }
        if header.attributes.is_control() {
            return Err(BatchError::NotProducible { rule: "control batches are the broker's" });
        }
        let has_gaps = header.record_count != header.last_offset_delta + 1;
        if has_gaps || header.attributes.log_append_time() {
            return self.encode_anew();
        }
        let plain = plain(header);
        if plain == *header {
            return Ok(self);
        }
        let bytes = self.into_bytes().try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        Ok(RecordBatch::encoded(plain, bytes.into()))
    }

    fn encode_anew(&self) -> Result<RecordBatch, BatchError> {
        let header = self.header();
        let section = self.records_section(DECOMPRESSED_BYTES_MAX)?;
        self.validate_records(&section, usize::MAX)?;
        let mut builder = BatchBuilder::with_capacity(header.attributes.compression(), section.len());
        for record in records(&section) {
            let record = record?;
            let timestamp = header.timestamp(record.timestamp_delta);
            let index = builder.record_count();
            builder.append_parts(index, timestamp, record.key, record.value, record.headers)?;
        }
        builder.finish(Offset::ZERO)
    }
}

/// The header without what a broker has set.
fn plain(header: &BatchHeader) -> BatchHeader {
    BatchHeader {
        base_offset: Offset::ZERO,
        partition_leader_epoch: -1,
        attributes: Attributes::default().with_compression(header.attributes.compression()),
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        ..*header
    }
}

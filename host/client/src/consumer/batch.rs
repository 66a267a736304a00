//! What a consumer hands out: batches, and the records in them.

use bytes::Bytes;
use protocol::{
    BatchError, Header, HeadersView, Offset, RecordBatch, RecordView, TopicPartition, limits::DECOMPRESSED_BYTES_MAX,
    records,
};

/// A record batch, decompressed and checked.
#[derive(Debug, Clone)]
pub struct ConsumedBatch {
    partition: TopicPartition,
    batch: RecordBatch,
    section: Bytes,
    /// Records before it were not asked for.
    first: Offset,
    high_watermark: Offset,
}

/// A record of a [`ConsumedBatch`], borrowed from it.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Its position in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: HeadersView<'a>,
}

/// A record with its place. Key, value and headers share the batch's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Where it comes from.
    pub partition: TopicPartition,
    /// Its position in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

impl ConsumedBatch {
    /// Opens a batch for somebody who wants its records from `first` on.
    pub(super) fn open(
        partition: &TopicPartition,
        batch: RecordBatch,
        first: Offset,
        high_watermark: Offset,
    ) -> Result<ConsumedBatch, BatchError> {
        let section = batch.records_section(DECOMPRESSED_BYTES_MAX)?;
        batch.validate_records(&section, usize::MAX)?;
        Ok(ConsumedBatch { partition: partition.clone(), batch, section, first, high_watermark })
    }

    /// What is left of it from `place` on, if anything is.
    pub(super) fn from(self, place: Offset) -> Option<ConsumedBatch> {
        let rest = ConsumedBatch { first: self.first.max(place), ..self };
        let has_records = rest.records().next().is_some();
        has_records.then_some(rest)
    }

    /// Where it comes from.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The offset behind the last one it covers.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.batch.next_offset()
    }

    /// The batch as it is stored, with all its records: also those before the consumer's place. What copies batches
    /// without touching them works on this.
    #[must_use]
    pub fn encoded(&self) -> &RecordBatch {
        &self.batch
    }

    /// The first offset that nobody could read yet when the batch was sent.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Its records in order, without copies; those before the consumer's place are left out.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let views =
            records(&self.section).map(|record| record.expect("records were checked when the batch was opened"));
        views.map(|view| self.place(view)).skip_while(|record| record.offset < self.first)
    }

    /// Bytes of its records, uncompressed.
    #[must_use]
    pub fn section_bytes(&self) -> usize {
        self.section.len()
    }

    /// The record that begins at byte `at` of the section, and where the next one begins. `None` at the end.
    pub(super) fn record_at(&self, mut at: usize) -> Option<(ConsumedRecord, usize)> {
        loop {
            let view = records(&self.section[at..]).next()?.expect("records were checked when the batch was opened");
            at += view.raw.len();
            let offset = self.offset(&view);
            if offset >= self.first {
                let record = view.to_record_in(self.batch.header(), &self.section);
                let (key, value, headers, timestamp) = (record.key, record.value, record.headers, record.timestamp);
                let partition = self.partition.clone();
                return Some((ConsumedRecord { partition, offset, timestamp, key, value, headers }, at));
            }
        }
    }

    fn place<'a>(&'a self, view: RecordView<'a>) -> RecordRef<'a> {
        RecordRef {
            offset: self.offset(&view),
            timestamp: self.batch.header().timestamp(view.timestamp_delta),
            key: view.key,
            value: view.value,
            headers: view.headers,
        }
    }

    fn offset(&self, view: &RecordView<'_>) -> Offset {
        self.batch.header().base_offset.plus(view.offset_delta.into())
    }
}

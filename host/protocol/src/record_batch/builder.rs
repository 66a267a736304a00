//! Writes batches: records are encoded straight behind room for the header, which is filled in at the end.

use bytes::Bytes;

use super::varint;
use crate::{
    Attributes, BatchError, BatchHeader, BatchProducer, Compression, HEADER_BYTES, Offset, Record, RecordBatch,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DECOMPRESSED_BYTES_MAX, HEADERS_MAX},
};

/// Encodes records into one batch; without an allocation per record, and without a copy when it is not compressed.
///
/// A refused record leaves the builder as it was, so that the batch can be finished and the record begin the next one.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// 61 bytes for the header, then the records section.
    buffer: Vec<u8>,
    header: BatchHeader,
    /// What the section may grow to.
    section_bytes_max: usize,
    /// Base and maximum timestamp are taken from the records.
    timestamps_known: bool,
    /// Offset delta of the next record appended without one.
    next_offset_delta: u32,
}

/// Encoded records that are appended as they are; see [`BatchBuilder::append_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRun<'a> {
    /// Whole records with their lengths, one after the other.
    pub encoded: &'a [u8],
    /// How many.
    pub record_count: u32,
    /// Offset delta of the last one.
    pub last_offset_delta: u32,
}

impl BatchBuilder {
    /// A batch without records.
    #[must_use]
    pub fn new(compression: Compression) -> BatchBuilder {
        BatchBuilder::with_capacity(compression, 0)
    }

    /// A batch without records, with room for this many bytes of them.
    #[must_use]
    pub fn with_capacity(compression: Compression, section_bytes: usize) -> BatchBuilder {
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_bytes: HEADER_BYTES,
            partition_leader_epoch: -1,
            attributes: Attributes::default().with_compression(compression),
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        };
        BatchBuilder::with_header(header, section_bytes, false)
    }

    /// A batch that replaces another one: the same timestamps, producer, attributes, codec and covered offsets, but no
    /// records yet. Records of the other one can be appended as they are encoded.
    #[must_use]
    pub fn replacing(header: &BatchHeader, section_bytes: usize) -> BatchBuilder {
        let header = BatchHeader { record_count: 0, ..*header };
        BatchBuilder::with_header(header, section_bytes, true)
    }

    fn with_header(header: BatchHeader, section_bytes: usize, timestamps_known: bool) -> BatchBuilder {
        // What is not compressed must fit the batch as it is; what is must be readable under everybody's budget.
        let section_bytes_max = match header.attributes.compression() {
            Compression::None => BATCH_BYTES_MAX - HEADER_BYTES,
            _ => DECOMPRESSED_BYTES_MAX,
        };
        BatchBuilder { buffer: room(section_bytes), header, section_bytes_max, timestamps_known, next_offset_delta: 0 }
    }

    /// Appends a record at the next offset.
    ///
    /// # Errors
    /// When the batch is full or the record has too many headers.
    pub fn append(&mut self, record: &Record) -> Result<(), BatchError> {
        let headers = record.headers.iter().map(|header| (&header.name[..], header.value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        self.append_parts(self.next_offset_delta, record.timestamp, key, value, headers)
    }

    /// Appends a record at an offset of its own.
    ///
    /// # Errors
    /// When the batch is full or the record has too many headers.
    ///
    /// # Panics
    /// When `offset_delta` is not behind the last record's.
    #[inline]
    pub fn append_parts<'a>(
        &mut self,
        offset_delta: u32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    ) -> Result<(), BatchError> {
        assert!(offset_delta >= self.next_offset_delta, "records are appended in order of their offsets");
        let (header_count, header_bytes) = headers
            .clone()
            .fold((0, 0), |(count, bytes), (name, value)| (count + 1, bytes + len_part(Some(name)) + len_part(value)));
        if header_count > HEADERS_MAX {
            return Err(BatchError::TooManyHeaders { index: self.header.record_count, headers: header_count });
        }
        let base_timestamp = if self.timestamps_known { self.header.base_timestamp } else { timestamp };
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp);
        let body_bytes = 1
            + varint::len_i64(timestamp_delta)
            + varint::len_i32(offset_delta as i32)
            + len_part(key)
            + len_part(value)
            + varint::len_i32(header_count as i32)
            + header_bytes;
        self.check_room(varint::I32_BYTES_MAX + body_bytes, 1, offset_delta)?;

        let out = &mut self.buffer;
        out.reserve(varint::I32_BYTES_MAX + body_bytes);
        varint::write_i32(out, body_bytes as i32);
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, offset_delta as i32);
        write_part(out, key);
        write_part(out, value);
        varint::write_i32(out, header_count as i32);
        for (name, value) in headers {
            write_part(out, Some(name));
            write_part(out, value);
        }
        self.note_timestamp(timestamp);
        self.note_records(1, offset_delta);
        Ok(())
    }

    /// Appends records as they are encoded, deltas included: for a builder that [replaces](BatchBuilder::replacing)
    /// the batch they come from, or whose deltas count from the same base. Trusts the caller: nothing is parsed.
    ///
    /// # Errors
    /// When the batch is full.
    ///
    /// # Panics
    /// When the run has fewer offsets than records, or ends before what was appended so far.
    pub fn append_run(&mut self, run: RecordRun<'_>) -> Result<(), BatchError> {
        if run.record_count == 0 {
            return Ok(());
        }
        let places = (run.last_offset_delta + 1).saturating_sub(self.next_offset_delta);
        assert!(places >= run.record_count, "records are appended in order of their offsets");
        self.check_room(run.encoded.len(), run.record_count, run.last_offset_delta)?;
        self.buffer.extend_from_slice(run.encoded);
        self.note_records(run.record_count, run.last_offset_delta);
        Ok(())
    }

    /// Makes the batch idempotent.
    pub fn producer(&mut self, producer: BatchProducer) -> &mut Self {
        self.header.set_producer(producer);
        self
    }

    /// Makes the batch cover offsets up to this delta at least, whether records are there or not.
    pub fn cover(&mut self, last_offset_delta: u32) -> &mut Self {
        self.header.last_offset_delta = self.header.last_offset_delta.max(last_offset_delta);
        self
    }

    /// Sets the timestamp that deltas count from and the largest one, which else come from the records appended.
    ///
    /// # Panics
    /// When records were appended already.
    pub fn timestamps(&mut self, base_timestamp: i64, max_timestamp: i64) -> &mut Self {
        assert_eq!(self.header.record_count, 0, "timestamps are set before the first record");
        (self.header.base_timestamp, self.header.max_timestamp) = (base_timestamp, max_timestamp);
        self.timestamps_known = true;
        self
    }

    /// Compresses and seals the batch.
    ///
    /// # Errors
    /// When it is larger than a batch may be.
    pub fn finish(self, base_offset: Offset) -> Result<RecordBatch, BatchError> {
        let mut header = BatchHeader { base_offset, ..self.header };
        let buffer = match header.attributes.compression() {
            Compression::None => self.buffer,
            compression => {
                let mut compressed = room(self.section_bytes() / 2);
                compression.compress(&self.buffer[HEADER_BYTES..], &mut compressed);
                compressed
            }
        };
        header.batch_bytes = buffer.len();
        seal(header, buffer)
    }

    /// How many records were appended.
    #[must_use]
    pub const fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// Whether no record was appended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of its records section before compression.
    #[must_use]
    pub const fn section_bytes(&self) -> usize {
        self.buffer.len() - HEADER_BYTES
    }

    /// Offset delta that the next record gets.
    #[must_use]
    pub const fn next_offset_delta(&self) -> u32 {
        self.next_offset_delta
    }

    fn check_room(&self, bytes: usize, records: u32, last_offset_delta: u32) -> Result<(), BatchError> {
        if self.section_bytes().saturating_add(bytes) > self.section_bytes_max {
            let compression = self.header.attributes.compression();
            return Err(BatchError::Budget { compression, budget: self.section_bytes_max });
        }
        let records = u64::from(self.header.record_count) + u64::from(records);
        if records > BATCH_RECORDS_MAX as u64 || last_offset_delta > i32::MAX as u32 {
            return Err(BatchError::TooManyRecords { records });
        }
        Ok(())
    }

    fn note_timestamp(&mut self, timestamp: i64) {
        if !self.timestamps_known {
            (self.header.base_timestamp, self.header.max_timestamp) = (timestamp, timestamp);
            self.timestamps_known = true;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
    }

    fn note_records(&mut self, records: u32, last_offset_delta: u32) {
        self.header.record_count += records;
        self.next_offset_delta = last_offset_delta + 1;
        self.cover(last_offset_delta);
    }
}

/// Makes a batch of a records section: the header's fields with this codec, its length and CRC set anew.
///
/// Trusts the caller that the section holds `record_count` records with deltas up to `last_offset_delta`. The section
/// is copied once, or compressed; a [`BatchBuilder`] that the records are written into spares the copy.
///
/// # Errors
/// When the batch is larger than a batch may be.
pub fn encode_section(
    header: &BatchHeader,
    section: &Bytes,
    compression: Compression,
) -> Result<RecordBatch, BatchError> {
    let mut buffer;
    if compression == Compression::None {
        buffer = room(section.len());
        buffer.extend_from_slice(section);
    } else {
        buffer = room(section.len() / 2);
        compression.compress(section, &mut buffer);
    }
    let attributes = header.attributes.with_compression(compression);
    seal(BatchHeader { attributes, batch_bytes: buffer.len(), ..*header }, buffer)
}

/// As [`encode_section`] without a codec, of bytes that begin with room for the header: [`HEADER_BYTES`] of anything. Copies
/// nothing where nobody else holds them.
///
/// # Errors
/// When the batch is larger than a batch may be.
pub fn encode_in_place(header: &BatchHeader, bytes: Bytes) -> Result<RecordBatch, BatchError> {
    let attributes = header.attributes.with_compression(Compression::None);
    let header = BatchHeader { attributes, batch_bytes: bytes.len(), ..*header };
    check_sealed(&header)?;
    Ok(RecordBatch::encoded_in_place(header, bytes))
}

fn seal(header: BatchHeader, buffer: Vec<u8>) -> Result<RecordBatch, BatchError> {
    check_sealed(&header)?;
    Ok(RecordBatch::encoded(header, buffer))
}

fn check_sealed(header: &BatchHeader) -> Result<(), BatchError> {
    if header.batch_bytes > BATCH_BYTES_MAX {
        return Err(BatchError::TooLarge { bytes: header.batch_bytes });
    }
    assert!(header.record_count <= header.last_offset_delta + 1, "every record has an offset of its own");
    assert!(header.next_offset() <= Offset::MAX, "a partition holds fewer than 2^63 offsets");
    Ok(())
}

/// An empty header with capacity for what follows.
fn room(section_bytes: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + section_bytes);
    buffer.resize(HEADER_BYTES, 0);
    buffer
}

#[inline]
fn len_part(part: Option<&[u8]>) -> usize {
    match part {
        // A length that no i32 holds is refused with the record's: it is over every limit.
        Some(part) => varint::len_i32(part.len() as i32) + part.len(),
        None => 1,
    }
}

#[inline]
fn write_part(out: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            varint::write_i32(out, part.len() as i32);
            out.extend_from_slice(part);
        }
        None => out.push(1),
    }
}

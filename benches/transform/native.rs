//! The same work without a guest: check the records, decide, frame what is left.
//!
//! What the engine promises holds here too: nothing is stored that was not checked, and a batch that stays as it is
//! is not copied.

use std::iter;

use protocol::{
    BatchBuilder, Offset, RecordBatch, RecordRun,
    limits::{DECOMPRESSED_BYTES_MAX, RECORD_BYTES_MAX},
    records,
};

/// Keeps the records whose value `keeps` says `true` of, in runs as they are encoded.
pub(crate) fn filter(batch: &RecordBatch, mut keeps: impl FnMut(&[u8]) -> bool) -> RecordBatch {
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).expect("the batch is sound");
    batch.validate_records(&section, RECORD_BYTES_MAX).expect("the batch is sound");
    let mut builder: Option<BatchBuilder> = None;
    let (mut run_start, mut run_records, mut at, mut last) = (0, 0, 0, 0);
    for record in records(&section) {
        let record = record.expect("the records were checked");
        if keeps(record.value.unwrap_or_default()) {
            (run_records, last) = (run_records + 1, record.offset_delta);
        } else {
            let builder = builder.get_or_insert_with(|| BatchBuilder::replacing(batch.header(), section.len()));
            let encoded = &section[run_start..at];
            let run = RecordRun { encoded, record_count: run_records, last_offset_delta: last };
            builder.append_run(run).expect("a part fits");
            (run_start, run_records) = (at + record.raw.len(), 0);
        }
        at += record.raw.len();
    }
    let Some(mut builder) = builder else { return batch.clone() };
    let run = RecordRun { encoded: &section[run_start..], record_count: run_records, last_offset_delta: last };
    builder.append_run(run).expect("a part fits");
    builder.finish(Offset::ZERO).expect("a part fits")
}

/// Gives each record the value that `writes` writes; each new record's size is checked.
pub(crate) fn map(batch: &RecordBatch, mut writes: impl FnMut(&[u8], &mut Vec<u8>)) -> RecordBatch {
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).expect("the batch is sound");
    batch.validate_records(&section, RECORD_BYTES_MAX).expect("the batch is sound");
    let header = batch.header();
    let mut builder = BatchBuilder::replacing(header, section.len() + section.len() / 4);
    let mut value = Vec::new();
    for record in records(&section) {
        let record = record.expect("the records were checked");
        value.clear();
        writes(record.value.unwrap_or_default(), &mut value);
        assert!(value.len() + record.key.map_or(0, <[u8]>::len) <= RECORD_BYTES_MAX, "a new record is small");
        let timestamp = header.timestamp(record.timestamp_delta);
        let headers = record.headers;
        builder
            .append_parts(record.offset_delta, timestamp, record.key, Some(&value), headers)
            .expect("the new batch has room");
    }
    builder.finish(Offset::ZERO).expect("the new batch is within limits")
}

/// Values of so many bytes, every second one with `needle` somewhere in it.
pub(crate) fn texts(count: usize, value_bytes: usize, needle: &str) -> impl Iterator<Item = Vec<u8>> {
    let needle = needle.as_bytes().to_vec();
    iter::repeat_with(|| ()).take(count).enumerate().map(move |(index, ())| {
        let mut value = vec![b'a' + (index % 23) as u8; value_bytes];
        if index % 2 == 0 && value_bytes > needle.len() {
            let at = index * 31 % (value_bytes - needle.len());
            value[at..at + needle.len()].copy_from_slice(&needle);
        }
        value
    })
}

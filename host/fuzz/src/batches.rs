//! Record batches: reading them, and writing what was read anew.

use bytes::Bytes;
use protocol::{
    BatchBuilder, BatchHeader, Compression, HEADER_BYTES, Header, Offset, Record, RecordBatch, RecordView, Retained,
    encode_section,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DECOMPRESSED_BYTES_MAX, HEADERS_MAX, RECORD_BYTES_MAX},
    records,
};

use crate::{Seeds, allocations::bounded};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// What a section may unfold to here: the limit's own size would make each run slow, and shows nothing more.
const BUDGET: usize = 256 << 10;

/// Beside input and output a codec has windows and tables of its own; zstd's are the largest.
const CODEC_BYTES: usize = 16 << 20;

/// Bytes 17 to 21 hold the CRC of what follows.
const CRC_AT: usize = 17;

/// Any bytes as a record batch, and as the batch they would be if their checksum were right.
pub fn record_batch(data: &[u8]) {
    // The budget is asked before memory is, but for doubling.
    bounded(CODEC_BYTES + 4 * BUDGET + 8 * data.len(), || {
        check_batch(data);
        check_batch(&resealed(data));
        check_run(data);
    });
}

/// The same with length and checksum set right, so that what lies behind them is reached.
fn resealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if let Some(length) = bytes.len().checked_sub(12)
        && bytes.len() >= HEADER_BYTES
    {
        bytes[8..12].copy_from_slice(&(length as i32).to_be_bytes());
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[CRC_AT + 4..]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

fn check_batch(data: &[u8]) {
    let batch = match RecordBatch::decode(Bytes::copy_from_slice(data)) {
        Ok(batch) => batch,
        Err(error) => return assert!(error.to_string().len() > 10, "an error says nothing: {error}"),
    };
    let header = batch.header();
    assert_eq!((&batch.bytes()[..], header.batch_bytes), (data, data.len()), "a batch is its bytes");
    assert!(data.len() <= BATCH_BYTES_MAX && header.record_count as usize <= BATCH_RECORDS_MAX);
    assert!(header.record_count <= header.last_offset_delta + 1 && batch.next_offset() <= Offset::MAX);
    check_moved(&batch);
    let _ = batch.check_produced().inspect_err(|error| assert!(error.to_string().len() > 10));
    match batch.records_section(BUDGET) {
        Ok(section) => check_section(&batch, &section),
        Err(error) => assert!(error.to_string().len() > 10, "an error says nothing: {error}"),
    }
}

/// A batch at another place is the same batch.
fn check_moved(batch: &RecordBatch) {
    let span = u64::from(batch.header().last_offset_delta) + 1;
    let moved = batch.clone().with_base_offset(Offset(Offset::MAX.0 - span));
    assert_eq!(moved.next_offset(), Offset::MAX);
    assert_eq!(moved.bytes()[8..], batch.bytes()[8..], "only the base offset is written");
    assert_eq!(RecordBatch::decode(moved.bytes().clone()).as_ref(), Ok(&moved));
}

fn check_section(batch: &RecordBatch, section: &Bytes) {
    assert!(section.len() <= BUDGET, "a section unfolds to more than it may");
    if let Some(less) = section.len().checked_sub(1) {
        assert!(batch.records_section(less).is_err(), "a budget is passed by one byte");
    }
    assert_eq!(batch.records_section(section.len()).as_ref(), Ok(section), "a budget that is met is enough");
    let views: Vec<RecordView<'_>> = records(section).map_while(Result::ok).collect();
    let raw: usize = views.iter().map(|view| view.raw.len()).sum();
    assert!(raw <= section.len());
    for view in &views {
        check_view(view, batch.header(), section);
    }
    if batch.validate_records(section, RECORD_BYTES_MAX).is_ok() {
        assert_eq!((raw, views.len()), (section.len(), batch.header().record_count as usize));
        assert!(views.iter().all(|view| view.payload_bytes() <= RECORD_BYTES_MAX));
        assert!(views.is_sorted_by(|a, b| a.offset_delta < b.offset_delta));
    }
}

/// The two ways to own a record give the same one.
fn check_view(view: &RecordView<'_>, header: &BatchHeader, section: &Bytes) {
    let record = view.to_record(header);
    assert_eq!(record, view.to_record_in(header, section));
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (view.key, view.value));
    assert!(record.headers.len() <= HEADERS_MAX && view.payload_bytes() <= view.raw.len());
}

/// Any bytes as batches one behind the other.
fn check_run(data: &[u8]) {
    let mut rest = Bytes::copy_from_slice(data);
    let mut taken = 0;
    while let Ok(Some(batch)) = RecordBatch::split_first(&mut rest) {
        taken += batch.bytes().len();
        assert_eq!(taken + rest.len(), data.len(), "a run is cut, and nothing is lost");
    }
}

/// Any bytes as a batch whose records are written anew, with every codec, and in part.
pub fn batch_reencode(data: &[u8]) {
    bounded(CODEC_BYTES + 16 * BUDGET + 8 * data.len(), || {
        let Ok(batch) = RecordBatch::decode(resealed(data).into()) else { return };
        let Ok(section) = batch.records_section(BUDGET) else { return };
        if batch.validate_records(&section, BUDGET).is_err() {
            return;
        }
        for codec in CODECS {
            check_codec(&batch, &section, codec);
        }
        check_built(&batch, &section);
        check_retained(&batch, &section);
    });
}

/// The section is the same, whatever it is compressed with.
fn check_codec(batch: &RecordBatch, section: &Bytes, codec: Compression) {
    // What was compressed better than by us may no longer fit.
    let Ok(again) = encode_section(batch.header(), section, codec) else { return };
    let again = RecordBatch::decode(again.into_bytes()).expect("what we write can be read");
    assert_eq!(again.header().attributes.compression(), codec);
    assert_eq!(again.records_section(BUDGET).as_ref(), Ok(section), "{codec} gives back something else");
    let same = BatchHeader {
        attributes: batch.header().attributes,
        batch_bytes: batch.header().batch_bytes,
        ..*again.header()
    };
    assert_eq!(&same, batch.header());
}

/// Records that are taken apart and built anew are the same records.
fn check_built(batch: &RecordBatch, section: &Bytes) {
    let header = batch.header();
    let mut builder = BatchBuilder::replacing(header, section.len());
    for view in views(section) {
        let timestamp = header.base_timestamp.wrapping_add(view.timestamp_delta);
        let headers: Vec<(&[u8], Option<&[u8]>)> = view.headers.collect();
        let appended = builder.append_parts(view.offset_delta, timestamp, view.key, view.value, headers.into_iter());
        // A section that was compressed may be larger than one that is not may be, and is refused as that.
        if appended.is_err() {
            return;
        }
    }
    let Ok(built) = builder.finish(header.base_offset) else { return };
    let built_section = built.records_section(2 * BUDGET).expect("what we write can be read");
    built.validate_records(&built_section, BUDGET).expect("what we write is sound");
    assert_eq!(built.next_offset(), batch.next_offset());
    let meaning = |section| views(section).map(|view| (view.offset_delta, view.to_record(header))).collect::<Vec<_>>();
    assert_eq!(meaning(&built_section), meaning(section));
}

/// What is kept of a batch is what it was.
fn check_retained(batch: &RecordBatch, section: &Bytes) {
    let keeps = |index: u32| index % 3 != 1;
    let expected: Vec<&[u8]> =
        views(section).enumerate().filter(|(i, _)| keeps(*i as u32)).map(|(_, v)| v.raw).collect();
    match batch.retain(|index, _| keeps(index), BUDGET) {
        Ok(Retained::Whole) => assert_eq!(expected.len(), batch.header().record_count as usize),
        Ok(Retained::Nothing) => assert!(expected.is_empty(), "records that were to stay are gone"),
        Ok(Retained::Part(part)) => {
            assert_eq!(part.next_offset(), batch.next_offset(), "coverage stays");
            let kept = part.records_section(BUDGET).expect("what we write can be read");
            part.validate_records(&kept, BUDGET).expect("what we write is sound");
            assert_eq!(views(&kept).map(|view| view.raw).collect::<Vec<_>>(), expected);
        }
        // What was compressed better than by us may no longer fit.
        Err(error) => assert!(error.to_string().contains("batch_bytes_max"), "{error}"),
    }
}

fn views(section: &Bytes) -> impl Iterator<Item = RecordView<'_>> {
    records(section).map(|record| record.expect("the section was checked"))
}

/// A batch with every codec, one without records, and one with every oddity of records.
pub(crate) fn seeds() -> Seeds {
    let of = |codec, records: &[Record]| {
        let mut builder = BatchBuilder::new(codec);
        records.iter().for_each(|record| builder.append(record).expect("a few small records fit a batch"));
        builder.finish(Offset(7)).expect("a few small records fit a batch").into_bytes().to_vec()
    };
    let plain: Vec<Record> = (0..3).map(|i| Record::new("key", "value ".repeat(20), 1_000 + i)).collect();
    let header = |value: Option<&'static str>| Header { name: "h".into(), value: value.map(Bytes::from) };
    let odd = [
        Record { key: None, value: None, headers: Vec::new(), timestamp: i64::MIN },
        Record { key: Some(Bytes::new()), value: Some(Bytes::new()), headers: vec![header(None)], timestamp: i64::MAX },
        Record { key: Some("k".into()), value: None, headers: vec![header(Some("v")), header(Some(""))], timestamp: 0 },
    ];
    vec![
        ("none", of(Compression::None, &plain)),
        ("gzip", of(Compression::Gzip, &plain)),
        ("snappy", of(Compression::Snappy, &plain)),
        ("lz4", of(Compression::Lz4, &plain)),
        ("zstd", of(Compression::Zstd, &plain)),
        ("empty", of(Compression::None, &[])),
        ("odd", of(Compression::None, &odd)),
    ]
}

// The seeds' sections unfold to far less than what is looked at.
const _: () = assert!(BUDGET < DECOMPRESSED_BYTES_MAX);

//! Record batches through the crate's public face: round trips, places, limits.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use protocol::{
    BatchBuilder, BatchError, BatchHeader, BatchProducer, Compression, Epoch, HEADER_BYTES, Header, Offset, ProducerId,
    Record, RecordBatch, RecordRun, Sequence, encode_in_place, encode_section,
    limits::{BATCH_BYTES_MAX, DECOMPRESSED_BYTES_MAX, HEADERS_MAX},
    records,
};

use crate::common::{BUDGET, build, cases, compression, read, record, with_crc};

const PRODUCER: BatchProducer = BatchProducer { id: ProducerId(7), epoch: Epoch(3), base_sequence: Sequence(11) };

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn what_is_encoded_is_decoded(sent in vec(record(), 0..40), compression in compression(), base in 0..1u64 << 62) {
        let mut builder = build(compression, &sent);
        builder.producer(PRODUCER);
        let batch = builder.finish(Offset(base)).unwrap();
        let decoded = RecordBatch::decode(Bytes::copy_from_slice(batch.bytes())).unwrap();
        prop_assert_eq!(&decoded, &batch);
        let header = decoded.header();
        prop_assert_eq!((header.record_count as usize, header.base_offset), (sent.len(), Offset(base)));
        prop_assert_eq!((header.attributes.compression(), header.producer()), (compression, Some(PRODUCER)));
        prop_assert_eq!(header.max_timestamp, sent.iter().map(|record| record.timestamp).max().unwrap_or(-1));
        prop_assert_eq!(decoded.next_offset(), Offset(base + sent.len().max(1) as u64));
        prop_assert_eq!(decoded.check_produced().is_ok(), !sent.is_empty());
        prop_assert_eq!(read(&decoded), sent);
    }

    #[test]
    fn a_run_of_batches_is_walked(runs in vec((vec(record(), 0..5), compression()), 0..6)) {
        let batches: Vec<RecordBatch> = runs
            .iter()
            .enumerate()
            .map(|(place, (records, codec))| build(*codec, records).finish(Offset(place as u64 * 10)).unwrap())
            .collect();
        let mut rest = Bytes::from(batches.iter().flat_map(|batch| batch.bytes().to_vec()).collect::<Vec<u8>>());
        for batch in &batches {
            prop_assert_eq!(&RecordBatch::split_first(&mut rest).unwrap().unwrap(), batch);
        }
        prop_assert_eq!(RecordBatch::split_first(&mut rest).unwrap(), None);
    }

    #[test]
    fn kept_runs_and_changed_records_make_a_new_batch(
        sent in vec(record(), 1..30),
        fates in vec(0..3u8, 30),
        codec in compression(),
    ) {
        let mut builder = build(codec, &sent);
        builder.producer(PRODUCER);
        let batch = builder.finish(Offset(100)).unwrap();
        let section = batch.records_section(BUDGET).unwrap();
        let mut rewritten = BatchBuilder::replacing(batch.header(), section.len());
        let mut expected = Vec::new();
        for ((view, original), fate) in records(&section).zip(&sent).zip(fates) {
            let view = view.unwrap();
            let delta = view.offset_delta;
            match fate {
                0 => {}
                1 => {
                    let run = RecordRun { encoded: view.raw, record_count: 1, last_offset_delta: delta };
                    rewritten.append_run(run).unwrap();
                    expected.push((delta, original.clone()));
                }
                _ => {
                    let timestamp = batch.header().timestamp(view.timestamp_delta);
                    rewritten.append_parts(delta, timestamp, view.key, Some(b"new"), view.headers).unwrap();
                    expected.push((delta, Record { value: Some(Bytes::from_static(b"new")), ..original.clone() }));
                }
            }
        }
        let rewritten = RecordBatch::decode(rewritten.finish(Offset(100)).unwrap().into_bytes()).unwrap();
        prop_assert_eq!((rewritten.next_offset(), rewritten.header().producer()), (batch.next_offset(), Some(PRODUCER)));
        prop_assert_eq!(rewritten.header().attributes, batch.header().attributes);
        let section = rewritten.records_section(BUDGET).unwrap();
        let deltas: Vec<u32> = records(&section).map(|view| view.unwrap().offset_delta).collect();
        prop_assert_eq!(deltas, expected.iter().map(|(delta, _)| *delta).collect::<Vec<u32>>());
        prop_assert_eq!(read(&rewritten), expected.into_iter().map(|(_, record)| record).collect::<Vec<Record>>());
    }

    #[test]
    fn a_section_is_framed_anew_with_any_codec(sent in vec(record(), 0..20), from in compression(), to in compression()) {
        let batch = build(from, &sent).finish(Offset(5)).unwrap();
        let section = batch.records_section(BUDGET).unwrap();
        let framed = encode_section(batch.header(), &section, to).unwrap();
        let framed = RecordBatch::decode(framed.into_bytes()).unwrap();
        prop_assert_eq!(framed.header().attributes.compression(), to);
        let (attributes, batch_bytes) = (batch.header().attributes, batch.header().batch_bytes);
        prop_assert_eq!(BatchHeader { attributes, batch_bytes, ..*framed.header() }, *batch.header());
        prop_assert_eq!(read(&framed), sent);
    }

    #[test]
    fn a_section_with_room_in_front_is_framed_in_place(sent in vec(record(), 0..20), from in compression(), shared: bool) {
        let batch = build(from, &sent).finish(Offset(5)).unwrap();
        let section = batch.records_section(BUDGET).unwrap();
        let roomy = Bytes::from([&[0xee; HEADER_BYTES][..], &section].concat());
        let (begin, other) = (roomy.as_ptr(), shared.then(|| roomy.clone()));
        let framed = encode_in_place(batch.header(), roomy).unwrap();
        prop_assert_eq!(&framed, &encode_section(batch.header(), &section, Compression::None).unwrap());
        prop_assert_eq!(framed.bytes().as_ptr() == begin, !shared);
        prop_assert!(other.is_none_or(|other| other[..HEADER_BYTES] == [0xee; HEADER_BYTES]));
    }
}

fn one() -> RecordBatch {
    build(Compression::None, &[Record::new("key", "value", 1_000)]).finish(Offset::ZERO).unwrap()
}

/// The batch with an integer written over its header, and the CRC right again.
fn patched<const N: usize>(batch: &RecordBatch, at: usize, field: [u8; N]) -> Result<RecordBatch, BatchError> {
    let mut bytes = batch.bytes().to_vec();
    bytes[at..at + N].copy_from_slice(&field);
    RecordBatch::decode(with_crc(bytes))
}

#[test]
fn the_base_offset_is_set_in_place_when_nobody_else_holds_the_bytes() {
    let batch = RecordBatch::decode(Bytes::copy_from_slice(one().bytes())).unwrap();
    let place = batch.bytes().as_ptr();
    let moved = batch.with_base_offset(Offset(1 << 40));
    assert_eq!(moved.bytes().as_ptr(), place);
    assert_eq!(RecordBatch::decode(moved.bytes().clone()).unwrap().header().base_offset, Offset(1 << 40));

    let shared = moved.clone().with_base_offset(Offset(3));
    assert_ne!(shared.bytes().as_ptr(), place);
    assert_eq!((moved.header().base_offset, shared.next_offset()), (Offset(1 << 40), Offset(4)));
    assert_eq!(RecordBatch::decode(moved.bytes().clone()).unwrap(), moved);
}

#[test]
fn the_producer_is_changed_with_a_new_crc() {
    let held = one();
    for batch in [one(), held.clone()] {
        let renamed = batch.with_producer(PRODUCER);
        let decoded = RecordBatch::decode(renamed.bytes().clone()).unwrap();
        assert_eq!((decoded.header().producer(), read(&decoded)), (Some(PRODUCER), read(&one())));
    }
    assert_eq!(held, one());
}

#[test]
fn an_uncompressed_section_is_not_copied() {
    let batch = one();
    assert_eq!(batch.records_section(BUDGET).unwrap().as_ptr(), batch.bytes()[HEADER_BYTES..].as_ptr());
}

#[test]
fn an_empty_batch_covers_offsets() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.cover(41);
    let batch = RecordBatch::decode(builder.finish(Offset(1)).unwrap().into_bytes()).unwrap();
    assert_eq!((batch.header().record_count, batch.next_offset()), (0, Offset(43)));
    assert_eq!(read(&batch), []);
}

#[test]
fn offsets_stay_in_the_range_of_the_format() {
    let last = one().with_base_offset(Offset(i64::MAX as u64 - 1));
    assert_eq!(RecordBatch::decode(last.bytes().clone()).unwrap().next_offset(), Offset::MAX);
    for base in [i64::MAX, -1, i64::MIN] {
        assert!(matches!(patched(&one(), 0, base.to_be_bytes()), Err(BatchError::OffsetRange { .. })), "{base}");
    }
    assert!(matches!(patched(&one(), 23, (-1i32).to_be_bytes()), Err(BatchError::OffsetRange { .. })));
}

#[test]
fn a_header_that_cannot_be_true_is_refused() {
    let batch = one();
    let length = |length: i32| patched(&batch, 8, length.to_be_bytes());
    let count = |count: i32| patched(&batch, 57, count.to_be_bytes());
    assert_eq!(length(-1), Err(BatchError::Length { length: -1 }));
    assert_eq!(length(48), Err(BatchError::Length { length: 48 }));
    assert_eq!(length(i32::MAX), Err(BatchError::TooLarge { bytes: i32::MAX as usize + 12 }));
    assert!(matches!(length(1_000), Err(BatchError::Truncated { .. })));
    assert!(matches!(length(49), Err(BatchError::ImpossibleCount { .. } | BatchError::Trailing { .. })));
    assert_eq!(count(-1), Err(BatchError::ImpossibleCount { record_count: -1 }));
    assert_eq!(count(2), Err(BatchError::ImpossibleCount { record_count: 2 }));
    assert_eq!(patched(&batch, 16, [1]), Err(BatchError::Magic { found: 1 }));
    assert_eq!(patched(&batch, 21, [0, 5]), Err(BatchError::UnknownCompression { number: 5 }));
}

#[test]
fn more_records_than_bytes_or_the_limit_allow_are_refused() {
    // The offsets would have room, the section has not.
    let mut many = one().bytes().to_vec();
    many[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
    many[57..61].copy_from_slice(&1_000i32.to_be_bytes());
    assert_eq!(RecordBatch::decode(with_crc(many.clone())), Err(BatchError::ImpossibleCount { record_count: 1_000 }));
    many[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(matches!(RecordBatch::decode(with_crc(many)), Err(BatchError::TooManyRecords { .. })));
}

#[test]
fn a_client_may_not_send_what_is_the_brokers() {
    assert_eq!(one().check_produced(), Ok(()));
    let refused = |batch: Result<RecordBatch, BatchError>| match batch.unwrap().check_produced() {
        Err(BatchError::NotProducible { rule }) => rule,
        other => panic!("{other:?}"),
    };
    assert!(refused(patched(&one(), 21, [0, 1 << 5])).contains("control"));
    assert!(refused(patched(&one(), 21, [0, 1 << 3])).contains("append time"));
    assert!(refused(patched(&one(), 57, [0; 4])).contains("no record"));
    assert!(refused(patched(&one(), 23, [0, 0, 0, 1])).contains("count"));
    assert!(refused(patched(&one(), 43, [0; 8])).contains("producer"));
}

#[test]
fn records_are_held_against_header_and_limits() {
    let two =
        build(Compression::None, &[Record::new("a", "1", 0), Record::new("b", "2", 0)]).finish(Offset(0)).unwrap();
    let section = two.records_section(BUDGET).unwrap();
    let first = records(&section).next().unwrap().unwrap().raw;
    assert_eq!(two.validate_records(first, BUDGET), Err(BatchError::CountMismatch { found: 1, expected: 2 }));
    let twice = [first, first].concat();
    assert_eq!(two.validate_records(&twice, BUDGET), Err(BatchError::OffsetOrder { index: 1, offset_delta: 0 }));
    let beyond = patched(&two, 23, [0, 0, 0, 0]);
    assert!(beyond.is_err(), "two records do not fit one offset");
    assert_eq!(two.validate_records(&section, 2), Ok(()));
    assert_eq!(two.validate_records(&section, 1), Err(BatchError::RecordTooLarge { index: 0, bytes: 2, limit: 1 }));
    assert!(matches!(two.records_section(section.len() - 1), Err(BatchError::Budget { .. })));
}

#[test]
fn a_full_builder_refuses_and_can_be_finished() {
    let record = Record::unkeyed(vec![7; 1 << 20], 0);
    for (compression, room) in [(Compression::None, BATCH_BYTES_MAX), (Compression::Lz4, DECOMPRESSED_BYTES_MAX)] {
        let mut builder = BatchBuilder::new(compression);
        let error = (0..).find_map(|_| builder.append(&record).err()).unwrap();
        assert!(matches!(error, BatchError::Budget { .. }), "{error}");
        assert!(
            builder.section_bytes() <= room
                && builder.section_bytes() + record.value.as_ref().unwrap().len() + 100 > room
        );
        let count = builder.record_count();
        assert_eq!(builder.finish(Offset(0)).unwrap().header().record_count, count);
    }
    let headers = vec![Header::new("h", ""); HEADERS_MAX + 1];
    let mut builder = BatchBuilder::new(Compression::None);
    assert!(matches!(builder.append(&Record { headers, ..Record::default() }), Err(BatchError::TooManyHeaders { .. })));
    assert!(builder.is_empty());
}

#[test]
fn codecs_have_names_and_numbers() {
    for (number, compression) in Compression::ALL.iter().enumerate() {
        assert_eq!(Compression::from_number(number as u16), Some(*compression));
        assert_eq!(compression.to_string().parse(), Ok(*compression));
    }
    assert_eq!(Compression::from_number(5), None);
    assert!("zip".parse::<Compression>().is_err());
}

//! A stored batch becomes one that can be produced: the same records, and nothing of the broker's.

use proptest::{collection::vec, prelude::*};
use protocol::{
    BatchBuilder, BatchError, BatchProducer, Compression, Epoch, Offset, ProducerId, Record, RecordBatch, Sequence,
};

use crate::common::{build, cases, compression, read, record, with_crc};

/// Attribute bits as Kafka sets them.
const LOG_APPEND_TIME: u8 = 1 << 3;
const TRANSACTIONAL: u8 = 1 << 4;
const CONTROL: u8 = 1 << 5;
const DELETE_HORIZON: u8 = 1 << 6;

/// The batch with these attribute bits and a leader epoch, as a broker of Kafka would have stored it.
fn marked(batch: &RecordBatch, bits: u8) -> RecordBatch {
    let mut bytes = batch.bytes().to_vec();
    bytes[12..16].copy_from_slice(&9i32.to_be_bytes());
    bytes[22] |= bits;
    RecordBatch::decode(with_crc(bytes)).unwrap()
}

fn stored(records: &[Record], gaps: &[u32], codec: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec);
    let mut offset_delta = 0;
    for (record, gap) in records.iter().zip(gaps) {
        offset_delta += gap;
        let headers = record.headers.iter().map(|header| (&header.name[..], header.value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.append_parts(offset_delta, record.timestamp, key, value, headers).unwrap();
        offset_delta += 1;
    }
    builder.producer(BatchProducer { id: ProducerId(7), epoch: Epoch(3), base_sequence: Sequence(11) });
    builder.finish(Offset(1 << 40)).unwrap()
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn records_and_codec_stay_and_nothing_else_does(
        sent in vec(record(), 1..20),
        gaps in prop_oneof![Just(vec![0; 20]), vec(0..3u32, 20)],
        codec in compression(),
        bits in proptest::sample::select(vec![0, TRANSACTIONAL, DELETE_HORIZON]),
    ) {
        let produced = marked(&stored(&sent, &gaps, codec), bits).into_produced().unwrap();
        prop_assert_eq!(&RecordBatch::decode(produced.bytes().clone()).unwrap(), &produced);
        produced.check_produced().unwrap();
        let header = produced.header();
        prop_assert_eq!((header.base_offset, header.next_offset()), (Offset::ZERO, Offset(sent.len() as u64)));
        prop_assert_eq!((header.partition_leader_epoch, header.producer_id), (-1, -1));
        let attributes = header.attributes;
        prop_assert_eq!((attributes.compression(), attributes.bits() & !7), (codec, 0));
        prop_assert_eq!(header.max_timestamp, sent.iter().map(|record| record.timestamp).max().unwrap());
        prop_assert_eq!(read(&produced), sent);
    }

    #[test]
    fn a_time_of_arrival_becomes_each_records_own(sent in vec(record(), 1..20), codec in compression()) {
        let stored = marked(&stored(&sent, &[0; 20], codec), LOG_APPEND_TIME);
        let arrival = stored.header().max_timestamp;
        let expected: Vec<Record> = sent.into_iter().map(|record| Record { timestamp: arrival, ..record }).collect();
        prop_assert_eq!(read(&stored.into_produced().unwrap()), expected);
    }
}

#[test]
fn without_gaps_and_marks_not_even_the_section_is_touched() {
    let sent = [Record::unkeyed("a", 5), Record::unkeyed("b", 6)];
    let stored = stored(&sent, &[0, 0], Compression::Gzip);
    let section = stored.bytes().slice(protocol::HEADER_BYTES..);
    let produced = stored.into_produced().unwrap();
    assert_eq!(produced.bytes().slice(protocol::HEADER_BYTES..), section);
    let place = produced.bytes().as_ptr();
    assert_eq!(produced.into_produced().unwrap().bytes().as_ptr(), place, "what can be produced is left alone");
}

#[test]
fn what_holds_no_records_of_clients_cannot_be_produced() {
    let refused = |batch: RecordBatch| matches!(batch.into_produced(), Err(BatchError::NotProducible { .. }));
    assert!(refused(build(Compression::None, &[]).finish(Offset(3)).unwrap()));
    let marker = build(Compression::None, &[Record::new("k", "v", 1)]).finish(Offset(3)).unwrap();
    assert!(refused(marked(&marker, TRANSACTIONAL | CONTROL)));
}

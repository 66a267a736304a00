//! Record batches through the crate's public face: round trips, damage, limits.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use protocol::{
    BatchBuilder, BatchProducer, Compression, Epoch, Header, Offset, ProducerId, Record, RecordBatch, Sequence, records,
};

const BUDGET: usize = 1 << 20;

fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..len).prop_map(Bytes::from)
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL)
}

fn record() -> impl Strategy<Value = Record> {
    let header = (bytes(12), option::of(bytes(12))).prop_map(|(name, value)| Header { name, value });
    let timestamp = prop_oneof![0..2_000_000_000_000i64, any::<i64>()];
    (option::of(bytes(20)), option::of(bytes(300)), vec(header, 0..4), timestamp)
        .prop_map(|(key, value, headers, timestamp)| Record { key, value, headers, timestamp })
}

fn build(compression: Compression, records: &[Record]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression);
    records.iter().for_each(|record| builder.append(record).unwrap());
    builder
}

/// The records of a batch, each read in both ways.
fn read(batch: &RecordBatch) -> Vec<Record> {
    let section = batch.records_section(BUDGET).unwrap();
    batch.validate_records(&section, BUDGET).unwrap();
    let owned = |record: Result<protocol::RecordView<'_>, _>| {
        let record = record.unwrap();
        let (copied, shared) = (record.to_record(batch.header()), record.to_record_in(batch.header(), &section));
        assert_eq!(copied, shared);
        copied
    };
    records(&section).map(owned).collect()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(sent in vec(record(), 0..40), compression in compression(), base in 0..1u64 << 62) {
        let producer = BatchProducer { id: ProducerId(7), epoch: Epoch(3), base_sequence: Sequence(11) };
        let mut builder = build(compression, &sent);
        builder.producer(producer);
        let batch = builder.finish(Offset(base)).unwrap();
        let decoded = RecordBatch::decode(Bytes::copy_from_slice(batch.bytes())).unwrap();
        prop_assert_eq!(&decoded, &batch);
        let header = decoded.header();
        prop_assert_eq!((header.record_count as usize, header.base_offset), (sent.len(), Offset(base)));
        prop_assert_eq!((header.attributes.compression(), header.producer()), (compression, Some(producer)));
        prop_assert_eq!(header.max_timestamp, sent.iter().map(|record| record.timestamp).max().unwrap_or(-1));
        prop_assert_eq!(decoded.check_produced().is_ok(), !sent.is_empty());
        prop_assert_eq!(read(&decoded), sent);
    }
}

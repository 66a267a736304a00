//! What the tests of this folder share: records to send, and one way to read a batch.

use bytes::Bytes;
use proptest::{
    collection::vec,
    option,
    prelude::*,
    test_runner::{Config, RngSeed},
};
use protocol::{BatchBuilder, Compression, Header, Record, RecordBatch, RecordView, records};

/// What a batch of a test may unfold to.
pub(crate) const BUDGET: usize = 1 << 20;

/// The same cases on every run; a failing one is printed and becomes a test of its own.
pub(crate) fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() }
}

pub(crate) fn bytes(len: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..len).prop_map(Bytes::from)
}

pub(crate) fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL)
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    (bytes(12), option::of(bytes(12))).prop_map(|(name, value)| Header { name, value })
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let timestamp = prop_oneof![9 => 0..2_000_000_000_000i64, 1 => any::<i64>()];
    (option::of(bytes(20)), option::of(bytes(300)), vec(header(), 0..4), timestamp)
        .prop_map(|(key, value, headers, timestamp)| Record { key, value, headers, timestamp })
}

pub(crate) fn build(compression: Compression, records: &[Record]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression);
    records.iter().for_each(|record| builder.append(record).unwrap());
    builder
}

/// The records of a sound batch, each taken in both ways.
pub(crate) fn read(batch: &RecordBatch) -> Vec<Record> {
    let section = batch.records_section(BUDGET).unwrap();
    batch.validate_records(&section, BUDGET).unwrap();
    let owned = |record: Result<RecordView<'_>, _>| {
        let record = record.unwrap();
        let (copied, shared) = (record.to_record(batch.header()), record.to_record_in(batch.header(), &section));
        assert_eq!(copied, shared);
        copied
    };
    records(&section).map(owned).collect()
}

/// Puts the right CRC on bytes that were changed, so that what lies behind the CRC is reached.
pub(crate) fn with_crc(mut batch: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

//! An independent codec as oracle: `kafka-protocol` reads what we write, and we read what it writes, with every codec.
//!
//! It is fed sound batches alone: it trusts counts, and hostile bytes can make it abort.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    protocol::StrBytes,
    records::{self as oracle, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use proptest::{collection::vec, option, prelude::*};
use protocol::{
    BatchBuilder, BatchProducer, Compression, Epoch, Header, Offset, ProducerId, Record, RecordBatch, Retained,
    Sequence,
};

use crate::common::{BUDGET, bytes, cases, compression, read};

const PRODUCER: BatchProducer = BatchProducer { id: ProducerId(7), epoch: Epoch(3), base_sequence: Sequence(11) };
const BASE: u64 = 1 << 33;

fn name_of(compression: Compression) -> oracle::Compression {
    match compression {
        Compression::None => oracle::Compression::None,
        Compression::Gzip => oracle::Compression::Gzip,
        Compression::Snappy => oracle::Compression::Snappy,
        Compression::Lz4 => oracle::Compression::Lz4,
        Compression::Zstd => oracle::Compression::Zstd,
    }
}

/// The oracle keeps headers in a map of text, so each name comes once here.
fn record() -> impl Strategy<Value = Record> {
    let headers = vec(option::of(bytes(12)), 0..4).prop_map(|values| {
        let named = values.into_iter().enumerate();
        named.map(|(i, value)| Header { name: format!("ü{i}").into(), value }).collect()
    });
    let value = prop_oneof![bytes(300), (bytes(20), 1..20usize).prop_map(|(part, times)| part.repeat(times).into())];
    // It counts timestamps from the smallest one without wrapping.
    (option::of(bytes(20)), option::of(value), headers, 0..4_000_000_000_000i64)
        .prop_map(|(key, value, headers, timestamp)| Record { key, value, headers, timestamp })
}

fn theirs(place: usize, record: &Record) -> oracle::Record {
    let mut theirs = oracle::Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: PRODUCER.id.0 as i64,
        producer_epoch: PRODUCER.epoch.0 as i16,
        timestamp_type: TimestampType::Creation,
        offset: BASE as i64 + place as i64,
        sequence: PRODUCER.base_sequence.0 as i32 + place as i32,
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: Default::default(),
    };
    for header in &record.headers {
        theirs.headers.insert(StrBytes::from_string(header.name_text().into_owned()), header.value.clone());
    }
    theirs
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn it_reads_what_we_write(sent in vec(record(), 1..40), codec in compression()) {
        let mut builder = BatchBuilder::new(codec);
        sent.iter().for_each(|record| builder.append(record).unwrap());
        builder.producer(PRODUCER);
        let mut bytes: Bytes = builder.finish(Offset(BASE)).unwrap().into_bytes();
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!((set.version, set.compression), (2, name_of(codec)));
        let expected: Vec<oracle::Record> = sent.iter().enumerate().map(|(place, record)| theirs(place, record)).collect();
        prop_assert_eq!(set.records, expected);
    }

    #[test]
    fn it_reads_what_is_left_of_a_batch(
        sent in vec(record(), 2..40),
        fates in vec(any::<bool>(), 40),
        codec in compression(),
    ) {
        let mut builder = BatchBuilder::new(codec);
        sent.iter().for_each(|record| builder.append(record).unwrap());
        builder.producer(PRODUCER);
        let batch = builder.finish(Offset(BASE)).unwrap();
        let mut bytes = match batch.retain(|index, _| fates[index as usize], BUDGET).unwrap() {
            Retained::Whole => batch.into_bytes(),
            Retained::Part(part) => part.into_bytes(),
            Retained::Nothing => return Ok(()),
        };
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!((set.version, set.compression), (2, name_of(codec)));
        let kept = sent.iter().enumerate().filter(|(place, _)| fates[*place]);
        let expected: Vec<oracle::Record> = kept.map(|(place, record)| theirs(place, record)).collect();
        prop_assert_eq!(set.records, expected);
    }

    #[test]
    fn we_read_what_it_writes(sent in vec(record(), 1..40), codec in compression()) {
        let records: Vec<oracle::Record> = sent.iter().enumerate().map(|(place, record)| theirs(place, record)).collect();
        let options = RecordEncodeOptions { version: 2, compression: name_of(codec) };
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        let batch = RecordBatch::decode(bytes.freeze()).unwrap();
        batch.check_produced().unwrap();
        let header = batch.header();
        prop_assert_eq!((header.base_offset, header.producer()), (Offset(BASE), Some(PRODUCER)));
        prop_assert_eq!(header.attributes.compression(), codec);
        prop_assert_eq!(header.max_timestamp, sent.iter().map(|record| record.timestamp).max().unwrap());
        prop_assert_eq!(read(&batch), sent);
    }
}

//! Known answers: batches that Apache Kafka stored for its clients are read, and written again to the same bytes.
//! `kafka_batches/README.md` says what is in the files and how they were made.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use protocol::{BatchBuilder, Compression, Header, Offset, Record, RecordBatch, records};

use crate::common::read;

const B: i64 = 1_700_000_000_000;

fn small() -> Vec<Record> {
    let header =
        |name: &'static str, value: Option<&'static str>| Header { name: name.into(), value: value.map(Bytes::from) };
    let headers = vec![
        header("trace", Some("abc")),
        header("empty", Some("")),
        header("null", None),
        header("trace", Some("again")),
    ];
    vec![
        Record::new("k0", "v0", B),
        Record::unkeyed("unkeyed", B + 1_000),
        Record { key: Some("k2".into()), value: None, headers: Vec::new(), timestamp: B + 500 },
        Record::new("", "", B + 3_000),
        Record { headers, ..Record::new("k4", "v4 ü", B + 4_000) },
    ]
}

fn large() -> Vec<Record> {
    (0..400).map(|i| Record::new(format!("key-{i:03}"), format!("line {i:03} ").repeat(40), B + i)).collect()
}

struct Stored {
    client: &'static str,
    compression: Compression,
    expected: Vec<Record>,
    batches: Vec<RecordBatch>,
}

fn stored(client: &'static str, compression: Compression, set: &str) -> Stored {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kafka_batches");
    let mut bytes = Bytes::from(fs::read(folder.join(format!("{client}-{compression}-{set}.bin"))).unwrap());
    let mut batches = Vec::new();
    while let Some(batch) = RecordBatch::split_first(&mut bytes).unwrap() {
        batches.push(batch);
    }
    Stored { client, compression, expected: if set == "small" { small() } else { large() }, batches }
}

fn all() -> Vec<Stored> {
    let mut all = Vec::new();
    for client in ["java", "librdkafka", "kafka-python"] {
        for &compression in Compression::ALL {
            if client != "kafka-python" {
                all.push(stored(client, compression, "small"));
            }
            if compression != Compression::None {
                all.push(stored(client, compression, "large"));
            }
        }
    }
    all
}

#[test]
fn what_kafkas_clients_wrote_is_read() {
    for file in all() {
        let (client, compression) = (file.client, file.compression);
        assert_eq!(file.batches.iter().flat_map(read).collect::<Vec<_>>(), file.expected, "{client} {compression}");
        let mut next = Offset::ZERO;
        for batch in &file.batches {
            let header = batch.header();
            batch.check_produced().unwrap();
            assert_eq!(header.base_offset, next);
            // librdkafka sends a batch as it is when compressing does not make it smaller.
            let codec = header.attributes.compression();
            assert!(
                codec == compression || client == "librdkafka" && codec == Compression::None,
                "{client} {compression}"
            );
            let section = batch.records_section(crate::common::BUDGET).unwrap();
            let timestamps = records(&section).map(|record| header.timestamp(record.unwrap().timestamp_delta));
            assert_eq!(timestamps.max(), Some(header.max_timestamp));
            next = batch.next_offset();
        }
        assert_eq!(next, Offset(file.expected.len() as u64));
    }
}

/// What is not the codec's choice is the same to the bit: header fields, varints, CRC.
#[test]
fn the_same_records_are_written_to_the_same_bytes() {
    for file in all() {
        for batch in &file.batches {
            let mut builder = BatchBuilder::new(Compression::None);
            for record in read(batch) {
                builder.append(&record).unwrap();
            }
            if let Some(producer) = batch.header().producer() {
                builder.producer(producer);
            }
            let ours = builder.finish(batch.header().base_offset).unwrap();
            let section = batch.records_section(crate::common::BUDGET).unwrap();
            assert_eq!(
                ours.records_section(crate::common::BUDGET).unwrap(),
                section,
                "{} {}",
                file.client,
                file.compression
            );
            if batch.header().attributes.compression() == Compression::None {
                let mut theirs = batch.bytes().to_vec();
                // The leader epoch is the broker's, and outside the CRC.
                theirs[12..16].copy_from_slice(&(-1i32).to_be_bytes());
                assert_eq!(ours.bytes(), &theirs, "{}", file.client);
            }
        }
    }
}

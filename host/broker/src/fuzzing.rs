//! What is promised of any row of the state, as a function that panics where it does not hold.
//!
//! For the fuzz targets alone: behind the feature `fuzzing`, hidden, and no part of the crate's face.

use std::fmt::Debug;

use minicbor::{Decode, Encode};
use protocol::{
    Books, CleanupPolicy, Epoch, Offset, PartitionId, PluginHash, ProduceAnswer, ProducerId, Retention, Sequence,
    TopicConfig,
};

use crate::{
    catalog::{Catalog, PluginRow, ProducerIdsRow, TopicRow, partitions_of},
    sequencer::{Check, ProducerRow, Stamp, Window},
    versioned,
};

/// Version of every layout there is.
const VERSION: u8 = 1;

/// Any bytes as a row: a byte that says how long the key is, the key, the value.
pub fn broker_row(data: &[u8]) {
    let Some((&key_bytes, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(key_bytes).min(rest.len()));
    round_trip::<TopicRow>(value);
    round_trip::<PluginRow>(value);
    round_trip::<ProducerIdsRow>(value);
    round_trip::<ProducerRow>(value);
    check_catalog(key, value);
    match ProducerRow::read(key, value) {
        Ok((producer, row)) => check_window(producer, row),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn round_trip<T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug>(value: &[u8]) {
    let Ok(row) = versioned::decode::<T>(VERSION, value) else { return };
    let again = versioned::encode(VERSION, &row);
    assert_eq!(versioned::decode::<T>(VERSION, &again).ok(), Some(row), "its own encoding means something else");
}

fn check_catalog(key: &[u8], value: &[u8]) {
    let mut catalog = Catalog::default();
    let read = catalog.read_row(&String::from_utf8_lossy(key), value);
    let rows = catalog.topics.len() + catalog.plugins.len() + usize::from(catalog.producer_ids.is_some());
    assert_eq!(rows, usize::from(read.is_ok()), "a row is one thing, or refused");
    let partitions = catalog.topics.values().flat_map(|row| row.partitions.clone());
    assert_eq!(partitions_of(key, value), partitions.collect::<Vec<_>>());
}

/// A batch that is remembered is answered once more, and the next one is new.
fn check_window(producer: ProducerId, row: ProducerRow) {
    let ProducerRow { epoch, base_sequence, record_count, .. } = row;
    let stamp = Stamp { producer, epoch, base_sequence, record_count };
    let window = Window::restore(vec![row]);
    assert!(matches!(window.check(&stamp), Ok(Check::Stored(_))), "a retry is not known");
    let (_, next) = window.durable_place().expect("one batch is durable");
    if next != base_sequence {
        let stamp = Stamp { base_sequence: next, ..stamp };
        assert!(matches!(window.check(&stamp), Ok(Check::New)), "the next batch is not taken");
    }
}

/// A row of every kind.
pub fn broker_row_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let retention = Retention { policy: CleanupPolicy::Compact, ..Retention::default() };
    let config = TopicConfig { retention, max_record_bytes: 1 << 20 };
    let topic = TopicRow { config, partitions: vec![PartitionId(3), PartitionId(4)], transforms: Vec::new() };
    let plugin = PluginRow { hash: PluginHash([7; 32]), wasm_bytes: 9, describe: "{}".to_owned(), uploaded_at_ms: 1 };
    let ids = ProducerIdsRow { next: ProducerId(9) };
    let producer_key = ProducerRow::key(PartitionId(3), ProducerId(7), 5);
    let stamp = Stamp { producer: ProducerId(7), epoch: Epoch(1), base_sequence: Sequence(10), record_count: 3 };
    let books = Books { records_in: 3, kept: 2, stored: 2, dropped: 1, ..Books::default() };
    let (base_offset, next_offset) = (Offset(100), Offset(103));
    let producer = ProducerRow::new(5, &stamp, &ProduceAnswer { base_offset, next_offset, books, rejects: Vec::new() });
    let row = |key: &[u8], value: Vec<u8>| [&[key.len() as u8][..], key, &value].concat();
    vec![
        ("topic", row(b"topic/clicks", versioned::encode(VERSION, &topic))),
        ("plugin", row(b"plugin/mask", versioned::encode(VERSION, &plugin))),
        ("producer-ids", row(b"producer-ids", versioned::encode(VERSION, &ids))),
        ("producer", row(&producer_key, producer.encode())),
    ]
}

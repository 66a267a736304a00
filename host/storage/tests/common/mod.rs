//! Shared set-up: commits and batches as a broker would make them.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod model;

use bytes::Bytes;
use protocol::{BatchBuilder, Compression, Offset, PartitionId, Record, RecordBatch, Retention};
use storage::{Append, Commit, PartitionChange, StateChange, StateTable, Store, StoreOptions};

pub const P: PartitionId = PartitionId(0);

pub const FOREVER: Retention = Retention::FOREVER;

/// Options under which everything happens early: small segments, a small tail.
pub fn small() -> StoreOptions {
    StoreOptions {
        segment_bytes_max: 2 << 20,
        tail_bytes_max: 256 << 10,
        preallocate_bytes: 1 << 20,
        reserve_bytes: 1 << 20,
        cache_bytes: 4 << 20,
        ..StoreOptions::default()
    }
}

/// A batch of `count` records of `bytes` each, one millisecond apart from `timestamp_ms` on.
pub fn batch(base: u64, count: u32, bytes: usize, timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for at in 0..count {
        let mut value: Vec<u8> = format!("{base}+{at} ").into_bytes();
        // Every stretch of it is like no other, so that tests find it again in a file.
        let seed = (base << 40) ^ ((timestamp_ms as u64) << 24) ^ (u64::from(at) << 20);
        value.extend((0..bytes as u64).map(|byte| mixed(seed ^ byte)));
        builder.append(&Record::unkeyed(value, timestamp_ms + i64::from(at))).unwrap();
    }
    builder.finish(Offset(base)).unwrap().into_bytes()
}

/// A byte of a number, as if by chance (the end of splitmix64).
fn mixed(number: u64) -> u8 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (number >> 56) as u8
}

pub fn create(id: PartitionId, retention: Retention) -> Commit {
    Commit { partitions: vec![PartitionChange::Create { id, retention }], ..Commit::default() }
}

pub fn change(change: PartitionChange) -> Commit {
    Commit { partitions: vec![change], ..Commit::default() }
}

/// The append of one batch with nothing dropped.
pub fn append(partition: PartitionId, base: u64, count: u32, bytes: usize, timestamp_ms: i64) -> Append {
    Append {
        partition,
        cover_start: Offset(base),
        cover_end: Offset(base + u64::from(count)),
        batches: Some(batch(base, count, bytes, timestamp_ms)),
        max_timestamp_ms: timestamp_ms + i64::from(count) - 1,
    }
}

/// An append of which every record was dropped.
pub fn gap(partition: PartitionId, start: u64, end: u64) -> Append {
    Append { partition, cover_start: Offset(start), cover_end: Offset(end), batches: None, max_timestamp_ms: 0 }
}

pub fn appends(appends: Vec<Append>) -> Commit {
    Commit { appends, ..Commit::default() }
}

pub fn set(table: StateTable, key: &str, value: &str) -> StateChange {
    StateChange { table, key: key.to_owned().into(), value: Some(value.to_owned().into()) }
}

/// Everything readable from `from` on, batch by batch, stepping as a consumer does.
pub fn read_all(store: &Store, id: PartitionId, from: u64, max_bytes: usize) -> Vec<RecordBatch> {
    let mut next = Offset(from);
    let mut found = Vec::new();
    loop {
        let outcome = store.read(id, next, max_bytes).unwrap();
        for mut run in outcome.batches {
            while let Some(batch) = RecordBatch::split_first(&mut run).unwrap() {
                found.push(batch);
            }
        }
        if outcome.next_offset == next {
            assert_eq!(outcome.next_offset, outcome.high_watermark);
            return found;
        }
        assert!(outcome.next_offset > next);
        next = outcome.next_offset;
    }
}

/// Base offsets and bytes, for comparison.
pub fn plain(batches: &[RecordBatch]) -> Vec<(u64, Bytes)> {
    batches.iter().map(|batch| (batch.header().base_offset.0, batch.bytes().clone())).collect()
}

/// Every file below a directory, with its bytes.
pub fn files(dir: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A store of several segments and partitions, in which a bit of everything happened, closed: small batches that ride with
/// their commit's record and large ones with parts of their own, gaps, deletions, a log start that moved, state.
pub fn lived(dir: &std::path::Path) {
    lived_with(dir, small(), [40, 900, 30_000, 170_000]);
}

/// [`lived`], with batches of about these sizes.
pub fn lived_with(dir: &std::path::Path, options: StoreOptions, sizes: [usize; 4]) {
    let store = Store::open(dir, options).unwrap();
    let mut next: std::collections::BTreeMap<u32, u64> = (0..4).map(|id| (id, 0)).collect();
    for id in next.keys() {
        store.commit(create(PartitionId(*id), FOREVER)).unwrap();
    }
    for round in 0..40_u64 {
        let mut commit = Commit::default();
        for (id, at) in &mut next {
            let bytes = sizes[((round + u64::from(*id)) % 4) as usize];
            commit.appends.push(append(PartitionId(*id), *at, 3, bytes / 3, round as i64));
            commit.appends.push(gap(PartitionId(*id), *at + 3, *at + 5));
            *at += 5;
        }
        for table in [StateTable::Catalog, StateTable::GroupOffsets, StateTable::PluginState] {
            commit.state.push(set(table, &format!("{}", round % 7), &format!("value {round}")));
        }
        store.commit(commit).unwrap();
        match round {
            15 => {
                store.commit(change(PartitionChange::Delete { id: PartitionId(3) })).unwrap();
                next.remove(&3);
            }
            20 => {
                store.commit(create(PartitionId(4), Retention { age_ms: Some(1 << 40), ..FOREVER })).unwrap();
                next.insert(4, 0);
            }
            30 => {
                store.commit(change(PartitionChange::SetLogStart { id: P, offset: Offset(33) })).unwrap();
            }
            _ => {}
        }
    }
    assert!(store.stats().segments > 3, "{:?}", store.stats());
}

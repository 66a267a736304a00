//! The log through the crate's public face: what is committed is read back, from memory and from disk, over reopening.

mod common;

use bytes::Bytes;
use common::*;
use protocol::{Offset, PartitionId};
use storage::{Commit, CommitError, PartitionChange, ReadError, StateTable, Store, StoreOptions};

#[test]
fn what_is_committed_is_read_back_over_segments_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    let mut expected = Vec::new();
    for at in 0..60 {
        let base = at * 10;
        let append = append(P, base, 10, 10_000, at as i64);
        expected.push((base, append.batches.clone().unwrap()));
        store.commit(appends(vec![append])).unwrap();
    }
    assert!(store.stats().segments > 2, "{:?}", store.stats());
    assert!(store.stats().tail_bytes <= 256 << 10);
    for max_bytes in [1, 50_000, 1 << 20] {
        assert_eq!(plain(&read_all(&store, P, 0, max_bytes)), expected);
    }
    assert_eq!(plain(&read_all(&store, P, 305, 1 << 20)), expected[30..]);
    assert!(store.read_tail(P, Offset(0), 1).is_none());
    assert!(store.read_tail(P, Offset(595), 1).is_some());

    store.close().unwrap();
    assert_eq!(plain(&read_all(&store, P, 0, 1 << 20)), expected, "closed stores are still read");
    assert_eq!(store.commit(Commit::default()), Err(CommitError::ShuttingDown));
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(plain(&read_all(&store, P, 0, 1 << 20)), expected);
    let place = store.partition(P).unwrap();
    assert_eq!((place.log_start_offset, place.high_watermark), (Offset(0), Offset(600)));
    store.commit(appends(vec![append(P, 600, 5, 10, 0)])).unwrap();
    assert_eq!(read_all(&store, P, 0, 1 << 20).len(), 61);
}

#[test]
fn gaps_are_covered_and_stepped_over() {
    let dir = tempfile::tempdir().unwrap();
    for reopened in [false, true] {
        let options = StoreOptions { tail_bytes_max: 0, ..small() };
        let store = Store::open(dir.path(), options).unwrap();
        if !reopened {
            store.commit(create(P, FOREVER)).unwrap();
            store.commit(appends(vec![gap(P, 0, 7), append(P, 7, 3, 10, 0), gap(P, 10, 20)])).unwrap();
            store.commit(appends(vec![gap(P, 20, 30)])).unwrap();
        }
        let outcome = store.read(P, Offset(2), 1 << 20).unwrap();
        assert_eq!(outcome.batches.len(), 1);
        assert_eq!(outcome.next_offset, Offset(30));
        let outcome = store.read(P, Offset(12), 1 << 20).unwrap();
        assert_eq!((outcome.batches.len(), outcome.next_offset), (0, Offset(30)));
        assert_eq!(store.read(P, Offset(30), 1).unwrap().next_offset, Offset(30));
        let beyond = ReadError::OutOfRange {
            partition: P,
            offset: Offset(31),
            log_start_offset: Offset(0),
            high_watermark: Offset(30),
        };
        assert_eq!(store.read(P, Offset(31), 1), Err(beyond));
    }
}

#[test]
fn a_group_may_span_many_parts_and_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { tail_bytes_max: 0, ..StoreOptions::default() };
    let store = Store::open(dir.path(), options).unwrap();
    let ids: Vec<PartitionId> = (0..20).map(PartitionId).collect();
    let mut commit = Commit::default();
    for id in &ids {
        commit.partitions.push(PartitionChange::Create { id: *id, retention: FOREVER });
        commit.appends.push(append(*id, 0, 3, 1_000 * id.0 as usize, 0));
        commit.appends.push(gap(*id, 3, 5));
        commit.appends.push(append(*id, 5, 2, 60_000, 0));
    }
    commit.appends.push(append(ids[0], 7, 3, 900_000, 0));
    let expected: Vec<Vec<(u64, Bytes)>> = ids
        .iter()
        .map(|id| {
            let of_id = commit.appends.iter().filter(|append| append.partition == *id);
            of_id.filter_map(|append| Some((append.cover_start.0, append.batches.clone()?))).collect()
        })
        .collect();
    store.commit(commit).unwrap();
    for (id, expected) in ids.iter().zip(&expected) {
        assert_eq!(&plain(&read_all(&store, *id, 0, 100_000)), expected);
    }
    drop(store);
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    for (id, expected) in ids.iter().zip(&expected) {
        assert_eq!(&plain(&read_all(&store, *id, 0, 1 << 20)), expected);
    }
}

#[test]
fn records_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { segment_entries_max: 100, ..small() };
    let store = Store::open(dir.path(), options).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    // Record n has timestamp 10 * (n / 10) + n % 10 + 1000 = n + 1000; every third batch was dropped.
    for at in 0..300_u64 {
        let step = match at % 3 {
            2 => gap(P, at * 10, at * 10 + 10),
            _ => append(P, at * 10, 10, 20, 1_000 + at as i64 * 10),
        };
        store.commit(appends(vec![step])).unwrap();
    }
    assert!(store.stats().segments >= 3);
    for _ in 0..2 {
        assert_eq!(store.offset_for_timestamp(P, 0).unwrap(), Some(Offset(0)));
        assert_eq!(store.offset_for_timestamp(P, 1_004).unwrap(), Some(Offset(4)));
        assert_eq!(store.offset_for_timestamp(P, 1_025).unwrap(), Some(Offset(30)), "a gap has no time");
        assert_eq!(store.offset_for_timestamp(P, 2_513).unwrap(), Some(Offset(1_513)));
        assert_eq!(store.offset_for_timestamp(P, 3_990).unwrap(), None);
        store.roll().unwrap();
    }
    store.commit(change(PartitionChange::SetLogStart { id: P, offset: Offset(1_516) })).unwrap();
    assert_eq!(store.offset_for_timestamp(P, 0).unwrap(), Some(Offset(1_516)));
}

#[test]
fn state_is_what_the_last_commit_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let commit = |state| store.commit(Commit { state, ..Commit::default() }).unwrap();
    commit(vec![set(StateTable::Catalog, "a/1", "one"), set(StateTable::Catalog, "a/2", "two")]);
    commit(vec![set(StateTable::Catalog, "b/1", "three"), set(StateTable::Producers, "a/1", "other")]);
    commit(vec![storage::StateChange { table: StateTable::Catalog, key: "a/2".into(), value: None }]);
    let check = |store: &Store| {
        assert_eq!(store.state_get(StateTable::Catalog, b"a/1").unwrap(), Some("one".into()));
        assert_eq!(store.state_get(StateTable::Catalog, b"a/2").unwrap(), None);
        assert_eq!(store.state_scan(StateTable::Catalog, b"a/").unwrap(), [("a/1".into(), "one".into())]);
        assert_eq!(store.state_scan(StateTable::Catalog, b"").unwrap().len(), 2);
        assert_eq!(store.state_get(StateTable::Positions, b"a/1").unwrap(), None);
    };
    check(&store);
    drop(store);
    check(&Store::open(dir.path(), small()).unwrap());
}

#[test]
fn partitions_come_and_go_and_ids_never_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    let next = store.partition_id_next();
    store.commit(create(next, FOREVER)).unwrap();
    store.commit(appends(vec![append(next, 0, 1, 10, 0)])).unwrap();
    store.commit(change(PartitionChange::Delete { id: next })).unwrap();
    assert_eq!(store.read(next, Offset(0), 1), Err(ReadError::UnknownPartition { partition: next }));
    assert_eq!(store.partition(next), None);
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert!(store.partition_id_next() > next);
    assert!(matches!(store.commit(create(next, FOREVER)), Err(CommitError::PartitionIdUsed { .. })));
}

#[test]
fn a_bad_commit_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    let (sender, answers) = std::sync::mpsc::channel();
    for base in [0, 10, 15, 20] {
        let sender = sender.clone();
        let commit = appends(vec![append(P, base, 10, 10, 0)]);
        store.submit(commit, Box::new(move |result| sender.send((base, result.is_ok())).unwrap()));
    }
    drop(sender);
    assert_eq!(answers.iter().collect::<Vec<_>>(), [(0, true), (10, true), (15, false), (20, true)]);
    assert_eq!(read_all(&store, P, 0, 1 << 20).len(), 3);
}

#[test]
fn every_run_writes_a_segment_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { tail_bytes_max: 0, reserve_bytes: 1 << 20, ..StoreOptions::default() };
    let mut expected = 0;
    for run in 1..5 {
        let store = Store::open(dir.path(), options.clone()).unwrap();
        if expected == 0 {
            store.commit(create(P, FOREVER)).unwrap();
        }
        for _ in 0..3 {
            store.commit(appends(vec![append(P, expected, 1, 700_000, 0)])).unwrap();
            expected += 1;
        }
        assert_eq!(read_all(&store, P, 0, 1 << 20).len() as u64, expected);
        assert_eq!(store.stats().segments, run);
        // Nothing that was allocated ahead stays with the segments that were left.
        assert!(store.stats().disk_bytes < (run as u64) * (3 << 20) + (20 << 20), "{:?}", store.stats());
    }
}

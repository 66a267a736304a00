//! Retention: log starts move, dead segments go, the rest stays readable.

mod common;

use common::*;
use protocol::{Offset, PartitionId, Retention};
use storage::{PartitionChange, ReadError, Store};

const OTHER: PartitionId = PartitionId(1);

fn fill(store: &Store, id: PartitionId, batches: u64) {
    let next = store.partition(id).unwrap().high_watermark.0;
    for offset in next..next + batches {
        store.commit(appends(vec![append(id, offset, 1, 200_000, offset as i64)])).unwrap();
    }
}

#[test]
fn size_deletes_the_oldest_segments() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, Retention { bytes: Some(3_000_000), ..Retention::FOREVER })).unwrap();
    fill(&store, P, 60);
    // Segments are sealed in the background; closing waits for that.
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    let before = store.stats();
    let report = store.run_retention(0).unwrap();
    assert_eq!(report.partitions_trimmed, 1);
    assert!(report.segments_removed >= 3, "{report:?} of {before:?}");
    let place = store.partition(P).unwrap();
    assert!((3_000_000..6_000_000).contains(&place.bytes), "{place:?}");
    let after = store.stats();
    assert!(after.disk_bytes + report.bytes_removed <= before.disk_bytes + (1 << 20));
    let gone = store.read(P, Offset(0), 1);
    assert!(matches!(gone, Err(ReadError::OutOfRange { .. })), "{gone:?}");
    let kept = read_all(&store, P, place.log_start_offset.0, 1 << 20);
    assert_eq!(kept.len() as u64, 60 - place.log_start_offset.0);
    assert_eq!(store.run_retention(0).unwrap().segments_removed, 0);
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(store.partition(P), Some(place));
    assert_eq!(read_all(&store, P, place.log_start_offset.0, 1 << 20).len(), kept.len());
}

#[test]
fn age_deletes_what_is_too_old_even_in_the_active_segment() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, Retention { age_ms: Some(1_000), ..Retention::FOREVER })).unwrap();
    fill(&store, P, 30);
    assert_eq!(store.run_retention(900).unwrap(), Default::default());
    let report = store.run_retention(10_000).unwrap();
    assert_eq!(report.partitions_trimmed, 1);
    assert_eq!(store.partition(P).unwrap().log_start_offset, Offset(30));
    assert_eq!(store.partition(P).unwrap().bytes, 0);
    // The one that was active is sealed in the background and goes in a later round, at the latest after reopening.
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    store.run_retention(10_000).unwrap();
    assert_eq!(store.stats().segments, 1);
    fill(&store, P, 1);
    assert_eq!(read_all(&store, P, 30, 1).len(), 1);
}

#[test]
fn a_segment_stays_while_anything_in_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    store.commit(create(OTHER, FOREVER)).unwrap();
    fill(&store, OTHER, 1);
    fill(&store, P, 20);
    let segments = store.stats().segments;
    store.commit(change(PartitionChange::Delete { id: P })).unwrap();
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    let report = store.run_retention(0).unwrap();
    assert!(report.segments_removed >= segments - 3, "{report:?} of {segments}");
    assert_eq!(read_all(&store, OTHER, 0, 1).len(), 1);
    store.commit(change(PartitionChange::SetLogStart { id: OTHER, offset: Offset(1) })).unwrap();
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    store.run_retention(0).unwrap();
    assert_eq!(store.stats().segments, 1);
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(store.partition(OTHER).unwrap().high_watermark, Offset(1));
    assert_eq!(store.partition(P), None);
}

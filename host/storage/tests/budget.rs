//! The disk budget: appends are refused before the disk is full, everything else goes on, and they are taken again.

mod common;

use common::*;
use protocol::{Health, Offset, PartitionId};
use storage::{Budget, Commit, CommitError, PartitionChange, StateTable, Store, StoreOptions};

const Q: PartitionId = PartitionId(1);

const BUDGET: u64 = 24 << 20;

fn budgeted() -> StoreOptions {
    StoreOptions { budget: Budget::Bytes(BUDGET), reserve_bytes: 1 << 20, ..small() }
}

/// Appends until there is no room; how many went in.
fn fill(store: &Store, partition: PartitionId) -> u64 {
    let mut offset = store.partition(partition).unwrap().high_watermark.0;
    loop {
        match store.commit(appends(vec![append(partition, offset, 1, 200_000, 0)])) {
            Ok(_) => offset += 1,
            Err(CommitError::Full { why }) => {
                assert!(why.contains("storage.budget"), "{why}");
                return offset;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_budget_refuses_appends_and_nothing_else_until_there_is_space_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), budgeted()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    store.commit(create(Q, FOREVER)).unwrap();
    let stored = fill(&store, P);
    assert!(stored > 50, "{stored}");
    let stats = store.stats();
    assert!(matches!(stats.health, Health::Full { .. }), "{stats:?}");
    assert!(stats.disk_bytes <= BUDGET, "{}", stats.disk_bytes);
    assert_eq!(stats.budget_bytes, BUDGET);

    // Reads, state, and whatever frees space go on; many times, and over segments.
    for at in 0..200 {
        let state = vec![set(StateTable::GroupOffsets, &format!("group {at}"), &"x".repeat(1_000))];
        store.commit(Commit { state, ..Commit::default() }).unwrap();
    }
    store.roll().unwrap();
    assert_eq!(read_all(&store, P, 0, 1 << 20).len() as u64, stored);
    assert_eq!(fill(&store, P), stored, "nothing more goes in");
    store.commit(change(PartitionChange::SetLogStart { id: P, offset: Offset(stored) })).unwrap();
    drop(store);

    // The limit outlives a restart, and so does the way out of it.
    let store = Store::open(dir.path(), budgeted()).unwrap();
    assert!(store.run_retention(0).unwrap().segments_removed > 0);
    store.commit(appends(vec![append(Q, 0, 1, 200_000, 0)])).unwrap();
    let mut health = store.stats().health;
    for _ in 0..100 {
        health = store.stats().health;
        if health == Health::Healthy {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(health, Health::Healthy);
    assert!(fill(&store, Q) > 40);
}

#[test]
fn near_the_limit_appends_are_slowed_and_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), budgeted()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    let mut seen = Vec::new();
    let mut offset = 0;
    while store.commit(appends(vec![append(P, offset, 1, 200_000, 0)])).is_ok() {
        offset += 1;
        let slowed = matches!(store.stats().health, Health::Slowed { .. });
        if seen.last() != Some(&slowed) {
            seen.push(slowed);
        }
    }
    assert!(seen.contains(&true), "it was never slowed");
}

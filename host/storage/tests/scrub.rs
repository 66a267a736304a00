//! The background check of sealed segments: every part of them, a step at a time, and each damaged place once.

mod common;

use std::fs;

use common::*;
use protocol::{Offset, PartitionId};
use storage::{PartitionChange, ReadError, ScrubProgress, Store, StoreOptions};

/// Small steps to the end of a round; what they came to in all, and how many there were.
fn round(store: &Store) -> (ScrubProgress, usize) {
    let mut sum = ScrubProgress::default();
    for steps in 1.. {
        let ScrubProgress { bytes, damages, wrapped } = store.scrub_step(64 << 10);
        assert!(bytes <= (64 << 10) + (1 << 20) + 4096, "{bytes}");
        sum.bytes += bytes;
        sum.damages += damages;
        if wrapped {
            return (sum, steps);
        }
    }
    unreachable!("it ends")
}

fn no_tail() -> StoreOptions {
    StoreOptions { tail_bytes_max: 0, ..small() }
}

#[test]
fn a_round_reads_every_sealed_segment_and_the_next_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let store = Store::open(dir.path(), no_tail()).unwrap();
    let (first, steps) = round(&store);
    assert_eq!(first.damages, 0);
    // All of the batches, and more.
    let batches: u64 = store.partitions().iter().map(|(_, place)| place.bytes).sum();
    assert!(first.bytes > batches && steps > 20, "{first:?} of {batches} in {steps}");
    assert_eq!(round(&store).0, first);
    assert_eq!((store.stats().scrubbed_bytes, store.stats().damages), (2 * first.bytes, 0));
}

#[test]
fn each_damaged_place_is_found_once_and_goes_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let store = Store::open(dir.path(), no_tail()).unwrap();
    // One batch, and one row of an index.
    let file = dir.path().join("segments/0000000002.redb");
    let clean = fs::read(&file).unwrap();
    let mut parts = (0..clean.len() - 4).filter(|at| &clean[*at..*at + 4] == b"wprt");
    let large = parts.rfind(|at| u32::from_le_bytes(clean[at + 48..at + 52].try_into().unwrap()) > 100_000);
    let mut bytes = clean.clone();
    bytes[large.unwrap() + 50_000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let index = dir.path().join("segments/0000000003.index");
    let clean_index = fs::read(&index).unwrap();
    let mut bytes = clean_index.clone();
    let head = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[16 + head + 5] ^= 1;
    fs::write(&index, &bytes).unwrap();

    assert_eq!(round(&store).0.damages, 2);
    assert_eq!(round(&store).0.damages, 0, "they are known");
    assert_eq!(store.stats().damages, 2);
    let refused = (0..5).map(PartitionId).any(|id| {
        let reads = (0..200).map(|at| store.read(id, Offset(at), 1));
        reads.into_iter().any(|read| matches!(read, Err(ReadError::Damaged { .. })))
    });
    assert!(refused, "and what they harm is not served");

    fs::write(&index, &clean_index).unwrap();
    round(&store);
    assert_eq!(store.stats().damages, 1, "what is sound again is no damage");
    for id in [0, 1, 2, 4] {
        let end = store.partition(PartitionId(id)).unwrap().high_watermark;
        store.commit(change(PartitionChange::SetLogStart { id: PartitionId(id), offset: end })).unwrap();
    }
    store.roll().unwrap();
    assert!(store.run_retention(0).unwrap().segments_removed > 2);
    round(&store);
    assert_eq!(store.stats().damages, 0);
}

#[test]
fn a_round_ends_though_a_segments_files_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let store = Store::open(dir.path(), no_tail()).unwrap();
    fs::rename(dir.path().join("segments/0000000002.redb"), dir.path().join("elsewhere")).unwrap();
    let (gone, _) = round(&store);
    assert!(gone.damages > 0 && store.stats().damages == gone.damages, "{gone:?}");
    fs::rename(dir.path().join("elsewhere"), dir.path().join("segments/0000000002.redb")).unwrap();
    round(&store);
    assert_eq!(store.stats().damages, 0);
}

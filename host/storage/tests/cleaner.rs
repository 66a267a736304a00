//! The cleaner: space comes back, records stay, and compaction keeps the newest of each key.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use protocol::{
    BatchBuilder, CleanupPolicy, Compression, Offset, PartitionId, RecordBatch, Retention,
    limits::DECOMPRESSED_BYTES_MAX, records,
};
use storage::{Append, PartitionChange, Store, StoreOptions};

const Q: PartitionId = PartitionId(1);

const COMPACT: Retention = Retention { policy: CleanupPolicy::Compact, delete_retention_ms: 0, ..Retention::FOREVER };

fn no_tail() -> StoreOptions {
    StoreOptions { tail_bytes_max: 0, ..small() }
}

fn clean(store: &Store) -> storage::CleanReport {
    store.roll().unwrap();
    // The sealer is another thread; nothing is rewritten before it is done.
    for _ in 0..100 {
        if store.stats().unsealed == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    store.clean(i64::MAX, &mut |_| true).unwrap()
}

/// A topic that keeps little and one that keeps all, in the same segments.
fn shared_segments(dir: &Path) -> Store {
    let store = Store::open(dir, no_tail()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    store.commit(create(Q, FOREVER)).unwrap();
    for offset in 0..60 {
        store.commit(appends(vec![append(P, offset, 1, 20_000, 0), append(Q, offset, 1, 180_000, 0)])).unwrap();
    }
    store.commit(change(PartitionChange::SetLogStart { id: Q, offset: Offset(55) })).unwrap();
    store
}

#[test]
fn what_is_dead_does_not_pin_what_lives_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = shared_segments(dir.path());
    let expected = [P, Q].map(|id| plain(&read_all(&store, id, if id == P { 0 } else { 55 }, 1)));
    let before = store.stats();
    let report = clean(&store);
    let after = store.stats();
    assert!(report.segments_rewritten > 4 && !report.stopped, "{report:?}");
    assert!(after.segments < before.segments, "{} of {}", after.segments, before.segments);
    assert!(after.disk_bytes < before.disk_bytes / 3, "{} of {}", after.disk_bytes, before.disk_bytes);
    let check = |store: &Store| {
        for (id, expected) in [P, Q].iter().zip(&expected) {
            let from = store.partition(*id).unwrap().log_start_offset.0;
            for max_bytes in [1, 1 << 22] {
                assert!(&plain(&read_all(store, *id, from, max_bytes)) == expected, "partition {id}");
            }
        }
    };
    check(&store);
    drop(store);
    let store = Store::open(dir.path(), no_tail()).unwrap();
    check(&store);
    drop(store);
    // A rewritten segment says of itself what its index says.
    for index in files(dir.path(), "index") {
        fs::remove_file(index).unwrap();
    }
    check(&Store::open(dir.path(), no_tail()).unwrap());
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == extension)).collect()
}

#[test]
fn a_round_may_be_stopped_at_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = shared_segments(dir.path());
    let expected = plain(&read_all(&store, P, 0, 1));
    store.roll().unwrap();
    for steps in 0.. {
        let mut left = steps;
        let report = store.clean(0, &mut |_| {
            left -= 1;
            left >= 0
        });
        assert!(plain(&read_all(&store, P, 0, 1)) == expected, "after {steps} steps");
        assert_eq!(files(dir.path(), "new"), Vec::<PathBuf>::new());
        if !report.unwrap().stopped {
            assert!(steps > 3);
            return;
        }
    }
}

#[test]
fn what_was_replaced_and_not_yet_removed_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = shared_segments(dir.path());
    drop(store);
    let before: BTreeMap<PathBuf, Vec<u8>> =
        files(dir.path(), "redb").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    let expected = plain(&read_all(&store, P, 0, 1));
    clean(&store);
    drop(store);
    let after: BTreeSet<PathBuf> = files(dir.path(), "redb").into_iter().collect();
    let mut put_back = 0;
    for (path, bytes) in before.iter().filter(|(path, _)| !after.contains(*path)) {
        fs::write(path, bytes).unwrap();
        put_back += 1;
    }
    assert!(put_back > 2);
    let store = Store::open(dir.path(), no_tail()).unwrap();
    assert!(plain(&read_all(&store, P, 0, 1)) == expected);
    drop(store);
    assert!(before.keys().filter(|path| !after.contains(*path)).all(|path| !path.exists()));
}

#[test]
fn segments_without_a_commit_are_removed_and_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        drop(Store::open(dir.path(), no_tail()).unwrap());
    }
    let store = Store::open(dir.path(), no_tail()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    store.commit(appends(vec![append(P, 0, 1, 10, 0)])).unwrap();
    clean(&store);
    assert_eq!(store.stats().segments, 2);
    drop(store);
    for index in files(dir.path(), "index") {
        fs::remove_file(index).unwrap();
    }
    assert_eq!(read_all(&Store::open(dir.path(), no_tail()).unwrap(), P, 0, 1).len(), 1);
}

#[test]
fn a_damaged_segment_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = shared_segments(dir.path());
    drop(store);
    let file = dir.path().join("segments/0000000002.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes.iter_mut().skip(200_000).take(400_000).for_each(|byte| *byte ^= 1);
    fs::write(&file, bytes).unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    let answers = |store: &Store| (0..60).map(|at| store.read(P, Offset(at), 1).is_ok()).collect::<Vec<_>>();
    let before = answers(&store);
    assert!(before.contains(&true) && before.contains(&false));
    for _ in 0..2 {
        clean(&store);
        assert_eq!(answers(&store), before);
    }
}

/// Spoils some batch of a partition, one that lies in one piece; the file in which it lies.
fn spoil_one(dir: &Path, batches: &[(u64, Bytes)]) -> PathBuf {
    for (_, batch) in batches {
        for file in files(dir, "redb") {
            let mut bytes = fs::read(&file).unwrap();
            if let Some(at) = bytes.windows(batch.len()).position(|window| window == &batch[..]) {
                bytes[at + batch.len() / 2] ^= 1;
                fs::write(&file, bytes).unwrap();
                return file;
            }
        }
    }
    panic!("no batch lies in one piece");
}

#[test]
fn damage_keeps_its_own_segment_from_being_rewritten_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = shared_segments(dir.path());
    store.roll().unwrap();
    let expected = plain(&read_all(&store, P, 0, 1));
    let sealed = store.stats().segments - 1;
    let file = spoil_one(dir.path(), &expected[20..40]);
    let spoilt = fs::read(&file).unwrap();
    let rewritten: usize = (0..3).map(|_| clean(&store).segments_rewritten).sum();
    assert_eq!(fs::read(&file).unwrap(), spoilt, "it stays byte for byte");
    // The last segments hold what is alive of the other partition, and stay, too.
    assert!(rewritten >= sealed - 3, "{rewritten} of {sealed}");
    let refused = expected.iter().filter(|(offset, batch)| match store.read(P, Offset(*offset), 1) {
        Ok(outcome) => {
            assert_eq!(outcome.batches[0], batch);
            false
        }
        Err(_) => true,
    });
    assert_eq!(refused.count(), 1);
}

#[test]
fn damage_keeps_its_own_partition_from_being_compacted_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    store.commit(create(P, COMPACT)).unwrap();
    store.commit(create(Q, COMPACT)).unwrap();
    for round in 0..20_u64 {
        let sent: Vec<Sent> = (0..40).map(|key| (key, Some((round * 40 + u64::from(key)) as u16))).collect();
        let own = keyed(round * 40, &sent, Compression::None);
        store.commit(appends(vec![Append { partition: Q, ..own.clone() }, own])).unwrap();
        store.roll().unwrap();
    }
    let count = |id| -> u32 { read_all(&store, id, 0, 1).iter().map(|batch| batch.header().record_count).sum() };
    let (p_before, q_before) = (plain(&read_all(&store, P, 0, 1)), count(Q));
    spoil_one(dir.path(), &plain(&read_all(&store, Q, 0, 1))[5..15]);
    clean(&store);
    // The same bytes were sent to both, so whose it is that was spoilt is for the files to say.
    let damaged = |id| (0..800).step_by(40).any(|offset| store.read(id, Offset(offset), 1).is_err());
    let (spoilt, sound) = if damaged(P) { (P, Q) } else { (Q, P) };
    assert!(damaged(spoilt) && !damaged(sound));
    // The segment with the damage stays as it is for both.
    assert_eq!(count(sound), 40 + 40);
    let kept = (0..800).step_by(40).filter(|offset| store.read(spoilt, Offset(*offset), 1).is_ok()).count();
    assert_eq!((kept, q_before), (p_before.len() - 1, 800));
}

/// One record: its key, and its value unless it is a tombstone.
type Sent = (u8, Option<u16>);

fn keyed(base: u64, sent: &[Sent], codec: Compression) -> Append {
    let mut builder = BatchBuilder::new(codec);
    for (at, (key, value)) in sent.iter().enumerate() {
        let (key, value) = ([*key], value.map(|value| [value.to_le_bytes(); 200].concat()));
        builder.append_parts(at as u32, 5, Some(&key), value.as_deref(), std::iter::empty()).unwrap();
    }
    let batches = Some(builder.finish(Offset(base)).unwrap().into_bytes());
    let cover_end = Offset(base + sent.len() as u64);
    Append { partition: P, cover_start: Offset(base), cover_end, batches, max_timestamp_ms: 5 }
}

/// Every record: offset, key, value.
fn read_records(store: &Store) -> Vec<(u64, u8, Option<u16>)> {
    let mut found = Vec::new();
    for batch in read_all(store, P, 0, 1 << 20) {
        let section: Bytes = RecordBatch::records_section(&batch, DECOMPRESSED_BYTES_MAX).unwrap();
        for record in records(&section) {
            let record = record.unwrap();
            let value = record.value.map(|value| u16::from_le_bytes([value[0], value[1]]));
            let offset = batch.header().base_offset.0 + u64::from(record.offset_delta);
            found.push((offset, record.key.unwrap()[0], value));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn compaction_keeps_the_newest_record_of_each_key(
        rounds in prop::collection::vec(
            (prop::collection::vec((0_u8..40, prop::option::weighted(0.8, any::<u16>())), 30..400), any::<bool>()), 1..6,
        ),
        codec in prop::sample::select(vec![Compression::None, Compression::Lz4]),
        compaction_bytes in prop::sample::select(vec![16 << 20, 24 * 10]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { compaction_bytes, ..no_tail() };
        let mut store = Store::open(dir.path(), options.clone()).unwrap();
        store.commit(create(P, COMPACT)).unwrap();
        let mut sent: Vec<Sent> = Vec::new();
        for (round, reopen) in rounds {
            for batch in round.chunks(25) {
                store.commit(appends(vec![keyed(sent.len() as u64, batch, codec)])).unwrap();
                sent.extend(batch);
            }
            // Each round halves what is new at least, until a map of a few keys has gone over all of it.
            for _ in 0..8 {
                clean(&store);
            }
            if reopen {
                drop(store);
                store = Store::open(dir.path(), options.clone()).unwrap();
            }
            let found = read_records(&store);
            for &(offset, key, value) in &found {
                prop_assert_eq!(sent[offset as usize], (key, value), "what is left is what was sent");
            }
            let newest: BTreeMap<u8, usize> = sent.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect();
            for (key, at) in &newest {
                let is_there = found.iter().any(|record| record.0 == *at as u64);
                prop_assert!(is_there || sent[*at].1.is_none(), "key {} at {} is gone", key, at);
            }
            if compaction_bytes > 1 << 20 {
                prop_assert_eq!(found.len(), found.iter().map(|record| record.1).collect::<BTreeSet<_>>().len());
            }
        }
    }
}

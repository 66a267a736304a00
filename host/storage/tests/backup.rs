//! Backups of a store that goes on, and what comes back from them: every commit that they reach, as it was.

mod common;

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use common::{
    model::{Model, Operation, operation},
    *,
};
use proptest::prelude::*;
use protocol::{Offset, PartitionId};
use storage::{
    BackupError, BackupReport, Clock, Commit, DirLock, FileEntry, FileSystem, HostFileSystem, OpenMode, RestoreError,
    RestorePoint, RestoreReport, Space, StateTable, Store, StoreFile, StoreOptions, restore, verify,
};

/// A clock that moves with every look at it.
#[derive(Debug, Default)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(10, Ordering::Relaxed) + 10
    }

    fn random_id(&self) -> [u8; 16] {
        [9; 16]
    }
}

impl Ticking {
    /// The last time that was seen.
    fn last(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn backup(store: &Store, to: &Path) -> Result<BackupReport, BackupError> {
    store.backup(to, None, &mut |_| Ok(()), &mut |_| true)
}

fn bring_back(from: &Path, to: &Path, point: RestorePoint) -> Result<RestoreReport, RestoreError> {
    restore(from, to, point, small(), &mut |_| true)?.finish()
}

fn open(dir: &Path) -> Store {
    Store::open(dir, small()).unwrap()
}

/// The files of a backup, by their paths in it.
fn files(backup: &Path) -> Vec<PathBuf> {
    let dirs = [backup.to_path_buf(), backup.join("segments"), backup.join("snapshots")];
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// A store with some commits in two segments.
fn some_store(dir: &Path) -> Store {
    let store = open(dir);
    store.commit(create(P, FOREVER)).unwrap();
    for offset in 0..6 {
        let state = vec![set(StateTable::Catalog, "last", &offset.to_string())];
        store.commit(Commit { appends: vec![append(P, offset, 1, 500, 0)], state, ..Commit::default() }).unwrap();
        if offset == 2 {
            store.roll().unwrap();
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_commit_within_reach_comes_back_as_it_was(
        before in prop::collection::vec(operation(), 1..25),
        between in prop::collection::vec(operation(), 1..25),
        after in prop::collection::vec(operation(), 0..5),
        segment_entries_max in prop::sample::select(vec![10, 1_000]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
        let clock = Arc::new(Ticking::default());
        let options = StoreOptions { segment_entries_max, clock: clock.clone(), ..small() };
        let mut store = Store::open(&data, options.clone()).unwrap();
        let mut model = Model::default();
        // The model at each commit, and the times at which that was the last one.
        let mut history: BTreeMap<u64, Model> = BTreeMap::from([(0, Model::default())]);
        let mut times: Vec<(i64, u64)> = Vec::new();
        let mut reports = Vec::new();
        for operations in [before, between, after] {
            model.run(&store, &Operation::Create);
            history.insert(store.stats().commit_sequence, model.clone());
            for operation in &operations {
                match operation {
                    Operation::Reopen => {
                        drop(store);
                        store = Store::open(&data, options.clone()).unwrap();
                    }
                    operation => model.run(&store, operation),
                }
                let sequence = store.stats().commit_sequence;
                history.insert(sequence, model.clone());
                times.push((clock.last(), sequence));
            }
            if reports.len() < 2 {
                reports.push(backup(&store, &to).unwrap());
                model.check(&store);
            }
        }
        drop(store);
        let reached = |sequence: u64| {
            reports[1].restorable.iter().any(|run| (run.commit_min..=run.commit_max).contains(&sequence))
        };
        prop_assert!(reports.iter().all(|report| reached(report.snapshot_sequence) && reached(report.last_sequence)));
        for (sequence, model) in &history {
            let target = dir.path().join(format!("commit-{sequence}"));
            let restored = restore(&to, &target, RestorePoint::Commit(*sequence), small(), &mut |_| true);
            if !reached(*sequence) {
                prop_assert!(matches!(restored, Err(RestoreError::OutOfReach { .. })), "commit {}", sequence);
                continue;
            }
            prop_assert_eq!(restored.unwrap().finish().unwrap().commit, *sequence);
            prop_assert_eq!(verify(&target, &small(), &mut |_| {}).unwrap().damages, []);
            let store = Store::open(&target, small()).unwrap();
            model.check(&store);
            // It goes on like any store.
            let mut model = model.clone();
            model.run(&store, &Operation::Create);
            drop(store);
            model.check(&open(&target));
            fs::remove_dir_all(&target).unwrap();
        }
        for (time, sequence) in times.into_iter().filter(|(_, sequence)| reached(*sequence)) {
            let target = dir.path().join(format!("time-{time}"));
            let report = bring_back(&to, &target, RestorePoint::Time(time));
            // When the commits just outside a run were made, nobody knows any more.
            let runs = &reports[1].restorable;
            let at_edge = runs.iter().any(|run| run.commit_min == sequence || run.commit_max == sequence);
            match report {
                Err(RestoreError::OutOfReach { .. }) if at_edge => continue,
                report => prop_assert_eq!(report.unwrap().commit, sequence),
            }
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

#[test]
fn a_backup_is_made_while_commits_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = open(&data);
    store.commit(create(P, FOREVER)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut offset = 0;
            while !stop.load(Ordering::Acquire) {
                let state = vec![set(StateTable::Producers, "next", &(offset + 1).to_string())];
                let commit = Commit { appends: vec![append(P, offset, 1, 30_000, 0)], state, ..Commit::default() };
                store.commit(commit).unwrap();
                offset += 1;
            }
        });
        for number in 0..4 {
            let acked = store.partition(P).unwrap().high_watermark;
            let report = backup(&store, &to).unwrap();
            let target = dir.path().join(format!("restored-{number}"));
            assert_eq!(bring_back(&to, &target, RestorePoint::Latest).unwrap().commit, report.last_sequence);
            let restored = open(&target);
            let end = restored.partition(P).unwrap().high_watermark;
            assert!(end >= acked, "{end} is less than {acked}, which was acknowledged");
            assert_eq!(read_all(&restored, P, 0, 1 << 20).len() as u64, end.0);
            if end > Offset(0) {
                let next = restored.state_get(StateTable::Producers, b"next").unwrap().unwrap();
                assert_eq!(next, end.0.to_string(), "state and log are of the same commit");
            }
        }
        stop.store(true, Ordering::Release);
        producer.join().unwrap();
    });
}

#[test]
fn a_second_backup_brings_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let first = backup(&store, &to).unwrap();
    assert_eq!((first.segments_added, first.segments_kept), (2, 0));
    let nothing_new = backup(&store, &to).unwrap();
    assert_eq!((nothing_new.segments_added, nothing_new.segments_kept), (0, 2));
    assert_eq!(nothing_new.restorable[0].commit_min, first.snapshot_sequence);
    store.commit(appends(vec![append(P, 6, 1, 10, 0)])).unwrap();
    let second = backup(&store, &to).unwrap();
    assert_eq!((second.segments_added, second.segments_kept), (1, 2));
    // A file that somebody removed is brought again.
    fs::remove_file(to.join("segments/0000000001-0000000001.index")).unwrap();
    assert_eq!(backup(&store, &to).unwrap().segments_added, 1);
    bring_back(&to, &dir.path().join("restored"), RestorePoint::Latest).unwrap();
}

#[test]
fn only_the_snapshots_that_are_wanted_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let first = backup(&store, &to).unwrap();
    for offset in 6..9 {
        store.commit(appends(vec![append(P, offset, 1, 10, 0)])).unwrap();
        backup(&store, &to).unwrap();
    }
    let snapshots = || fs::read_dir(to.join("snapshots")).unwrap().count();
    assert_eq!(snapshots(), 4);
    let last = store.backup(&to, NonZeroUsize::new(2), &mut |_| Ok(()), &mut |_| true).unwrap();
    assert_eq!((snapshots(), last.files_removed), (2, 2));
    assert_eq!(last.restorable.len(), 1);
    let run = last.restorable[0];
    assert_eq!(run.commit_min, first.snapshot_sequence + 2);
    for commit in run.commit_min..=run.commit_max {
        bring_back(&to, &dir.path().join(format!("at-{commit}")), RestorePoint::Commit(commit)).unwrap();
    }
}

#[test]
fn records_that_expired_since_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let report = backup(&store, &to).unwrap();
    store.commit(change(storage::PartitionChange::SetLogStart { id: P, offset: Offset(6) })).unwrap();
    assert!(store.run_retention(0).unwrap().segments_removed > 0);
    backup(&store, &to).unwrap();
    let target = dir.path().join("before");
    bring_back(&to, &target, RestorePoint::Commit(report.last_sequence)).unwrap();
    assert_eq!(read_all(&open(&target), P, 0, 1 << 20).len(), 6);
    let target = dir.path().join("after");
    bring_back(&to, &target, RestorePoint::Latest).unwrap();
    assert_eq!(open(&target).partition(P).unwrap().log_start_offset, Offset(6));
}

#[test]
fn damage_anywhere_in_a_backup_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let report = backup(&store, &to).unwrap();
    store.close().unwrap();
    // The last commit but one, so that one segment is brought whole and one is cut.
    let point = RestorePoint::Commit(report.last_sequence);
    for path in files(&to) {
        let sound = fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        // Another file, not other bytes in this one: the store has the same one.
        fs::remove_file(&path).unwrap();
        for damaged in [Some(&flipped[..]), Some(&sound[..sound.len() - 1]), None] {
            if let Some(damaged) = damaged {
                fs::write(&path, damaged).unwrap();
            }
            let target = dir.path().join("restored");
            let error = bring_back(&to, &target, point).unwrap_err();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(name), "{name}: {error}");
            assert!(!target.exists());
            fs::remove_dir_all(dir.path().join("restored.restoring")).or_else(if_missing).unwrap();
            fs::remove_file(&path).or_else(if_missing).unwrap();
        }
        fs::write(&path, &sound).unwrap();
    }
    bring_back(&to, &dir.path().join("sound"), point).unwrap();
}

fn if_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn a_point_out_of_reach_is_refused_with_what_is_possible() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let report = backup(&some_store(&data), &to).unwrap();
    let target = dir.path().join("restored");
    let last = report.last_sequence;
    let time = report.restorable[0].time_max_ms + 1;
    for point in
        [RestorePoint::Commit(0), RestorePoint::Commit(last + 1), RestorePoint::Time(time), RestorePoint::Time(0)]
    {
        let error = bring_back(&to, &target, point).unwrap_err();
        assert!(matches!(error, RestoreError::OutOfReach { .. }), "{error}");
        assert!(error.to_string().contains(&format!("to {last} (")), "{error}");
    }
    assert!(!target.exists());
}

#[test]
fn a_restore_touches_nothing_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    assert!(matches!(bring_back(&to, &data, RestorePoint::Latest), Err(RestoreError::NotABackup { .. })));
    backup(&store, &to).unwrap();
    assert!(matches!(bring_back(&to, &data, RestorePoint::Latest), Err(RestoreError::NotEmpty { .. })));
    let target = dir.path().join("restored");
    fs::create_dir(&target).unwrap();
    bring_back(&to, &target, RestorePoint::Latest).unwrap();
    let unfinished = dir.path().join("other");
    drop(restore(&to, &unfinished, RestorePoint::Latest, small(), &mut |_| true).unwrap());
    assert!(!unfinished.exists());
    assert!(matches!(bring_back(&to, &unfinished, RestorePoint::Latest), Err(RestoreError::Unfinished { .. })));
    // What is written to the restored store stays out of the backup, and of the store.
    let restored = open(&target);
    restored.commit(appends(vec![append(P, 6, 1, 10, 0)])).unwrap();
    drop(restored);
    assert_eq!(store.partition(P).unwrap().high_watermark, Offset(6));
    bring_back(&to, &dir.path().join("again"), RestorePoint::Latest).unwrap();
}

#[test]
fn a_directory_that_holds_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    assert!(matches!(backup(&store, &data), Err(BackupError::InUse { .. })));
    let other = open(&dir.path().join("other"));
    backup(&other, &to).unwrap();
    assert!(matches!(backup(&store, &to), Err(BackupError::OtherStore { .. })));
    drop(other);
    assert!(matches!(backup(&store, &dir.path().join("other")), Err(BackupError::NotABackup { .. })));
    let unrelated = dir.path().join("unrelated");
    fs::create_dir_all(unrelated.join("segments")).unwrap();
    fs::write(unrelated.join("segments/mine.txt"), "mine").unwrap();
    assert!(matches!(backup(&store, &unrelated), Err(BackupError::NotABackup { .. })));
    assert_eq!(fs::read(unrelated.join("segments/mine.txt")).unwrap(), b"mine");
}

#[test]
fn two_histories_of_a_store_are_not_mixed_in_one_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let first = backup(&store, &to).unwrap().last_sequence;
    for value in ["a", "b"] {
        store.commit(Commit { state: vec![set(StateTable::Catalog, "k", value)], ..Commit::default() }).unwrap();
    }
    backup(&store, &to).unwrap();
    // At the end of a segment, and within one.
    for commit in [first, first + 1] {
        let target = dir.path().join(format!("restored-{commit}"));
        bring_back(&to, &target, RestorePoint::Commit(commit)).unwrap();
        let restored = open(&target);
        assert_eq!(restored.store_id(), store.store_id());
        restored.commit(appends(vec![append(P, 6, 1, 10, 0)])).unwrap();
        store.commit(Commit { state: vec![set(StateTable::Catalog, "k", "v")], ..Commit::default() }).unwrap();
        backup(&store, &to).unwrap();
        assert!(matches!(backup(&restored, &to), Err(BackupError::OtherHistory { .. })));
        backup(&restored, &dir.path().join(format!("backup-{commit}"))).unwrap();
    }
}

#[test]
fn what_an_interrupted_backup_left_is_removed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    fs::create_dir_all(to.join("segments")).unwrap();
    fs::create_dir_all(to.join("snapshots")).unwrap();
    let left = [
        "segments/0000000001-0000000001.redb",
        "segments/0000000001-0000000001.index.new",
        "snapshots/0000000000.redb.new",
        "backup.manifest.new",
    ];
    left.iter().for_each(|name| fs::write(to.join(name), "half").unwrap());
    backup(&store, &to).unwrap();
    assert!(files(&to).iter().all(|path| !path.to_string_lossy().ends_with(".new")));
    bring_back(&to, &dir.path().join("restored"), RestorePoint::Latest).unwrap();
}

/// A file system without links.
#[derive(Debug)]
struct NoLinks;

impl FileSystem for NoLinks {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        HostFileSystem.create_dir_all(dir)
    }
    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        HostFileSystem.lock_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        HostFileSystem.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StoreFile>> {
        HostFileSystem.open(path, mode)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HostFileSystem.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFileSystem.rename(from, to)
    }
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::CrossesDevices.into())
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        HostFileSystem.space(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        HostFileSystem.sync_dir(dir)
    }
}

#[test]
fn files_are_copied_where_they_cannot_be_linked() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    drop(some_store(&data));
    let options = StoreOptions { file_system: Arc::new(NoLinks), ..small() };
    let store = Store::open(&data, options.clone()).unwrap();
    let report = backup(&store, &to).unwrap();
    assert!(!report.linked);
    drop(store);
    fs::remove_dir_all(&data).unwrap();
    let restored = restore(&to, &data, RestorePoint::Latest, options, &mut |_| true).unwrap();
    assert!(!restored.finish().unwrap().linked);
    assert_eq!(read_all(&open(&data), P, 0, 1 << 20).len(), 6);
}

#[test]
fn an_empty_store_comes_back_with_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = open(&data);
    backup(&store, &to).unwrap();
    let target = dir.path().join("restored");
    bring_back(&to, &target, RestorePoint::Latest).unwrap();
    let restored = open(&target);
    assert_eq!(restored.store_id(), store.store_id());
    assert_eq!(restored.partition_id_next(), PartitionId(0));
}

#[test]
fn progress_ends_where_it_said_it_would() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let (mut seen, mut back) = (Vec::new(), Vec::new());
    let mut note = |now| {
        seen.push(now);
        true
    };
    store.backup(&to, None, &mut |_| Ok(()), &mut note).unwrap();
    let mut note = |now| {
        back.push(now);
        true
    };
    restore(&to, &dir.path().join("restored"), RestorePoint::Latest, small(), &mut note).unwrap().finish().unwrap();
    for seen in [seen, back] {
        assert!(seen.is_sorted_by_key(|now| (now.files_done, now.bytes_done)));
        let last = seen.last().unwrap();
        assert_eq!((last.files_done, last.bytes_done), (last.files_total, last.bytes_total));
    }
}

#[test]
fn a_backup_that_is_stopped_or_fails_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("backup"));
    let store = some_store(&data);
    let before = backup(&store, &to).unwrap();
    store.commit(appends(vec![append(P, 6, 1, 10, 0)])).unwrap();
    let stopped = store.backup(&to, None, &mut |_| Ok(()), &mut |_| false);
    assert!(matches!(stopped, Err(BackupError::Io { .. })), "{stopped:?}");
    let mut calls = 0;
    let mut beside = |_: &Path| {
        calls += 1;
        if calls == 2 { Err(io::Error::other("no")) } else { Ok(()) }
    };
    let failed = store.backup(&to, None, &mut beside, &mut |_| true);
    assert!(matches!(failed, Err(BackupError::Beside(_))), "{failed:?}");
    let restored = bring_back(&to, &dir.path().join("restored"), RestorePoint::Latest).unwrap();
    assert_eq!(restored.commit, before.last_sequence);
    assert_eq!(backup(&store, &to).unwrap().last_sequence, before.last_sequence + 1);
}

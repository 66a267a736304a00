//! Damage and failing disks: nothing wrong is ever served, nothing acknowledged is lost, nothing is written after a
//! failure.

mod common;

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use common::*;
use protocol::Offset;
use storage::{
    Commit, CommitError, DirLock, FileEntry, FileSystem, Health, HostFileSystem, OpenError, OpenMode, ReadError, Space,
    StateTable, Store, StoreFile, StoreOptions,
};

/// Nothing in memory, so that every read is from disk.
fn no_tail() -> StoreOptions {
    StoreOptions { tail_bytes_max: 0, ..small() }
}

#[test]
fn flipped_bytes_are_detected_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for offset in 0..20 {
        // Small ones ride with the commit record, large ones have parts of their own.
        let bytes = if offset % 2 == 0 { 150_000 } else { 500 };
        store.commit(appends(vec![append(P, offset, 1, bytes, 0)])).unwrap();
    }
    let expected = plain(&read_all(&store, P, 0, 1));
    drop(store);
    let file = dir.path().join("segments/0000000001.redb");
    let clean = fs::read(&file).unwrap();
    let parts: Vec<usize> = (0..clean.len() - 4).filter(|at| &clean[*at..*at + 4] == b"wprt").collect();
    assert!(parts.len() > 10);
    let mut detected = 0;
    for (round, part) in parts.iter().enumerate() {
        // The part's place, its checksums, the first batch's header, the first bytes of its records.
        let at = part + [5, 9, 17, 33, 50, 64, 68, 90, 130, 140][round % 10];
        let mut flipped = clean.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped).unwrap();
        // A commit record of the active segment that does not hold together is found at once.
        let Ok(store) = Store::open(dir.path(), no_tail()) else {
            detected += 1;
            continue;
        };
        for (offset, batch) in &expected {
            match store.read(P, Offset(*offset), 1) {
                Ok(outcome) => assert_eq!(&outcome.batches[0], batch),
                Err(ReadError::Damaged { .. }) => detected += 1,
                Err(error) => panic!("{error}"),
            }
        }
        drop(store);
        fs::remove_dir_all(dir.path().join("segments")).unwrap();
        fs::create_dir(dir.path().join("segments")).unwrap();
    }
    assert!(detected > parts.len() / 3, "{detected} of {}", parts.len());
}

#[test]
fn damage_beside_a_commits_record_keeps_its_own_records_from_readers_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for offset in 0..6 {
        store.commit(appends(vec![append(P, offset, 1, 2_000, 0)])).unwrap();
    }
    let expected = plain(&read_all(&store, P, 0, 1));
    drop(store);
    let file = dir.path().join("segments/0000000001.redb");
    let clean = fs::read(&file).unwrap();
    // Small batches ride with the records, which the last segment is opened by.
    let (_, batch) = &expected[3];
    let mut flipped = clean.clone();
    for at in clean.windows(batch.len()).enumerate().filter(|(_, window)| *window == &batch[..]).map(|(at, _)| at) {
        flipped[at + 700] ^= 4;
    }
    fs::write(&file, &flipped).unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    for (offset, batch) in &expected {
        match store.read(P, Offset(*offset), 1) {
            Ok(outcome) => assert!(*offset != 3 && outcome.batches[0] == *batch),
            Err(error) => assert!(*offset == 3 && matches!(error, ReadError::Damaged { .. }), "{error}"),
        }
    }
    // Nor does a reader that asks for more than is sound go without what is.
    let outcome = store.read(P, Offset(0), 1 << 20).unwrap();
    assert_eq!((outcome.batches.len(), outcome.next_offset), (3, Offset(3)));
    assert_eq!(store.read(P, Offset(4), 1 << 20).unwrap().next_offset, Offset(6));
}

/// redb takes the commit before the last for the last where any page around that one is damaged.
#[test]
fn a_last_commit_of_which_every_byte_is_there_is_not_lost_by_damage_beside_it() {
    const PAGE: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), no_tail()).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for offset in 0..6 {
        store.commit(appends(vec![append(P, offset, 1, 20_000, 0)])).unwrap();
    }
    // As a broker leaves it that is killed.
    let left = files(dir.path());
    drop(store);
    let (segment, clean) = left.iter().find(|(path, _)| path.ends_with("0000000001.redb")).unwrap();
    let parts = (0..clean.len() - 64).filter(|at| &clean[*at..*at + 4] == b"wprt").map(|at| {
        let body = u32::from_le_bytes(clean[at + 48..at + 52].try_into().unwrap());
        at..at + 64 + body as usize
    });
    let parts: Vec<_> = parts.collect();
    let mut opened = 0;
    for page in (0..clean.len() / PAGE).map(|page| page * PAGE..(page + 1) * PAGE) {
        // What is in a part is its own.
        let is_tree = !parts.iter().any(|part| part.start < page.end && page.start < part.end);
        let copy = tempfile::tempdir().unwrap();
        for (path, bytes) in &left {
            let mut bytes = bytes.clone();
            if path == segment && is_tree {
                bytes[page.start + 20] ^= 4;
            }
            let path = copy.path().join(path.strip_prefix(dir.path()).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        // What redb cannot use at all is refused.
        let Ok(store) = Store::open(copy.path(), no_tail()) else { continue };
        opened += 1;
        let end = store.partition(P).unwrap().high_watermark;
        assert_eq!(end, Offset(6), "a bit of the page at {} takes the last commit with it", page.start);
    }
    assert!(opened > 10, "{opened}");
}

/// The host's disk, until it fails.
#[derive(Debug, Default)]
struct Failing {
    syncs_fail: AtomicBool,
    writes_fail: AtomicBool,
    names_fail: AtomicBool,
    full: AtomicBool,
    writes_after_failure: AtomicU64,
}

#[derive(Debug, Clone)]
struct FailingDisk(Arc<Failing>);

#[derive(Debug)]
struct FailingFile {
    disk: Arc<Failing>,
    failed: AtomicBool,
    file: Arc<dyn StoreFile>,
}

impl FileSystem for FailingDisk {
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
        let file = HostFileSystem.open(path, mode)?;
        Ok(Arc::new(FailingFile { disk: self.0.clone(), failed: AtomicBool::new(false), file }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        HostFileSystem.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFileSystem.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostFileSystem.link(from, to)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        HostFileSystem.space(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.0.names_fail.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the disk failed")),
            false => HostFileSystem.sync_dir(dir),
        }
    }
}

impl FailingFile {
    fn check(&self, fails: &AtomicBool) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            self.disk.writes_after_failure.fetch_add(1, Ordering::SeqCst);
        }
        if fails.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("the disk failed"));
        }
        Ok(())
    }
}

impl StoreFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(&self.disk.writes_fail)?;
        self.file.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(&self.disk.writes_fail)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check(&self.disk.syncs_fail)?;
        self.file.sync_data()
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.disk.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(offset, bytes)
    }
    fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.release(offset, bytes)
    }
}

/// Six records, of which the last commits are in the first segment.
fn with_six_records(dir: &Path, disk: &Arc<Failing>) -> Store {
    let file_system = Arc::new(FailingDisk(disk.clone()));
    let options = StoreOptions { file_system, segment_bytes_max: 64 << 20, ..no_tail() };
    let store = Store::open(dir, options).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    for offset in 0..6 {
        let state = vec![set(StateTable::GroupOffsets, &format!("before {offset}"), "x")];
        store.commit(Commit { state, ..appends(vec![append(P, offset, 1, 100_000, 0)]) }).unwrap();
    }
    store
}

/// Commits as a producer does: again and again as long as it is told to.
fn commit_in_the_end(store: &Store, offset: u64) {
    for _ in 0..400 {
        match store.commit(appends(vec![append(P, offset, 1, 10, 0)])) {
            Ok(_) => return,
            Err(CommitError::ReadOnly { .. }) => std::thread::sleep(std::time::Duration::from_millis(25)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store did not come back");
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not come to pass");
}

#[test]
fn after_a_failure_its_file_is_left_alone_and_the_store_goes_on_in_another() {
    let faults: [fn(&Failing) -> &AtomicBool; 2] = [|disk| &disk.syncs_fail, |disk| &disk.writes_fail];
    for fails in faults {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Failing::default());
        let store = with_six_records(dir.path(), &disk);
        fails(&disk).store(true, Ordering::SeqCst);
        let failed = store.commit(appends(vec![append(P, 6, 1, 1_500_000, 0)]));
        assert!(matches!(failed, Err(CommitError::Failed { .. })), "{failed:?}");
        let refused = store.commit(appends(vec![append(P, 6, 1, 10, 0)]));
        assert!(matches!(refused, Err(CommitError::ReadOnly { .. })), "{refused:?}");
        let health = store.stats().health;
        assert!(matches!(health, Health::ReadOnly { .. }) && !health.takes_appends(), "{health:?}");
        assert_eq!(store.partition(P).unwrap().high_watermark, Offset(6));
        assert_eq!(read_all(&store, P, 0, 1).len(), 6);
        // The state is applied behind the log, and fails by itself.
        wait_until(|| store.stats().state_failure.is_some());
        assert_eq!(store.state_scan(StateTable::GroupOffsets, b"before").unwrap().len(), 6);
        let failed_file = dir.path().join("segments/0000000001.redb");
        let before = fs::read(&failed_file).unwrap();

        fails(&disk).store(false, Ordering::SeqCst);
        commit_in_the_end(&store, 6);
        assert_eq!(store.stats().health, Health::Healthy);
        wait_until(|| store.stats().state_failure.is_none());
        assert_eq!(store.state_scan(StateTable::GroupOffsets, b"before").unwrap().len(), 6);
        assert_eq!(read_all(&store, P, 0, 1).len(), 7);
        drop(store);
        assert_eq!(disk.writes_after_failure.load(Ordering::SeqCst), 0);

        // The failed commit never happened, though all of it may have reached the file, which stays as it is. Nor does
        // it when the file's index is lost, and everything is looked up again.
        for _ in 0..2 {
            let store = Store::open(dir.path(), no_tail()).unwrap();
            assert_eq!(read_all(&store, P, 0, 1).len(), 7);
            drop(store);
            assert!(fs::read(&failed_file).unwrap() == before);
            fs::remove_file(dir.path().join("segments/0000000001.index")).unwrap();
        }
    }
}

#[test]
fn a_full_disk_refuses_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let store = with_six_records(dir.path(), &disk);
    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = store.commit(appends(vec![append(P, 6, 1, 1_500_000, 0)]));
        assert!(matches!(refused, Err(CommitError::Full { .. })), "{refused:?}");
        assert!(matches!(store.stats().health, Health::Full { .. }));
    }
    assert_eq!(read_all(&store, P, 0, 1).len(), 6);
    disk.full.store(false, Ordering::SeqCst);
    store.commit(appends(vec![append(P, 6, 1, 1_500_000, 0)])).unwrap();
    assert_eq!(store.stats().segments, 1);
}

/// Copies a store that is open: what a killed process leaves.
fn copy_of_killed(dir: &Path, to: &Path) {
    fs::create_dir(to.join("segments")).unwrap();
    for name in ["", "segments"] {
        for entry in fs::read_dir(dir.join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, to.join(name).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn what_a_killed_process_left_is_synced_before_it_is_believed() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = with_six_records(dir.path(), &Arc::default());
    copy_of_killed(dir.path(), copy.path());
    drop(store);
    let disk = Arc::new(Failing::default());
    disk.syncs_fail.store(true, Ordering::SeqCst);
    let options = || StoreOptions { file_system: Arc::new(FailingDisk(disk.clone())), ..no_tail() };
    match Store::open(copy.path(), options()) {
        Err(OpenError::Io { action: "sync", file, .. }) => assert!(file.ends_with("0000000001.redb"), "{file}"),
        other => panic!("{other:?}"),
    }
    disk.syncs_fail.store(false, Ordering::SeqCst);
    assert_eq!(read_all(&Store::open(copy.path(), options()).unwrap(), P, 0, 1).len(), 6);
}

#[test]
fn a_segment_does_not_grow_once_a_next_one_may_say_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let store = with_six_records(dir.path(), &disk);
    disk.names_fail.store(true, Ordering::SeqCst);
    assert!(store.roll().is_err());
    // The next segment's file is there, though nobody knows for how long.
    let refused = store.commit(appends(vec![append(P, 6, 1, 10, 0)]));
    assert!(matches!(refused, Err(CommitError::ReadOnly { .. })), "{refused:?}");
    disk.names_fail.store(false, Ordering::SeqCst);
    commit_in_the_end(&store, 6);
    let copy = tempfile::tempdir().unwrap();
    copy_of_killed(dir.path(), copy.path());
    drop(store);
    for dir in [dir, copy] {
        assert_eq!(read_all(&Store::open(dir.path(), no_tail()).unwrap(), P, 0, 1).len(), 7);
    }
}

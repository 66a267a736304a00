//! One fault at the k-th call to the disk, for every k: whatever is acknowledged stays, what a reader was shown stays,
//! and the store takes commits again by itself.

mod common;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use common::*;
use protocol::Offset;
use storage::{
    Commit, CommitError, DirLock, FileEntry, FileSystem, HostFileSystem, OpenMode, Space, StateTable, Store, StoreFile,
    StoreOptions,
};

/// The host's disk, on which calls fail from the k-th on, so many of them.
#[derive(Debug)]
struct Faulty {
    calls_before: AtomicI64,
    faults: AtomicI64,
    kind: io::ErrorKind,
    hit: AtomicBool,
}

impl Faulty {
    fn call(&self) -> io::Result<()> {
        if self.calls_before.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        if self.faults.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Ok(());
        }
        self.hit.store(true, Ordering::SeqCst);
        Err(io::Error::new(self.kind, "a fault that was put there"))
    }
}

#[derive(Debug, Clone)]
struct FaultyDisk(Arc<Faulty>);

#[derive(Debug)]
struct FaultyFile(Arc<Faulty>, Arc<dyn StoreFile>);

impl FileSystem for FaultyDisk {
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
        self.0.call()?;
        Ok(Arc::new(FaultyFile(self.0.clone(), HostFileSystem.open(path, mode)?)))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.call()?;
        HostFileSystem.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.call()?;
        HostFileSystem.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.call()?;
        HostFileSystem.link(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.call()?;
        HostFileSystem.sync_dir(dir)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.call()?;
        HostFileSystem.space(dir)
    }
}

impl StoreFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.0.call()?;
        self.1.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.call()?;
        self.1.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.0.call() {
            // A write that fails has often done a part of its work.
            let _ = self.1.write_at(offset, &data[..data.len() / 2]);
            return Err(error);
        }
        self.1.write_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.call()?;
        self.1.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.call()?;
        self.1.sync_data()
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.call()?;
        self.1.allocate(offset, bytes)
    }
    fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.call()?;
        self.1.release(offset, bytes)
    }
}

/// What a careful client knows: what is there for certain, and how often it had to ask.
#[derive(Default)]
struct Client {
    batches: Vec<(u64, Bytes)>,
    next: u64,
}

impl Client {
    /// Appends a batch, as often as it takes. After an answer that leaves the outcome open it looks at the watermark, as the
    /// broker's duplicate check does.
    fn append(&mut self, store: &Store, bytes: usize) {
        for _ in 0..2_000 {
            let append = append(P, self.next, 1, bytes, 0);
            let batches = append.batches.clone().unwrap();
            let state = vec![set(StateTable::GroupOffsets, "next", &self.next.to_string())];
            let result = store.commit(Commit { state, ..appends(vec![append]) });
            let is_there = store.partition(P).unwrap().high_watermark > Offset(self.next);
            assert_eq!(result.is_ok(), is_there, "what is acknowledged is visible, and nothing else");
            match result {
                Ok(_) => {
                    self.batches.push((self.next, batches));
                    self.next += 1;
                    return;
                }
                Err(CommitError::Failed { .. } | CommitError::ReadOnly { .. } | CommitError::Full { .. }) => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the store did not come back");
    }

    fn check(&self, store: &Store) {
        assert!(plain(&read_all(store, P, 0, 1 << 20)) == self.batches, "{} records", self.batches.len());
        let next = store.state_get(StateTable::GroupOffsets, b"next").unwrap().unwrap();
        assert_eq!(next, Bytes::from((self.next - 1).to_string()));
    }
}

fn options(disk: &Arc<Faulty>) -> StoreOptions {
    StoreOptions {
        tail_bytes_max: 0,
        segment_bytes_max: 1 << 20,
        file_system: Arc::new(FaultyDisk(disk.clone())),
        ..small()
    }
}

/// Commits over several segments, with a round of the cleaner; `false` when the fault was never reached.
fn one_run(calls_before: i64, faults: i64, kind: io::ErrorKind) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty {
        calls_before: AtomicI64::new(i64::MAX),
        faults: AtomicI64::new(faults),
        kind,
        hit: AtomicBool::new(false),
    };
    let disk = Arc::new(faulty);
    let store = Store::open(dir.path(), options(&disk)).unwrap();
    store.commit(create(P, FOREVER)).unwrap();
    let mut client = Client::default();
    client.append(&store, 1_000);
    disk.calls_before.store(calls_before, Ordering::SeqCst);
    for round in 0..8 {
        client.append(&store, if round % 2 == 0 { 300_000 } else { 2_000 });
    }
    // A fault in here ends the round, no more.
    let _ = store.clean(0, &mut |_| true);
    client.append(&store, 10);
    let hit = disk.hit.load(Ordering::SeqCst);
    disk.faults.store(0, Ordering::SeqCst);
    client.append(&store, 10);
    client.check(&store);
    drop(store);
    let store =
        Store::open(dir.path(), StoreOptions { file_system: Arc::new(HostFileSystem), ..options(&disk) }).unwrap();
    client.check(&store);
    client.append(&store, 10);
    client.check(&store);
    hit
}

/// Every `step`-th call from `from` on, until a run has fewer calls.
fn sweep(from: i64, step: i64, faults: i64, kind: io::ErrorKind) {
    let mut calls_before = from;
    while one_run(calls_before, faults, kind) {
        calls_before += step;
    }
    assert!(calls_before > 60, "{calls_before} calls in a run");
}

#[test]
fn an_io_error_at_any_call_loses_nothing() {
    sweep(0, 8, 1, io::ErrorKind::Other);
}

#[test]
fn a_full_disk_at_any_call_loses_nothing() {
    sweep(1, 8, 1, io::ErrorKind::StorageFull);
}

#[test]
fn a_disk_that_fails_for_a_while_from_any_call_on_loses_nothing() {
    sweep(2, 25, 12, io::ErrorKind::Other);
}

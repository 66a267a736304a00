//! One file of the log: creation, the parts in it, and where its index is.
//!
//! Owns a segment's redb file from creation to unlinking. Only the committer writes to the active one, only the sealer
//! (`sealed`) to one that was left; a sealed or failed one is never written.
//!
//! ```text
//! creation: NNNNNNNNNN.redb.new, header committed -> renamed, directory synced -> active -> sealed -> unlinked
//!                                                                          \-> failed: read through an overlay
//! ```
//!
//! Locks, in this order: `source`, `index`. Neither is held while another module is called.
//!
//! Start at [`Segment`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use protocol::PartitionId;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    TableDefinition,
};

use crate::{
    StoreId,
    backend::{FileBackend, FileMeter, OverlayBackend},
    fault::Fault,
    file_system::{FileSystem, OpenMode, StoreFile},
    format::{FORMAT_KEY, FORMAT_TABLE, FileKind, FormatRow, RowPlace},
    index::{Extent, MemoryIndex, PartitionSpan},
    layout::{LOG_TABLE, PartPlace},
    record::{self, CommitRecord, SegmentHeader, SnapshotRow},
    sealed,
};

/// The table with the header at 0 and its snapshot from 1 on.
pub(crate) const HEADER_TABLE: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("header");

/// Sealed segments kept open. Each costs a file handle, some 10 KiB, and its share of the cache.
const OPEN_SEALED_MAX: usize = 8;

/// Suffix of a file that is being made; one that is found at start was never finished and is removed.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// What every segment of a store needs.
pub(crate) struct SegmentDir {
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    /// redb's cache for the active segment: twice the pages of the largest group, or they are written twice.
    pub(crate) active_cache_bytes: usize,
    /// redb's cache for all open sealed segments together.
    pub(crate) sealed_cache_bytes: usize,
    /// Sealed segments that are open, the last used at the back.
    pub(crate) open_sealed: Mutex<Vec<(u64, Arc<ReadOnlyDatabase>)>>,
}

impl SegmentDir {
    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:010}.redb"))
    }

    /// The id in a segment's file name.
    pub(crate) fn parse_name(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".redb")?;
        (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
    }

    fn sealed(&self, id: u64) -> Result<Arc<ReadOnlyDatabase>, Fault> {
        let mut open = self.open_sealed.lock();
        let db = match open.iter().position(|(open_id, _)| *open_id == id) {
            Some(at) => open.remove(at).1,
            None => {
                let path = self.path(id);
                let db = self.open_read_only(&path)?.ok_or_else(|| Fault::damaged(&path, "it was not closed"))?;
                Arc::new(db)
            }
        };
        open.push((id, db.clone()));
        if open.len() > OPEN_SEALED_MAX {
            open.remove(0);
        }
        Ok(db)
    }

    /// Opens a file without writing to it; `None` when it was not closed and needs a repair first.
    pub(crate) fn open_read_only(&self, path: &Path) -> Result<Option<ReadOnlyDatabase>, Fault> {
        let file = self.file_system.open(path, OpenMode::ReadOnly).map_err(|error| Fault::io(path, "open", error))?;
        let backend = FileBackend::new(file, Arc::default());
        let mut builder = Builder::new();
        builder.set_cache_size(self.sealed_cache_bytes / OPEN_SEALED_MAX);
        match builder.open_read_only_with_backend(backend) {
            Ok(db) => Ok(Some(db)),
            Err(DatabaseError::RepairAborted) => Ok(None),
            Err(error) => Err(Fault::redb(path, "open")(error)),
        }
    }

    /// Opens a file so that repairs and anything else redb writes stay in memory.
    pub(crate) fn open_overlay(&self, path: &Path) -> Result<Database, Fault> {
        let file = self.file_system.open(path, OpenMode::ReadOnly).map_err(|error| Fault::io(path, "open", error))?;
        let backend = OverlayBackend::new(file).map_err(|error| Fault::io(path, "open", error))?;
        let mut builder = Builder::new();
        builder.set_cache_size(self.sealed_cache_bytes / OPEN_SEALED_MAX);
        builder.create_with_backend(backend).map_err(Fault::redb(path, "open"))
    }

    /// Opens a file for writing, repairing it where it was not closed.
    pub(crate) fn open_writable(&self, path: &Path, disk_bytes: u64) -> Result<OpenFile, Fault> {
        let file = self.file_system.open(path, OpenMode::Existing).map_err(|error| Fault::io(path, "open", error))?;
        self.writable(path, file, FileMeter::starting_at(disk_bytes))
    }

    fn writable(&self, path: &Path, file: Arc<dyn StoreFile>, meter: FileMeter) -> Result<OpenFile, Fault> {
        let meter = Arc::new(meter);
        let backend = FileBackend::new(file.clone(), meter.clone());
        let mut builder = Builder::new();
        builder.set_cache_size(self.active_cache_bytes);
        let db = builder.create_with_backend(backend).map_err(Fault::redb(path, "open"))?;
        Ok(OpenFile { db, file, meter })
    }
}

/// A file that is open for writing.
pub(crate) struct OpenFile {
    pub(crate) db: Database,
    pub(crate) file: Arc<dyn StoreFile>,
    pub(crate) meter: Arc<FileMeter>,
}

/// How a segment's file is read, and by whom it may be written.
pub(crate) enum Source {
    /// The active segment, or one that waits to be sealed.
    Writable(OpenFile),
    /// A file on which a write failed: redb's repairs stay in memory.
    Overlay(Database),
    /// Closed; opened on demand, read-only.
    Sealed,
}

/// Where the index is.
pub(crate) enum Index {
    Memory(MemoryIndex),
    /// In the file's own tables.
    Sealed,
}

/// One segment.
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) header: SegmentHeader,
    pub(crate) dir: Arc<SegmentDir>,
    pub(crate) path: PathBuf,
    source: RwLock<Source>,
    index: RwLock<Index>,
    last_sequence: AtomicU64,
    disk_bytes: AtomicU64,
    /// What it was found to hold at start, until the partitions are told.
    spans_found: Mutex<Vec<(PartitionId, PartitionSpan)>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Segment {
    /// A segment as it was found, or made.
    pub(crate) fn new(dir: Arc<SegmentDir>, header: SegmentHeader, source: Source, index: Index) -> Segment {
        let id = header.segment;
        let path = dir.path(id);
        Segment {
            id,
            path,
            dir,
            source: RwLock::new(source),
            index: RwLock::new(index),
            last_sequence: AtomicU64::new(header.first_sequence - 1),
            disk_bytes: AtomicU64::new(0),
            spans_found: Mutex::default(),
            header,
        }
    }

    /// Makes a new segment's file, durable with its header and snapshot before it has its name.
    pub(crate) fn create(
        dir: &Arc<SegmentDir>,
        header: SegmentHeader,
        snapshot: &[SnapshotRow],
    ) -> Result<Segment, Fault> {
        let path = dir.path(header.segment);
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", path.display()));
        let file_system = &dir.file_system;
        // What an attempt before left behind.
        if let Err(error) = file_system.remove(&new_path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Fault::io(&new_path, "remove", error));
        }
        let file = file_system.open(&new_path, OpenMode::New).map_err(|error| Fault::io(&path, "create", error))?;
        let open = dir.writable(&new_path, file, FileMeter::default())?;
        write_header(&open.db, dir.store, &path, &header, snapshot)?;
        file_system.rename(&new_path, &path).map_err(|error| Fault::io(&path, "name", error))?;
        file_system.sync_dir(&dir.dir).map_err(|error| Fault::io(&dir.dir, "sync", error))?;
        Ok(Segment::new(dir.clone(), header, Source::Writable(open), Index::Memory(MemoryIndex::default())))
    }

    /// Sequence of the last commit in it; one less than its first when there is none.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence.load(Ordering::Acquire)
    }

    pub(crate) fn set_last_sequence(&self, sequence: u64) {
        self.last_sequence.store(sequence, Ordering::Release);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last_sequence() < self.header.first_sequence
    }

    /// What its file takes of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        match &*self.source.read() {
            Source::Writable(open) => open.meter.disk_bytes(),
            Source::Overlay(_) | Source::Sealed => self.disk_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_disk_bytes(&self, bytes: u64) {
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether it is the active one, or waits to be sealed.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(*self.source.read(), Source::Writable(_))
    }

    /// Whether record batches were ever put into it while its index was in memory.
    pub(crate) fn held_records(&self) -> bool {
        self.memory_index(MemoryIndex::held_records).unwrap_or(true)
    }

    pub(crate) fn set_spans_found(&self, spans: Vec<(PartitionId, PartitionSpan)>) {
        *self.spans_found.lock() = spans;
    }

    pub(crate) fn take_spans_found(&self) -> Vec<(PartitionId, PartitionSpan)> {
        std::mem::take(&mut self.spans_found.lock())
    }

    /// Removes its file for good. Reads that have begun end as they would have.
    pub(crate) fn unlink(&self) -> Result<(), Fault> {
        self.dir.open_sealed.lock().retain(|(id, _)| *id != self.id);
        let file_system = &self.dir.file_system;
        file_system.remove(&self.path).map_err(|error| Fault::io(&self.path, "unlink", error))?;
        file_system.sync_dir(&self.dir.dir).map_err(|error| Fault::io(&self.dir.dir, "sync", error))
    }

    /// The place of a part of this segment.
    pub(crate) fn place(&self, sequence: u64, part: u16) -> PartPlace {
        PartPlace { store: self.dir.store, segment: self.id, epoch: self.header.epoch, sequence, part }
    }

    /// The place of a row of this segment.
    pub(crate) fn row_place<'a>(&self, table: &'a str, key: &'a [u8]) -> RowPlace<'a> {
        RowPlace { store: self.dir.store, file: self.id, table, key }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> Fault {
        Fault::damaged(&self.path, what)
    }

    /// Runs `write` on the file of the active segment.
    pub(crate) fn with_writable<R>(&self, write: impl FnOnce(&OpenFile) -> Result<R, Fault>) -> Result<R, Fault> {
        match &*self.source.read() {
            Source::Writable(open) => write(open),
            Source::Overlay(_) | Source::Sealed => Err(self.damaged("it is not open for writing")),
        }
    }

    /// Runs `read` on a snapshot of the file.
    pub(crate) fn with_read<R>(&self, read: impl FnOnce(&ReadTransaction) -> Result<R, Fault>) -> Result<R, Fault> {
        let source = self.source.read();
        let snapshot = match &*source {
            Source::Writable(open) => open.db.begin_read(),
            Source::Overlay(db) => db.begin_read(),
            Source::Sealed => self.dir.sealed(self.id)?.begin_read(),
        };
        read(&snapshot.map_err(Fault::redb(&self.path, "read"))?)
    }

    /// Takes over the file's further life: what it was is handed to `change`, which says what it is from now on.
    /// Readers wait meanwhile.
    pub(crate) fn change_source(
        &self,
        change: impl FnOnce(Source) -> (Source, Result<(), Fault>),
    ) -> Result<(), Fault> {
        let mut source = self.source.write();
        let (after, result) = change(std::mem::replace(&mut *source, Source::Sealed));
        *source = after;
        result
    }

    /// After a failed write or sync: never writes to the file again, and reads it through an overlay.
    pub(crate) fn abandon(&self) -> Result<(), Fault> {
        self.change_source(|source| {
            let Source::Writable(OpenFile { db, meter, .. }) = source else { return (source, Ok(())) };
            meter.freeze();
            self.set_disk_bytes(meter.disk_bytes());
            drop(db);
            match self.dir.open_overlay(&self.path) {
                Ok(db) => (Source::Overlay(db), Ok(())),
                Err(fault) => (Source::Sealed, Err(fault)),
            }
        })
    }

    /// Runs `f` on the index in memory; `None` when the segment is sealed.
    pub(crate) fn memory_index<R>(&self, f: impl FnOnce(&MemoryIndex) -> R) -> Option<R> {
        match &*self.index.read() {
            Index::Memory(index) => Some(f(index)),
            Index::Sealed => None,
        }
    }

    /// [`Segment::memory_index`], to change it.
    pub(crate) fn memory_index_mut<R>(&self, f: impl FnOnce(&mut MemoryIndex) -> R) -> Option<R> {
        match &mut *self.index.write() {
            Index::Memory(index) => Some(f(index)),
            Index::Sealed => None,
        }
    }

    /// Forgets the index in memory: the file's own serves from now on.
    pub(crate) fn set_index_sealed(&self) {
        *self.index.write() = Index::Sealed;
    }

    /// The extents of a partition from the one that covers `from` on, until they hold `bytes_max`.
    pub(crate) fn extents_from(
        &self,
        partition: PartitionId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Extent>, Fault> {
        let mut bytes = 0;
        let more = |extent: &Extent| {
            bytes += extent.bytes();
            bytes < bytes_max as u64
        };
        let extents = self.memory_index(|index| index.extents_from(partition, from, more));
        extents.map_or_else(|| sealed::extents_from(self, partition, from, bytes_max), Ok)
    }

    /// The first extent that reaches past `from` and has a timestamp at or after `timestamp_ms`.
    pub(crate) fn extent_at_time(
        &self,
        partition: PartitionId,
        from: u64,
        timestamp_ms: i64,
    ) -> Result<Option<Extent>, Fault> {
        let found = self.memory_index(|index| index.extent_at_time(partition, from, timestamp_ms));
        found.map_or_else(|| sealed::extent_at_time(self, partition, from, timestamp_ms), Ok)
    }

    /// The bytes of some extents, each whole and checked.
    pub(crate) fn read_extents(&self, extents: &[Extent]) -> Result<Vec<Bytes>, Fault> {
        self.with_read(|snapshot| {
            let log = self.open_log(snapshot)?;
            extents.iter().map(|extent| self.read_extent(&log, extent)).collect()
        })
    }

    fn read_extent(&self, log: &LogTable, extent: &Extent) -> Result<Bytes, Fault> {
        let mut bytes = BytesMut::with_capacity(extent.bytes() as usize);
        for piece in extent.pieces() {
            let part = self.part(log, extent.sequence, piece.part)?;
            let body = self.place(extent.sequence, piece.part).body(part.value()).map_err(|what| self.damaged(what))?;
            let start = piece.position as usize;
            let piece_bytes = body.get(start..start + piece.length as usize);
            let piece_bytes = piece_bytes.ok_or_else(|| self.damaged("a part is shorter than its index says"))?;
            if !piece.is(piece_bytes) {
                let place = format!("commit {}, part {}", extent.sequence, piece.part);
                return Err(self.damaged(format!("record batches have a wrong checksum ({place})")));
            }
            bytes.extend_from_slice(piece_bytes);
        }
        Ok(bytes.freeze())
    }

    fn part(
        &self,
        log: &LogTable,
        sequence: u64,
        part: u16,
    ) -> Result<redb::AccessGuard<'static, &'static [u8]>, Fault> {
        let found = log.get((sequence, part)).map_err(Fault::redb(&self.path, "read"))?;
        found.ok_or_else(|| self.damaged(format!("part {part} of commit {sequence} is missing")))
    }

    pub(crate) fn open_log(&self, snapshot: &ReadTransaction) -> Result<LogTable, Fault> {
        snapshot.open_table(LOG_TABLE).map_err(Fault::redb(&self.path, "read"))
    }

    /// The record of a commit, and where its small data begins; `None` when there is no such commit.
    pub(crate) fn commit_record(&self, log: &LogTable, sequence: u64) -> Result<Option<(CommitRecord, u32)>, Fault> {
        let Some(part) = log.get((sequence, 0)).map_err(Fault::redb(&self.path, "read"))? else { return Ok(None) };
        let body = self.place(sequence, 0).check_whole(part.value()).map_err(|what| self.damaged(what))?;
        let parsed = body.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_le_bytes(*length);
            let record = record::from_slice::<CommitRecord>(rest.get(..length as usize)?)?;
            Some((record, 4 + length))
        });
        parsed.map(Some).ok_or_else(|| self.damaged(format!("the record of commit {sequence} cannot be read")))
    }

    /// The snapshot of the small state in the header.
    pub(crate) fn snapshot(&self) -> Result<Vec<SnapshotRow>, Fault> {
        self.with_read(|snapshot| {
            let table = snapshot.open_table(HEADER_TABLE).map_err(Fault::redb(&self.path, "read"))?;
            let row = |number| read_header_row(&self.path, self.dir.store, self.id, &table, number);
            (1..=self.header.snapshot_rows).map(row).collect()
        })
    }
}

/// The log table of a snapshot.
pub(crate) type LogTable = ReadOnlyTable<(u64, u16), &'static [u8]>;

type HeaderTable = ReadOnlyTable<u32, &'static [u8]>;

fn write_header(
    db: &Database,
    store: StoreId,
    path: &Path,
    header: &SegmentHeader,
    snapshot: &[SnapshotRow],
) -> Result<(), Fault> {
    let transaction = db.begin_write().map_err(Fault::redb(path, "create"))?;
    {
        let mut format = transaction.open_table(FORMAT_TABLE).map_err(Fault::redb(path, "create"))?;
        let row = FormatRow { kind: FileKind::Segment }.encode();
        format.insert(FORMAT_KEY, row.as_slice()).map_err(Fault::redb(path, "create"))?;
        let mut table = transaction.open_table(HEADER_TABLE).map_err(Fault::redb(path, "create"))?;
        let rows = std::iter::once(record::to_vec(header)).chain(snapshot.iter().map(record::to_vec));
        for (number, body) in (0_u32..).zip(rows) {
            let key = number.to_be_bytes();
            let place = RowPlace { store, file: header.segment, table: "header", key: &key };
            table.insert(number, place.seal(&body).as_slice()).map_err(Fault::redb(path, "create"))?;
        }
        // The log is there from the start, so that reading an empty segment is no special case.
        transaction.open_table(LOG_TABLE).map_err(Fault::redb(path, "create"))?;
    }
    transaction.commit().map_err(Fault::redb(path, "create"))
}

/// Format and header of a file that is open in whatever way.
pub(crate) fn read_header(path: &Path, id: u64, snapshot: &ReadTransaction) -> Result<SegmentHeader, crate::OpenError> {
    let format = snapshot.open_table(FORMAT_TABLE).map_err(Fault::redb(path, "read"))?;
    FormatRow { kind: FileKind::Segment }.check(path, &format)?;
    let table = snapshot.open_table(HEADER_TABLE).map_err(Fault::redb(path, "read"))?;
    // Which store it belongs to is said by the row itself; the caller compares.
    let row = table.get(0).map_err(Fault::redb(path, "read"))?;
    let row = row.ok_or_else(|| Fault::damaged(path, "its header is missing"))?;
    let body = row.value().get(4..).ok_or_else(|| Fault::damaged(path, "its header is cut off"))?;
    let unread = || Fault::damaged(path, "its header cannot be read");
    let header: SegmentHeader = record::from_slice(body).ok_or_else(unread)?;
    let place = RowPlace { store: StoreId(header.store), file: id, table: "header", key: &0_u32.to_be_bytes() };
    if place.open(row.value()).is_none() || header.segment != id || header.first_sequence == 0 {
        return Err(Fault::damaged(path, "its header has a wrong checksum, or is another file's").into());
    }
    Ok(header)
}

fn read_header_row(
    path: &Path,
    store: StoreId,
    id: u64,
    table: &HeaderTable,
    number: u32,
) -> Result<SnapshotRow, Fault> {
    let row = table.get(number).map_err(Fault::redb(path, "read"))?;
    let row = row.ok_or_else(|| Fault::damaged(path, "a row of its snapshot is missing"))?;
    let key = number.to_be_bytes();
    let body = RowPlace { store, file: id, table: "header", key: &key }.open(row.value());
    let decoded = body.and_then(record::from_slice);
    decoded.ok_or_else(|| Fault::damaged(path, "a row of its snapshot has a wrong checksum"))
}

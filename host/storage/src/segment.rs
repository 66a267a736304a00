//! One file of the log: creation, the parts in it, and where its index is.
//!
//! Owns a segment's redb file, and its index file, from creation to unlinking. Only the active segment is written, by the
//! committer, through redb; what was left is closed and never written again, whatever is wrong with it. Records are read
//! by their position in the file, which needs no redb and so survives damage to its trees.
//!
//! ```text
//! creation: NNNNNNNNNN.redb.new, header committed -> renamed, directory synced -> active -> left -> sealed (.index) -> unlinked
//!                                                                                  \-> failed: left at once
//! ```
//!
//! Locks, in this order: `writer`, `data`. Neither is held while another module is called, but for `parts`.
//!
//! Start at [`Segment`].

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use protocol::PartitionId;
use redb::{Builder, Database};

use crate::{
    StoreId,
    backend::{FileBackend, FileMeter},
    buffers::Buffers,
    fault::{Fault, file_name},
    file_system::{FileSystem, OpenMode, StoreFile},
    format::{FORMAT_KEY, FORMAT_TABLE, FileKind, FormatRow},
    index::{Extent, MemoryIndex, PartitionSpan, Piece},
    index_file::{self, IndexFile, OpenedIndex},
    layout::{LOG_TABLE, PART_HEADER_BYTES, PartPlace},
    parts::{Locator, PartAt, PartMap, read_part, read_record},
    record::{self, CommitRecord, SegmentHeader, SnapshotRow},
    sync::{Mutex, RwLock},
};

/// Sealed segments whose files are kept open.
const OPEN_FILES_MAX: usize = 32;

/// Suffix of a file that is being made; one that is found at start was never finished and is removed.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// Read and checked at a time: what stays in a core's own cache between the two.
const READ_STEP_BYTES: usize = 128 << 10;

/// The position of a piece whose part was not found when the index was made.
pub(crate) const LOST: u64 = u64::MAX;

/// What every segment of a store needs.
pub(crate) struct SegmentDir {
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    /// redb's cache for the active segment: half of it takes the pages of the largest group, or they are written twice.
    pub(crate) active_cache_bytes: usize,
    /// Files of sealed segments that are open, the last used at the back.
    open: Mutex<Vec<OpenFiles>>,
    buffers: Arc<Buffers>,
}

/// The two files of a sealed segment.
#[derive(Clone)]
struct OpenFiles {
    segment: u64,
    epoch: u64,
    data: Arc<dyn StoreFile>,
    index: Arc<dyn StoreFile>,
}

impl SegmentDir {
    pub(crate) fn new(file_system: Arc<dyn FileSystem>, dir: &Path, store: StoreId, active_cache_bytes: usize) -> Self {
        SegmentDir {
            file_system,
            dir: dir.to_path_buf(),
            store,
            active_cache_bytes,
            open: Mutex::default(),
            buffers: Arc::default(),
        }
    }

    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:010}.redb"))
    }

    pub(crate) fn index_path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:010}.index"))
    }

    /// The id in a file's name, which ends so.
    pub(crate) fn parse_name(name: &str, suffix: &str) -> Option<u64> {
        let digits = name.strip_suffix(suffix)?;
        (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
    }

    pub(crate) fn open_to_read(&self, path: &Path) -> Result<Arc<dyn StoreFile>, Fault> {
        self.file_system.open(path, OpenMode::ReadOnly).map_err(|error| Fault::io(path, "open", error))
    }

    fn files(&self, segment: u64, epoch: u64) -> Result<OpenFiles, Fault> {
        let mut open = self.open.lock();
        let files = match open.iter().position(|files| (files.segment, files.epoch) == (segment, epoch)) {
            Some(at) => open.remove(at),
            None => OpenFiles {
                segment,
                epoch,
                data: self.open_to_read(&self.path(segment))?,
                index: self.open_to_read(&self.index_path(segment))?,
            },
        };
        open.push(files.clone());
        if open.len() > OPEN_FILES_MAX {
            open.remove(0);
        }
        Ok(files)
    }

    fn forget_files(&self, segment: u64, epoch: u64) {
        self.open.lock().retain(|files| (files.segment, files.epoch) != (segment, epoch));
    }

    /// Puts a whole file into the directory: durable before it has its name, and its name durable at return.
    pub(crate) fn put_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Fault> {
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", path.display()));
        remove_if_there(&*self.file_system, &new_path)?;
        let io = |action| move |error| Fault::io(path, action, error);
        let file = self.file_system.open(&new_path, OpenMode::New).map_err(io("create"))?;
        file.write_at(0, bytes).map_err(io("write"))?;
        file.sync_data().map_err(io("sync"))?;
        self.name_file(&new_path, path)
    }

    /// Gives a finished file its name, durably.
    pub(crate) fn name_file(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.file_system.rename(from, to).map_err(|error| Fault::io(to, "name", error))?;
        self.file_system.sync_dir(&self.dir).map_err(|error| Fault::io(&self.dir, "sync", error))
    }

    /// Makes a segment's file under another name than its own, with header and snapshot durable in it.
    pub(crate) fn begin_file(
        &self,
        new_path: &Path,
        header: &SegmentHeader,
        snapshot: &[SnapshotRow],
    ) -> Result<Writer, Fault> {
        remove_if_there(&*self.file_system, new_path)?;
        let file = self.file_system.open(new_path, OpenMode::New);
        let file = file.map_err(|error| Fault::io(new_path, "create", error))?;
        let meter = Arc::<FileMeter>::default();
        let locator = Arc::new(Locator::new(self.store, header.segment, header.epoch));
        let backend = FileBackend::new(file.clone(), meter.clone(), Some(locator.clone()));
        let mut builder = Builder::new();
        builder.set_cache_size(self.active_cache_bytes);
        let db = builder.create_with_backend(backend).map_err(Fault::redb(new_path, "create"))?;
        write_header(&db, new_path, self.store, header, snapshot)?;
        Ok(Writer { db, file, meter, locator })
    }
}

pub(crate) fn remove_if_there(file_system: &dyn FileSystem, path: &Path) -> Result<(), Fault> {
    match file_system.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::io(path, "remove", error)),
        _ => Ok(()),
    }
}

/// A file that is being written.
pub(crate) struct Writer {
    pub(crate) db: Database,
    pub(crate) file: Arc<dyn StoreFile>,
    pub(crate) meter: Arc<FileMeter>,
    pub(crate) locator: Arc<Locator>,
}

impl Writer {
    /// Ends writing for good; what the file takes of the disk. Everything committed is durable already, so a failure
    /// to close in order is only worth a line in the log.
    pub(crate) fn close(self, path: &Path) -> u64 {
        let Writer { db, file, meter, .. } = self;
        if let Err(error) = db.close() {
            tracing::warn!(%error, file = file_name(path), "a segment was not closed in order");
        }
        if let Err(error) = meter.release_unused(&*file) {
            tracing::warn!(%error, file = file_name(path), "blocks allocated ahead cannot be given back");
        }
        meter.disk_bytes()
    }
}

/// Why a segment was not made.
#[derive(Debug)]
pub(crate) enum NotCreated {
    /// There is nothing under its name.
    Unnamed(Fault),
    /// Its file may be there, now or after a power cut, with a header that says where the segment before ends: that one
    /// must not grow any more.
    MaybeNamed(Fault),
}

impl From<NotCreated> for Fault {
    fn from(not_created: NotCreated) -> Fault {
        let (NotCreated::Unnamed(fault) | NotCreated::MaybeNamed(fault)) = not_created;
        fault
    }
}

/// Where a segment's records are looked up.
enum Data {
    /// It is active, or was left and is not sealed yet.
    Memory { index: MemoryIndex, locator: Arc<Locator>, file: Arc<dyn StoreFile> },
    /// Its index is a file.
    Sealed(Arc<IndexFile>),
}

/// One segment.
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) header: SegmentHeader,
    pub(crate) dir: Arc<SegmentDir>,
    pub(crate) path: PathBuf,
    /// redb, as long as this is the active segment.
    writer: RwLock<Option<Writer>>,
    data: RwLock<Data>,
    /// Held while it is sealed.
    sealing: Mutex<()>,
    /// Its files, once another segment is to have their names.
    pinned: OnceLock<OpenFiles>,
    last_sequence: AtomicU64,
    disk_bytes: AtomicU64,
    /// Damage was found in it.
    spoilt: AtomicBool,
    /// What it was found to hold at start, until the partitions are told.
    spans_found: Mutex<Vec<(PartitionId, PartitionSpan)>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Segment {
    fn new(dir: Arc<SegmentDir>, header: SegmentHeader, writer: Option<Writer>, data: Data) -> Segment {
        let id = header.segment;
        let path = dir.path(id);
        Segment {
            id,
            path,
            dir,
            writer: RwLock::new(writer),
            data: RwLock::new(data),
            sealing: Mutex::default(),
            pinned: OnceLock::new(),
            last_sequence: AtomicU64::new(header.first_sequence - 1),
            disk_bytes: AtomicU64::new(0),
            spoilt: AtomicBool::new(false),
            spans_found: Mutex::default(),
            header,
        }
    }

    /// Makes a new segment's file, durable with its header and snapshot before it has its name.
    pub(crate) fn create(
        dir: &Arc<SegmentDir>,
        header: SegmentHeader,
        snapshot: &[SnapshotRow],
    ) -> Result<Segment, NotCreated> {
        let path = dir.path(header.segment);
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", path.display()));
        let writer = dir.begin_file(&new_path, &header, snapshot).map_err(NotCreated::Unnamed)?;
        dir.name_file(&new_path, &path).map_err(NotCreated::MaybeNamed)?;
        let (locator, file) = (writer.locator.clone(), writer.file.clone());
        let data = Data::Memory { index: MemoryIndex::default(), locator, file };
        Ok(Segment::new(dir.clone(), header, Some(writer), data))
    }

    /// A segment that the cleaner wrote. Its file has its name already, and nothing is written to it any more.
    pub(crate) fn rewritten(
        dir: &Arc<SegmentDir>,
        header: SegmentHeader,
        writer: Writer,
        index: MemoryIndex,
        last_sequence: u64,
    ) -> Segment {
        let (locator, file) = (writer.locator.clone(), writer.file.clone());
        let spans = index.spans();
        let segment = Segment::new(dir.clone(), header, Some(writer), Data::Memory { index, locator, file });
        segment.set_last_sequence(last_sequence);
        segment.set_spans_found(spans);
        segment
    }

    /// A segment whose index file was opened.
    pub(crate) fn sealed(dir: &Arc<SegmentDir>, opened: OpenedIndex, disk_bytes: u64) -> Segment {
        let OpenedIndex { header, last_sequence, spans, index, .. } = opened;
        let segment = Segment::new(dir.clone(), header, None, Data::Sealed(Arc::new(index)));
        segment.set_last_sequence(last_sequence);
        segment.disk_bytes.store(disk_bytes, Ordering::Relaxed);
        *segment.spans_found.lock() = spans;
        segment
    }

    /// A segment that was left without an index; its parts were found, and `index` made of its records.
    pub(crate) fn found(
        dir: &Arc<SegmentDir>,
        header: SegmentHeader,
        file: Arc<dyn StoreFile>,
        parts: PartMap,
        disk_bytes: u64,
    ) -> Segment {
        let locator = Locator::new(dir.store, header.segment, header.epoch);
        locator.found(parts);
        let data = Data::Memory { index: MemoryIndex::default(), locator: Arc::new(locator), file };
        let segment = Segment::new(dir.clone(), header, None, data);
        segment.disk_bytes.store(disk_bytes, Ordering::Relaxed);
        segment
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

    /// What its files take of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let written = self.writer.read().as_ref().map(|writer| writer.meter.disk_bytes());
        written.unwrap_or_else(|| self.disk_bytes.load(Ordering::Relaxed))
    }

    /// Whether its index is a file, and nothing of it is ever written again.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(*self.data.read(), Data::Sealed(_))
    }

    /// Whether a file, as errors name it, is one of its two.
    pub(crate) fn has_file(&self, file: &str) -> bool {
        file == file_name(&self.path) || file == file_name(&self.dir.index_path(self.id))
    }

    /// Whether damage was found in it, so that it is left as it is.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    pub(crate) fn set_spoilt(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
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

    /// Removes its files for good. Reads that have begun end as they would have.
    pub(crate) fn unlink(&self) -> Result<(), Fault> {
        self.dir.forget_files(self.id, self.header.epoch);
        // The index last: alone it is nobody's, and is removed at the next start.
        remove_if_there(&*self.dir.file_system, &self.path)?;
        remove_if_there(&*self.dir.file_system, &self.dir.index_path(self.id))?;
        self.dir.file_system.sync_dir(&self.dir.dir).map_err(|error| Fault::io(&self.dir.dir, "sync", error))
    }

    fn files(&self) -> Result<OpenFiles, Fault> {
        match self.pinned.get() {
            Some(files) => Ok(files.clone()),
            None => self.dir.files(self.id, self.header.epoch),
        }
    }

    /// Keeps the files open, so that readers are served whatever becomes of their names.
    pub(crate) fn pin_files(&self) -> Result<(), Fault> {
        let files = self.files()?;
        self.pinned.get_or_init(|| files);
        self.dir.forget_files(self.id, self.header.epoch);
        Ok(())
    }

    /// The place of a part of this segment.
    pub(crate) fn place(&self, sequence: u64, part: u16) -> PartPlace {
        PartPlace { store: self.dir.store, segment: self.id, epoch: self.header.epoch, sequence, part }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> Fault {
        Fault::damaged(&self.path, what)
    }

    /// Runs `write` on the file of the active segment.
    pub(crate) fn with_writer<R>(&self, write: impl FnOnce(&Writer) -> Result<R, Fault>) -> Result<R, Fault> {
        match &*self.writer.read() {
            Some(writer) => write(writer),
            None => Err(Fault::io(&self.path, "write to", std::io::Error::other("it was left"))),
        }
    }

    /// After a failed write or sync: never writes to the file again.
    pub(crate) fn abandon(&self) {
        if let Some(Writer { db, meter, .. }) = self.writer.write().take() {
            meter.freeze();
            self.disk_bytes.store(meter.disk_bytes(), Ordering::Relaxed);
            drop(db);
        }
    }

    /// Closes the file, writes the index file, and forgets the index in memory. Nothing happens to a sealed one.
    pub(crate) fn seal(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.sealing.lock();
        let writer = self.writer.write().take();
        if let Some(writer) = writer {
            self.disk_bytes.store(writer.close(&self.path), Ordering::Relaxed);
        }
        let Some(bytes) = self.encode_index() else { return Ok(()) };
        let path = self.dir.index_path(self.id);
        self.dir.put_file(&path, &bytes)?;
        let file = self.dir.open_to_read(&path)?;
        let opened = IndexFile::open(&path, self.id, &*file);
        let opened = opened.map_err(|error| Fault::damaged(&path, format!("it was just written: {error}")))?;
        self.disk_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        *self.data.write() = Data::Sealed(Arc::new(opened.index));
        Ok(())
    }

    fn encode_index(&self) -> Option<Vec<u8>> {
        let data = self.data.read();
        let Data::Memory { index, locator, .. } = &*data else { return None };
        let (parts, last_sequence) = (self.committed(locator.parts()), self.last_sequence());
        let position = |sequence, piece: &Piece| match parts.get(&(sequence, piece.part)) {
            Some(part) => part.position + PART_HEADER_BYTES as u64 + piece.position,
            None => {
                tracing::error!(file = file_name(&self.path), sequence, piece.part, "records are lost: no such part");
                LOST
            }
        };
        Some(index_file::encode(&self.header, last_sequence, index, &parts, position))
    }

    /// Without what was written and never committed.
    fn committed(&self, mut parts: PartMap) -> PartMap {
        parts.split_off(&(self.last_sequence() + 1, 0));
        parts
    }

    /// Runs `f` on the index in memory; `None` when the segment is sealed.
    pub(crate) fn memory_index<R>(&self, f: impl FnOnce(&MemoryIndex) -> R) -> Option<R> {
        match &*self.data.read() {
            Data::Memory { index, .. } => Some(f(index)),
            Data::Sealed(_) => None,
        }
    }

    /// [`Segment::memory_index`], to change it.
    pub(crate) fn memory_index_mut<R>(&self, f: impl FnOnce(&mut MemoryIndex) -> R) -> Option<R> {
        match &mut *self.data.write() {
            Data::Memory { index, .. } => Some(f(index)),
            Data::Sealed(_) => None,
        }
    }

    /// The extents of a partition from the one that covers `from` on, until they hold `bytes_max`; their pieces have
    /// positions within the file.
    pub(crate) fn extents_from(
        &self,
        partition: PartitionId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Extent>, Fault> {
        let index_file = match &*self.data.read() {
            Data::Memory { index, locator, .. } => {
                let mut bytes = 0;
                let more = |extent: &Extent| {
                    bytes += extent.bytes();
                    bytes < bytes_max as u64
                };
                let extents = index.extents_from(partition, from, more);
                return Ok(extents.into_iter().map(|extent| placed_now(locator, extent)).collect());
            }
            Data::Sealed(index_file) => index_file.clone(),
        };
        let files = self.files()?;
        index_file.extents_from(&*files.index, partition, from, bytes_max)
    }

    /// The first extent that reaches past `from` and has a timestamp at or after `timestamp_ms`.
    pub(crate) fn extent_at_time(
        &self,
        partition: PartitionId,
        from: u64,
        timestamp_ms: i64,
    ) -> Result<Option<Extent>, Fault> {
        let index_file = match &*self.data.read() {
            Data::Memory { index, locator, .. } => {
                let extent = index.extent_at_time(partition, from, timestamp_ms);
                return Ok(extent.map(|extent| placed_now(locator, extent)));
            }
            Data::Sealed(index_file) => index_file.clone(),
        };
        let files = self.files()?;
        index_file.extent_at_time(&*files.index, partition, from, timestamp_ms)
    }

    fn data_file(&self) -> Result<Arc<dyn StoreFile>, Fault> {
        if let Data::Memory { file, .. } = &*self.data.read() {
            return Ok(file.clone());
        }
        Ok(self.files()?.data)
    }

    /// The bytes of some extents, each whole and checked. Of a segment that is not sealed small ones may have moved since
    /// they were looked up: what is damaged then is looked up again by the caller.
    pub(crate) fn read_extents(&self, extents: &[Extent]) -> Result<Vec<Bytes>, Fault> {
        let file = self.data_file()?;
        extents.iter().map(|extent| self.read_extent(&*file, extent)).collect()
    }

    /// [`Segment::read_extents`], as far as they are sound: an error only where the first one is not.
    pub(crate) fn read_sound_extents(&self, extents: &[Extent]) -> Result<Vec<Bytes>, Fault> {
        let file = self.data_file()?;
        let mut runs = Vec::with_capacity(extents.len());
        for extent in extents {
            match self.read_extent(&*file, extent) {
                Ok(run) => runs.push(run),
                Err(fault) if runs.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(runs)
    }

    fn read_extent(&self, file: &dyn StoreFile, extent: &Extent) -> Result<Bytes, Fault> {
        let mut buffer = self.dir.buffers.take(extent.bytes() as usize);
        let mut rest = buffer.as_mut();
        for piece in extent.pieces() {
            let (out, after) = rest.split_at_mut(piece.length as usize);
            self.read_piece(file, extent.sequence, piece, out)?;
            rest = after;
        }
        Ok(buffer.freeze())
    }

    fn read_piece(&self, file: &dyn StoreFile, sequence: u64, piece: &Piece, out: &mut [u8]) -> Result<(), Fault> {
        let place = || format!("commit {sequence}, part {}", piece.part);
        if piece.position == LOST {
            return Err(self.damaged(format!("record batches were not found when it was indexed ({})", place())));
        }
        let (mut crc, mut position) = (piece.crc_before, piece.position);
        for step in out.chunks_mut(READ_STEP_BYTES) {
            file.read_at(position, step).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => self.damaged(format!("it is cut off ({})", place())),
                _ => Fault::io(&self.path, "read", error),
            })?;
            crc = crc32c::crc32c_append(crc, step);
            position += step.len() as u64;
        }
        if crc == piece.crc {
            return Ok(());
        }
        Err(self.damaged(format!("record batches have a wrong checksum ({})", place())))
    }

    /// Where every committed part lies.
    pub(crate) fn parts(&self) -> Result<PartMap, Fault> {
        let index_file = match &*self.data.read() {
            Data::Memory { locator, .. } => return Ok(self.committed(locator.parts())),
            Data::Sealed(index_file) => index_file.clone(),
        };
        index_file.parts(&*self.files()?.index)
    }

    /// Reads a part and checks every byte of it.
    pub(crate) fn check_part(&self, sequence: u64, part: u16, at: PartAt) -> Result<(), Fault> {
        read_part(&self.path, &*self.data_file()?, self.place(sequence, part), at).map(drop)
    }

    /// Reads and checks what its index file says of the nth partition, and how many bytes that took. `None` when there is
    /// no such partition, or no such file.
    pub(crate) fn check_index(&self, nth: usize) -> Result<Option<u64>, Fault> {
        let index_file = match &*self.data.read() {
            Data::Memory { .. } => return Ok(None),
            Data::Sealed(index_file) => index_file.clone(),
        };
        // Also where its files cannot be opened there are no more partitions than it has.
        if nth >= index_file.partitions() {
            return Ok(None);
        }
        index_file.check(&*self.files()?.index, nth)
    }

    /// Visits the records of the commits `from..=to` that it holds (with where their small data begins), in order.
    pub(crate) fn visit_records(
        &self,
        from: u64,
        to: u64,
        mut visit: impl FnMut(u64, CommitRecord, u64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (parts, file) = (self.parts()?, self.data_file()?);
        let mut expected = from.max(self.header.first_sequence);
        for (&(sequence, part), at) in parts.range((expected, 0)..) {
            if part != 0 || sequence > to {
                continue;
            }
            if sequence != expected && self.header.replaces_until.is_none() {
                return Err(self.damaged(format!("the record of commit {expected} is missing")));
            }
            expected = sequence + 1;
            let (record, inline_base) = read_record(&self.path, &*file, self.place(sequence, 0), *at)?;
            visit(sequence, record, inline_base)?;
        }
        if expected <= to.min(self.last_sequence()) && self.header.replaces_until.is_none() {
            return Err(self.damaged(format!("the record of commit {expected} is missing")));
        }
        Ok(())
    }

    /// The snapshot of the small state in the header.
    pub(crate) fn snapshot(&self) -> Result<Vec<SnapshotRow>, Fault> {
        let (parts, file) = (self.parts()?, self.data_file()?);
        let row = |number| {
            let unread = || self.damaged("a row of its snapshot is missing, or cannot be read");
            let at = parts.get(&(0, number)).ok_or_else(unread)?;
            record::from_slice(&read_part(&self.path, &*file, self.place(0, number), *at)?).ok_or_else(unread)
        };
        (1..=self.header.snapshot_rows).map(row).collect()
    }
}

/// An extent of an index in memory with its pieces' positions in the file, as they are just now.
fn placed_now(locator: &Locator, extent: Extent) -> Extent {
    let position = |piece: &Piece| {
        let part = locator.get(extent.sequence, piece.part);
        part.map_or(LOST, |part| part.position + PART_HEADER_BYTES as u64 + piece.position)
    };
    extent.placed(position)
}

/// The record in part 0 of a commit, and where its small data begins.
pub(crate) fn parse_record(body: &[u8]) -> Option<(CommitRecord, u64)> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let record = record::from_slice(rest.get(..length as usize)?)?;
    Some((record, 4 + u64::from(length)))
}

fn write_header(
    db: &Database,
    path: &Path,
    store: StoreId,
    header: &SegmentHeader,
    snapshot: &[SnapshotRow],
) -> Result<(), Fault> {
    let transaction = db.begin_write().map_err(Fault::redb(path, "create"))?;
    {
        let mut format = transaction.open_table(FORMAT_TABLE).map_err(Fault::redb(path, "create"))?;
        let row = FormatRow { kind: FileKind::Segment }.encode();
        format.insert(FORMAT_KEY, row.as_slice()).map_err(Fault::redb(path, "create"))?;
        let mut log = transaction.open_table(LOG_TABLE).map_err(Fault::redb(path, "create"))?;
        let rows = std::iter::once(record::to_vec(header)).chain(snapshot.iter().map(record::to_vec));
        for (number, body) in (0_u16..).zip(rows) {
            let place = PartPlace { store, segment: header.segment, epoch: header.epoch, sequence: 0, part: number };
            let part = place.part_of(&body);
            log.insert((0, number), part.as_slice()).map_err(Fault::redb(path, "create"))?;
        }
    }
    transaction.commit().map_err(Fault::redb(path, "create"))
}

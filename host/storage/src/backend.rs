//! What redb writes through: a file that is metered, allocated ahead, and written in few large pieces.
//!
//! Owns the translation between redb's `StorageBackend` and our [`StoreFile`]. [`FileBackend`] is for files of ours that
//! are sound; [`OverlayBackend`] is for looking at a file that must stay as it is (an unknown format, a segment that was
//! not closed): redb may repair it, in memory alone.
//!
//! Invariant: a byte that redb wrote is read back from here as written, whether or not it has reached the file; at the
//! end of `sync_data` everything has, and is durable.
//!
//! Start at [`FileBackend`].

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

use crate::{file_system::StoreFile, parts::Locator, sync::Mutex};

/// Writes at least this large go straight to the file; smaller ones wait for the sync and are merged with their
/// neighbours, so that the six or so tree pages of a commit are few calls. Copying larger ones would cost more than a call.
const MERGE_BYTES_MAX: usize = 32 << 10;

/// redb's page size: the unit in which pages are counted, and kept by the overlay.
const PAGE_BYTES: u64 = 4096;

/// What a file holds and has seen since it was opened.
///
/// redb's idea of a file's length says little: it doubles ahead, and one page soon lies at the far end. So pages are
/// counted as they are first written.
#[derive(Debug, Default)]
pub(crate) struct FileMeter {
    bytes_written: AtomicU64,
    /// What the file took of the disk when it was opened.
    bytes_before: AtomicU64,
    allocated_end: AtomicU64,
    frozen: AtomicBool,
    pages: Mutex<PageSet>,
}

/// The pages of a file that were written, one bit each: 8 KiB for a segment of 256 MiB.
#[derive(Debug, Default)]
struct PageSet {
    words: Vec<u64>,
    count: u64,
}

impl PageSet {
    fn insert(&mut self, pages: Range<u64>) {
        let words = pages.end.div_ceil(64) as usize;
        if words > self.words.len() {
            self.words.resize(words, 0);
        }
        for page in pages {
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            self.count += u64::from(self.words[word] & bit == 0);
            self.words[word] |= bit;
        }
    }

    fn contains(&self, page: u64) -> bool {
        self.words.get((page / 64) as usize).is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    fn truncate(&mut self, pages: u64) {
        for page in pages..self.words.len() as u64 * 64 {
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            self.count -= u64::from(self.words[word] & bit != 0);
            self.words[word] &= !bit;
        }
    }
}

impl FileMeter {
    /// Begins with a file that takes so much of the disk already.
    pub(crate) fn starting_at(bytes: u64) -> FileMeter {
        FileMeter { bytes_before: AtomicU64::new(bytes), allocated_end: AtomicU64::new(bytes), ..FileMeter::default() }
    }

    /// Bytes written, rewrites included.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// What the file really holds.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.bytes_before.load(Ordering::Relaxed) + self.pages.lock().count * PAGE_BYTES
    }

    /// What the file takes of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.used_bytes().max(self.allocated_end.load(Ordering::Relaxed))
    }

    /// By how much the file grows when there is to be room for `bytes` more, taken in steps. redb fills a file from its
    /// beginning, but for a page here and there.
    pub(crate) fn growth(&self, bytes: u64, step: u64) -> u64 {
        let wanted = self.used_bytes() + bytes;
        let allocated = self.allocated_end.load(Ordering::Relaxed);
        if wanted <= allocated || step == 0 { 0 } else { wanted.next_multiple_of(step) - allocated }
    }

    /// Takes disk blocks for `bytes` more, so that the disk is found full before a transaction and not in it.
    pub(crate) fn allocate_ahead(&self, file: &dyn StoreFile, bytes: u64, step: u64) -> io::Result<()> {
        let growth = self.growth(bytes, step);
        if growth > 0 {
            let allocated = self.allocated_end.load(Ordering::Relaxed);
            file.allocate(allocated, growth)?;
            self.allocated_end.store(allocated + growth, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back what was allocated and not written, once nothing is written any more. Not of a file that had
    /// something in it when it was opened: which pages those are is not known here.
    pub(crate) fn release_unused(&self, file: &dyn StoreFile) -> io::Result<()> {
        let allocated = self.allocated_end.load(Ordering::Relaxed) / PAGE_BYTES;
        if self.bytes_before.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        self.allocated_end.store(0, Ordering::Relaxed);
        // Holes are punched up to the end of a file only; setting its length frees what is allocated behind it.
        file.set_len(file.len()?)?;
        let pages = self.pages.lock();
        let mut page = 0;
        while page < allocated {
            let start = page;
            while page < allocated && !pages.contains(page) {
                page += 1;
            }
            if page > start {
                file.release(start * PAGE_BYTES, (page - start) * PAGE_BYTES)?;
            }
            page += 1;
        }
        Ok(())
    }

    /// Refuses every further write, whatever redb does on its way out.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    fn check_writable(&self) -> io::Result<()> {
        let frozen = self.frozen.load(Ordering::Acquire);
        if frozen { Err(io::Error::other("nothing is written after a failed write")) } else { Ok(()) }
    }

    fn count_write(&self, offset: u64, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
        let end = offset + bytes as u64;
        self.pages.lock().insert(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }
}

/// A file under redb.
#[derive(Debug)]
pub(crate) struct FileBackend {
    file: Arc<dyn StoreFile>,
    meter: Arc<FileMeter>,
    /// Told where the parts of a segment come to lie.
    locator: Option<Arc<Locator>>,
    /// Small writes since the last sync, by offset; they never overlap.
    pending: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl FileBackend {
    pub(crate) fn new(file: Arc<dyn StoreFile>, meter: Arc<FileMeter>, locator: Option<Arc<Locator>>) -> Self {
        FileBackend { file, meter, locator, pending: Mutex::default() }
    }

    fn write_through(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.meter.check_writable()?;
        self.meter.count_write(offset, data.len());
        self.file.write_at(offset, data)
    }

    /// Writes what waits, neighbours in one call. What fails is gone: redb latches the error and never asks again.
    fn flush(&self, pending: &mut BTreeMap<u64, Vec<u8>>) -> io::Result<()> {
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (offset, data) in std::mem::take(pending) {
            match &mut run {
                Some((start, bytes)) if *start + bytes.len() as u64 == offset => bytes.extend_from_slice(&data),
                _ => {
                    if let Some((start, bytes)) = run.replace((offset, data)) {
                        self.write_through(start, &bytes)?;
                    }
                }
            }
        }
        run.map_or(Ok(()), |(start, bytes)| self.write_through(start, &bytes))
    }

    fn flush_overlapping(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let mut pending = self.pending.lock();
        if overlaps(&pending, offset, bytes) { self.flush(&mut pending) } else { Ok(()) }
    }
}

/// Whether `[offset, offset + bytes)` touches a pending write. These are shorter than [`MERGE_BYTES_MAX`].
fn overlaps(pending: &BTreeMap<u64, Vec<u8>>, offset: u64, bytes: usize) -> bool {
    let from = offset.saturating_sub(MERGE_BYTES_MAX as u64);
    pending.range(from..offset + bytes as u64).any(|(start, data)| start + data.len() as u64 > offset)
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.flush_overlapping(offset, out.len())?;
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut pending = self.pending.lock();
        self.meter.check_writable()?;
        self.flush(&mut pending)?;
        self.file.set_len(len)?;
        self.meter.pages.lock().truncate(len.div_ceil(PAGE_BYTES));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.meter.check_writable()?;
        self.flush(&mut self.pending.lock())?;
        self.file.sync_data()?;
        if let Some(locator) = &self.locator {
            locator.publish();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(locator) = &self.locator {
            locator.note_write(offset, data);
        }
        let mut pending = self.pending.lock();
        let rewrite = pending.get(&offset).is_some_and(|before| before.len() == data.len());
        if !rewrite && overlaps(&pending, offset, data.len()) {
            self.flush(&mut pending)?;
        }
        if data.len() >= MERGE_BYTES_MAX {
            drop(pending);
            return self.write_through(offset, data);
        }
        pending.insert(offset, data.to_vec());
        Ok(())
    }
}

/// A file that is read and never written: what redb writes stays in memory.
#[derive(Debug)]
pub(crate) struct OverlayBackend {
    file: Arc<dyn StoreFile>,
    state: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    /// How much of the file still shows: cutting the file off hides what was behind, for good.
    file_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl OverlayBackend {
    pub(crate) fn new(file: Arc<dyn StoreFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(OverlayBackend { file, state: Mutex::new(Overlay { len, file_len: len, pages: BTreeMap::new() }) })
    }

    /// One page as it would be in the file.
    fn page(&self, overlay: &Overlay, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = overlay.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_BYTES as usize];
        let start = number * PAGE_BYTES;
        let in_file = overlay.file_len.saturating_sub(start).min(PAGE_BYTES) as usize;
        self.file.read_at(start, &mut page[..in_file])?;
        Ok(page)
    }
}

impl StorageBackend for OverlayBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let overlay = self.state.lock();
        let end = offset + out.len() as u64;
        if end > overlay.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let touched = overlay.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).next().is_some();
        if !touched && end <= overlay.file_len {
            return self.file.read_at(offset, out);
        }
        let mut at = offset;
        while at < end {
            let within = (at % PAGE_BYTES) as usize;
            let count = (PAGE_BYTES as usize - within).min((end - at) as usize);
            let page = self.page(&overlay, at / PAGE_BYTES)?;
            let to = (at - offset) as usize;
            out[to..to + count].copy_from_slice(&page[within..within + count]);
            at += count as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut overlay = self.state.lock();
        overlay.file_len = overlay.file_len.min(len);
        overlay.len = len;
        overlay.pages.split_off(&len.div_ceil(PAGE_BYTES));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut overlay = self.state.lock();
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let within = (at % PAGE_BYTES) as usize;
            let count = (PAGE_BYTES as usize - within).min((end - at) as usize);
            let mut page = self.page(&overlay, at / PAGE_BYTES)?;
            let from = (at - offset) as usize;
            page[within..within + count].copy_from_slice(&data[from..from + count]);
            overlay.pages.insert(at / PAGE_BYTES, page);
            at += count as u64;
        }
        overlay.len = overlay.len.max(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::file_system::{FileSystem, HostFileSystem, OpenMode};

    fn new_file(dir: &Path) -> Arc<dyn StoreFile> {
        let file = HostFileSystem.open(&dir.join("file"), OpenMode::New).unwrap();
        file.set_len(1 << 20).unwrap();
        file
    }

    #[test]
    fn a_pending_write_is_read_back_and_reaches_the_file_at_sync() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        let backend = FileBackend::new(file.clone(), Arc::default(), None);
        backend.write(4096, &[1; 4096]).unwrap();
        backend.write(8192, &[2; 4096]).unwrap();
        backend.write(8192, &[3; 4096]).unwrap();
        let mut out = [0; 2];
        backend.read(8191, &mut out).unwrap();
        assert_eq!(out, [1, 3]);
        backend.write(0, &[4; 4096]).unwrap();
        backend.write(0, &[5; 64 << 10]).unwrap();
        backend.sync_data().unwrap();
        let mut out = [0; 3];
        file.read_at((64 << 10) - 2, &mut out).unwrap();
        assert_eq!(out, [5, 5, 0]);
    }

    #[test]
    fn pages_are_counted_once_and_the_rest_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        let meter = Arc::<FileMeter>::default();
        let backend = FileBackend::new(file.clone(), meter.clone(), None);
        meter.allocate_ahead(&*file, 10, 1 << 20).unwrap();
        assert_eq!((meter.used_bytes(), meter.disk_bytes()), (0, 1 << 20));
        backend.write(8192, &[1; 4096]).unwrap();
        backend.write(8192, &[2; 4096]).unwrap();
        backend.sync_data().unwrap();
        backend.write(4096, &[3; 64 << 10]).unwrap();
        backend.write(900 << 10, &[4; 4096]).unwrap();
        backend.sync_data().unwrap();
        backend.set_len(512 << 10).unwrap();
        assert_eq!((meter.used_bytes(), meter.bytes_written()), (64 << 10, (64 << 10) + 2 * 4096));
        meter.release_unused(&*file).unwrap();
        assert_eq!(meter.disk_bytes(), 64 << 10);
        let on_disk = HostFileSystem.list(dir.path()).unwrap()[0].disk_bytes;
        assert!(on_disk <= 72 << 10, "{on_disk}");
        let mut out = [0; 2];
        file.read_at(68 << 10, &mut out).unwrap();
        assert_eq!(out, [0, 0]);
        file.read_at((68 << 10) - 2, &mut out).unwrap();
        assert_eq!(out, [3, 3]);
    }

    #[test]
    fn an_overlay_shows_what_was_written_and_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        file.write_at(0, &[7; 10_000]).unwrap();
        let overlay = OverlayBackend::new(file.clone()).unwrap();
        overlay.write(5_000, &[8; 5_000]).unwrap();
        overlay.set_len(9_000).unwrap();
        overlay.set_len(12_000).unwrap();
        let mut out = vec![0; 12_000];
        overlay.read(0, &mut out).unwrap();
        assert_eq!((out[4_999], out[5_000], out[8_999], out[11_999]), (7, 8, 8, 0));
        let mut out = vec![0; 10_000];
        file.read_at(0, &mut out).unwrap();
        assert_eq!(out, [7; 10_000]);
    }
}

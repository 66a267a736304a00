//! The reserve: blocks of the disk that are kept back, so that a full disk still takes what frees it.
//!
//! Owns the file `reserve` of the data directory, which is nothing but blocks. When appends are refused for want of
//! space it is given up, and its blocks are there for offset commits, deletes, the next segment's header and a
//! checkpoint of the state; when space returns it is taken again.
//!
//! Invariant: what [`Reserve::held_bytes`] says is held is really taken from the file system. Where that cannot allocate,
//! nothing is held, and the gauge asks for as much to be free instead.
//!
//! Start at [`Reserve::take`].

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{FileSystem, OpenMode};

/// Its name in the data directory.
pub(crate) const FILE_NAME: &str = "reserve";

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    held_bytes: u64,
    /// The size it was brought to. What is held then is a little more (whole blocks) or, where the file system cannot
    /// allocate, nothing.
    taken: Option<u64>,
}

impl Reserve {
    /// What an earlier run left of it in the data directory, if anything. Takes nothing.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn find(file_system: &dyn FileSystem, dir: &Path) -> io::Result<Reserve> {
        Ok(Reserve { dir: dir.to_owned(), held_bytes: on_disk(file_system, dir)?, taken: None })
    }

    /// Brings it to a size. Where it has that already, it looks at nothing: as often as one likes.
    ///
    /// # Errors
    /// When there is no room (it is given up then: half a reserve would only be in the way), or the disk fails.
    pub(crate) fn take(&mut self, file_system: &dyn FileSystem, bytes: u64) -> io::Result<()> {
        if self.taken == Some(bytes) {
            return Ok(());
        }
        if bytes == 0 {
            self.release(file_system)?;
            self.taken = Some(0);
            return Ok(());
        }
        match self.resize(file_system, bytes).and_then(|()| on_disk(file_system, &self.dir)) {
            Ok(held_bytes) => {
                self.held_bytes = held_bytes;
                self.taken = Some(bytes);
                Ok(())
            }
            Err(error) => {
                // Allocating takes what there is before it fails.
                let _ = self.release(file_system);
                Err(error)
            }
        }
    }

    /// Gives its blocks back to the file system.
    ///
    /// # Errors
    /// When the disk fails; it may be held still.
    pub(crate) fn release(&mut self, file_system: &dyn FileSystem) -> io::Result<()> {
        match file_system.remove(&self.path()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let held_bytes = std::mem::take(&mut self.held_bytes);
        self.taken = None;
        // File systems with a journal hand blocks out again only when their removal is durable.
        if held_bytes > 0 { file_system.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// What it takes of the disk.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn resize(&self, file_system: &dyn FileSystem, bytes: u64) -> io::Result<()> {
        let path = self.path();
        let file = match file_system.open(&path, OpenMode::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => file_system.open(&path, OpenMode::New)?,
            opened => opened?,
        };
        // The length cuts off what an earlier run held beyond it, and shows people what the file is for.
        file.set_len(bytes)?;
        file.allocate(0, bytes)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }
}

/// What the file takes of the disk.
fn on_disk(file_system: &dyn FileSystem, dir: &Path) -> io::Result<u64> {
    let files = file_system.list(dir)?;
    Ok(files.into_iter().find(|file| file.name == FILE_NAME).map_or(0, |file| file.disk_bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use tempfile::TempDir;

    use super::*;
    use crate::{DirLock, FileEntry, HostFileSystem, Space, StoreFile};

    const MIB: u64 = 1 << 20;

    /// A disk of its own size, on which other programs lie, too: the host's, seen through a smaller window.
    #[derive(Debug)]
    pub(crate) struct SmallDisk {
        pub(crate) dir: TempDir,
        total_bytes: u64,
        others_bytes: AtomicU64,
    }

    impl SmallDisk {
        pub(crate) fn new(total_bytes: u64) -> Arc<SmallDisk> {
            let dir = tempfile::tempdir().unwrap();
            Arc::new(SmallDisk { dir, total_bytes, others_bytes: AtomicU64::new(0) })
        }

        pub(crate) fn set_others(&self, bytes: u64) {
            self.others_bytes.store(bytes, Ordering::SeqCst);
        }

        pub(crate) fn available_bytes(&self) -> u64 {
            let own: u64 = HostFileSystem.list(self.dir.path()).unwrap().iter().map(|file| file.disk_bytes).sum();
            self.total_bytes.saturating_sub(own + self.others_bytes.load(Ordering::SeqCst))
        }

        pub(crate) fn reserve_bytes(&self) -> u64 {
            on_disk(&HostFileSystem, self.dir.path()).unwrap()
        }
    }

    /// A reference to the disk: files need one that lives on.
    #[derive(Debug, Clone)]
    pub(crate) struct SmallDiskRef(pub(crate) Arc<SmallDisk>);

    impl FileSystem for SmallDiskRef {
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
            Ok(Arc::new(SmallFile { disk: self.0.clone(), file: HostFileSystem.open(path, mode)? }))
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
        fn space(&self, _: &Path) -> io::Result<Space> {
            Ok(Space { total_bytes: self.0.total_bytes, available_bytes: self.0.available_bytes() })
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            HostFileSystem.sync_dir(dir)
        }
    }

    #[derive(Debug)]
    struct SmallFile {
        disk: Arc<SmallDisk>,
        file: Arc<dyn StoreFile>,
    }

    impl StoreFile for SmallFile {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read_at(offset, out)
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.file.write_at(offset, data)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }
        /// As real ones do, it takes what there is before it fails.
        fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
            let available = self.disk.available_bytes();
            self.file.allocate(offset, bytes.min(available))?;
            if available < bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
            self.file.release(offset, bytes)
        }
    }

    #[test]
    fn what_is_held_is_taken_from_the_disk_and_given_back() {
        let disk = SmallDisk::new(100 * MIB);
        let file_system = SmallDiskRef(disk.clone());
        let mut reserve = Reserve::find(&file_system, disk.dir.path()).unwrap();
        assert_eq!((reserve.held_bytes(), disk.reserve_bytes()), (0, 0));
        for _ in 0..2 {
            reserve.take(&file_system, 8 * MIB).unwrap();
            assert_eq!((reserve.held_bytes(), disk.reserve_bytes()), (8 * MIB, 8 * MIB));
        }
        for _ in 0..2 {
            reserve.release(&file_system).unwrap();
            assert_eq!((reserve.held_bytes(), disk.available_bytes()), (0, 100 * MIB));
        }
        reserve.take(&file_system, 8 * MIB).unwrap();
        assert_eq!(disk.reserve_bytes(), 8 * MIB);
    }

    #[test]
    fn what_an_earlier_run_holds_is_found_and_brought_to_its_size() {
        let disk = SmallDisk::new(100 * MIB);
        let file_system = SmallDiskRef(disk.clone());
        for bytes in [8 * MIB, 2 * MIB, 4 * MIB] {
            let mut reserve = Reserve::find(&file_system, disk.dir.path()).unwrap();
            assert_eq!(reserve.held_bytes(), disk.reserve_bytes());
            reserve.take(&file_system, bytes).unwrap();
            assert_eq!((reserve.held_bytes(), disk.reserve_bytes()), (bytes, bytes));
        }
    }

    #[test]
    fn half_a_reserve_is_none() {
        let disk = SmallDisk::new(100 * MIB);
        disk.set_others(96 * MIB);
        let file_system = SmallDiskRef(disk.clone());
        let mut reserve = Reserve::find(&file_system, disk.dir.path()).unwrap();
        let error = reserve.take(&file_system, 8 * MIB).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((reserve.held_bytes(), disk.available_bytes()), (0, 4 * MIB));
        disk.set_others(0);
        reserve.take(&file_system, 8 * MIB).unwrap();
        assert_eq!(reserve.held_bytes(), 8 * MIB);
    }
}

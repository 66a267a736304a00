//! The file-system seam: everything the crate asks of a disk, small enough to be simulated.
//!
//! Owns the real implementation, [`HostFileSystem`]. Never interprets what is stored.
//!
//! Start at [`FileSystem`].

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

/// A file system as a store needs it. Tests and the simulator put theirs into the store's options.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and those above it that are missing, and their names durable; one that exists is fine.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Takes the directory for this process alone, leaving nothing behind in it. `None`: somebody else has it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>>;
    /// The files of a directory, by name; empty when there is no such directory.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` and `AlreadyExists` as the mode says, or whatever the system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StoreFile>>;
    /// Unlinks a file. Handles that are open go on reading it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name in the same directory, atomically.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name on the same file system, atomically: both then name the same bytes, until one is
    /// unlinked.
    ///
    /// # Errors
    /// `AlreadyExists`, or whatever else the system says; file systems without links refuse.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// How large the file system of a directory is, and what is left of it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The room of a file system, whoever takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What a process without privileges may still take, in bytes.
    pub available_bytes: u64,
}

/// Held as long as the directory is taken.
pub trait DirLock: fmt::Debug + Send + Sync {}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name within the directory.
    pub name: String,
    /// What it takes of the disk, in bytes.
    pub disk_bytes: u64,
}

/// What [`FileSystem::open`] expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The file is there.
    Existing,
    /// The file is there, and is not written to.
    ReadOnly,
    /// The file is not there yet.
    New,
}

/// One open file.
pub trait StoreFile: fmt::Debug + Send + Sync + 'static {
    /// Its length.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end, or whatever the system says.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Whatever the system says; what is on disk is unknown then.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts off or extends with zeros.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when everything written is durable.
    ///
    /// # Errors
    /// Whatever the system says; what is on disk is unknown then.
    fn sync_data(&self) -> io::Result<()>;
    /// Forgets what the system keeps of the file in memory, so that the next read is from the disk: after a sync that
    /// failed the two may differ. Where the system has no call for it, it does nothing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
    /// Takes disk blocks for a range, without changing the length or the contents. Where the file system cannot, it
    /// does nothing.
    ///
    /// # Errors
    /// `StorageFull`, or whatever else the system says.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Gives back blocks that were allocated and never written: the range reads as zeros, as before.
    ///
    /// # Errors
    /// Whatever the system says.
    fn release(&self, offset: u64, bytes: u64) -> io::Result<()>;
}

/// The host's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFileSystem;

impl FileSystem for HostFileSystem {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
        fs::create_dir_all(dir)?;
        for made in missing {
            // What is in a directory is lost with its name.
            self.sync_dir(
                made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")),
            )?;
        }
        Ok(())
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        // The directory itself is locked, not a file in it: a store that is refused stays byte for byte as it was.
        let handle = File::open(dir)?;
        match handle.try_lock() {
            Ok(()) => Ok(Some(Box::new(HostDirLock { _handle: handle }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push(FileEntry { name, disk_bytes: disk_bytes(&metadata) });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StoreFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::ReadOnly).create_new(mode == OpenMode::New);
        Ok(Arc::new(HostFile { file: options.open(path)? }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

#[cfg(unix)]
fn disk_bytes(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // In units of 512 bytes whatever the file system's block size (stat(2)). Lengths would count holes.
    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn disk_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[derive(Debug)]
struct HostDirLock {
    _handle: File,
}

impl DirLock for HostDirLock {}

#[derive(Debug)]
struct HostFile {
    file: File,
}

impl StoreFile for HostFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget_cached(&self) -> io::Result<()> {
        blocks::forget_cached(&self.file)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        blocks::allocate(&self.file, offset, bytes)
    }

    fn release(&self, offset: u64, bytes: u64) -> io::Result<()> {
        blocks::release(&self.file, offset, bytes)
    }
}

/// Disk blocks, apart from what is in them.
#[cfg(target_os = "linux")]
mod blocks {
    use std::{fs::File, io};

    use rustix::{
        fs::{Advice, FallocateFlags, fadvise, fallocate},
        io::Errno,
    };

    pub(super) fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        where_supported(fallocate(file, FallocateFlags::KEEP_SIZE, offset, bytes))
    }

    pub(super) fn forget_cached(file: &File) -> io::Result<()> {
        where_supported(fadvise(file, 0, None, Advice::DontNeed))
    }

    pub(super) fn release(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        where_supported(fallocate(file, flags, offset, bytes))
    }

    fn where_supported(result: Result<(), Errno>) -> io::Result<()> {
        match result {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Where the system has no call for it, blocks come as they are written.
#[cfg(not(target_os = "linux"))]
mod blocks {
    use std::{fs::File, io};

    pub(super) fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn forget_cached(_: &File) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn release(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_the_same_bytes_after_the_first_name_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        HostFileSystem.open(&first, OpenMode::New).unwrap().write_at(0, b"record").unwrap();
        HostFileSystem.link(&first, &second).unwrap();
        assert_eq!(HostFileSystem.link(&first, &second).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        HostFileSystem.remove(&first).unwrap();
        let mut read = [0; 6];
        HostFileSystem.open(&second, OpenMode::ReadOnly).unwrap().read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"record");
    }

    #[test]
    fn what_is_available_is_part_of_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let Space { total_bytes, available_bytes } = HostFileSystem.space(dir.path()).unwrap();
        assert!(total_bytes > 0 && available_bytes <= total_bytes, "{available_bytes} of {total_bytes}");
        let error = HostFileSystem.space(&dir.path().join("missing")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

//! Brings files from one directory to another: by a second name where the file system can, else byte by byte.
//!
//! Owns the checksum of what was brought. Files are sealed ones, which nobody writes any more; they are full of holes, and
//! stay so.
//!
//! Start at [`Carrier`].

use std::{io::ErrorKind, path::Path, path::PathBuf};

use crate::{
    FileSystem, OpenMode, StoreFile,
    backup::{CopyProgress, Progress, manifest::FileSum},
    fault::Fault,
    segment::NEW_SUFFIX,
};

/// What is read and written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What the error says of a copy that was told to stop.
const STOPPED: &str = "it was told to stop";

/// Zeros in pieces of this size are not written: the file has a hole there.
const HOLE_BYTES: usize = 64 << 10;

/// Brings files, and says how far it is.
pub(crate) struct Carrier<'c> {
    file_system: &'c dyn FileSystem,
    /// Cleared by the first link that cannot be made.
    links: bool,
    done: CopyProgress,
    progress: &'c mut Progress<'c>,
}

impl<'c> Carrier<'c> {
    pub(crate) fn new(file_system: &'c dyn FileSystem, progress: &'c mut Progress<'c>) -> Carrier<'c> {
        Carrier { file_system, links: true, done: CopyProgress::default(), progress }
    }

    /// Whether every file so far was linked.
    pub(crate) fn linked(&self) -> bool {
        self.links
    }

    /// Says how much there will be to do.
    pub(crate) fn expect(&mut self, files: usize, bytes: u64) {
        self.done.files_total += files;
        self.done.bytes_total += bytes;
    }

    /// Brings a file to where none is; durable once the directory is synced.
    pub(crate) fn bring(&mut self, from: &Path, to: &Path) -> Result<FileSum, Fault> {
        if self.link(from, to)? { self.sum(to) } else { self.copy(from, to) }
    }

    /// Copies a file to where none is.
    pub(crate) fn copy(&mut self, from: &Path, to: &Path) -> Result<FileSum, Fault> {
        let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", to.display()));
        let target = self.file_system.open(&new_path, OpenMode::New).map_err(|error| Fault::io(to, "create", error))?;
        let sum = self.pass(from, Some((&*target, to)))?;
        target.sync_data().map_err(|error| Fault::io(to, "sync", error))?;
        self.file_system.rename(&new_path, to).map_err(|error| Fault::io(to, "name", error))?;
        Ok(sum)
    }

    /// Gives a file a second name, if that can be done here.
    fn link(&mut self, from: &Path, to: &Path) -> Result<bool, Fault> {
        if !self.links {
            return Ok(false);
        }
        match self.file_system.link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                Err(Fault::io(to, "link", error))
            }
            // Another file system, or one without links; which of them is said in too many ways to list.
            Err(error) => {
                tracing::debug!(%error, "files are copied, not linked");
                self.links = false;
                Ok(false)
            }
        }
    }

    /// Length and checksum of a file.
    pub(crate) fn sum(&mut self, path: &Path) -> Result<FileSum, Fault> {
        self.pass(path, None)
    }

    /// Reads all of a file, and writes it to another one if there is one.
    fn pass(&mut self, from: &Path, to: Option<(&dyn StoreFile, &Path)>) -> Result<FileSum, Fault> {
        let io = |action| move |error| Fault::io(from, action, error);
        let source = self.file_system.open(from, OpenMode::ReadOnly).map_err(io("open"))?;
        let bytes = source.len().map_err(io("read"))?;
        let mut sum = FileSum { bytes, crc: 0 };
        let mut chunk = Vec::new();
        let mut at = 0;
        while at < bytes {
            chunk.resize((bytes - at).min(CHUNK_BYTES as u64) as usize, 0);
            source.read_at(at, &mut chunk).map_err(io("read"))?;
            sum.crc = crc32c::crc32c_append(sum.crc, &chunk);
            if let Some((target, path)) = to {
                write_around_holes(target, at, &chunk).map_err(|error| Fault::io(path, "write", error))?;
            }
            at += chunk.len() as u64;
            self.done.bytes_done += chunk.len() as u64;
            if !(self.progress)(self.done) {
                return Err(io("copy")(std::io::Error::other(STOPPED)));
            }
        }
        if let Some((target, path)) = to {
            target.set_len(bytes).map_err(|error| Fault::io(path, "write", error))?;
        }
        self.done.files_done += 1;
        // What is whole stays; the next step is told to stop.
        (self.progress)(self.done);
        Ok(sum)
    }
}

fn write_around_holes(target: &dyn StoreFile, at: u64, chunk: &[u8]) -> std::io::Result<()> {
    for (number, piece) in chunk.chunks(HOLE_BYTES).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            target.write_at(at + (number * HOLE_BYTES) as u64, piece)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostFileSystem;

    #[test]
    fn a_copy_has_the_bytes_the_checksum_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut bytes = vec![0; 5 << 20];
        bytes[100] = 1;
        bytes[(3 << 20) + 7] = 2;
        std::fs::write(&from, &bytes).unwrap();
        let mut last = CopyProgress::default();
        let mut progress = |now| {
            last = now;
            true
        };
        let mut carrier = Carrier { links: false, ..Carrier::new(&HostFileSystem, &mut progress) };
        carrier.expect(1, bytes.len() as u64);
        let sum = carrier.bring(&from, &to).unwrap();
        assert_eq!(sum, FileSum { bytes: bytes.len() as u64, crc: crc32c::crc32c(&bytes) });
        assert_eq!(carrier.sum(&to).unwrap(), sum);
        assert_eq!(std::fs::read(&to).unwrap(), bytes);
        let entries = HostFileSystem.list(dir.path()).unwrap();
        let copy = entries.iter().find(|entry| entry.name == "to").unwrap();
        assert!(copy.disk_bytes <= 1 << 20, "{} bytes of blocks", copy.disk_bytes);
        assert_eq!(last.bytes_done, 2 * last.bytes_total);
    }
}

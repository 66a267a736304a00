//! Looks into a redb file that may be damaged, without changing it, and says how far it reaches.
//!
//! Owns the only place where redb meets bytes that nobody vouches for: a file that was not closed, or whose index is
//! gone. redb can panic on bad bytes, or ask for more memory than there is, which ends the process; so a broker does this
//! in a process of its own ([`Prober`]), and learns the answer or that there is none.
//!
//! Start at [`probe`].

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use crate::{
    FileSystem, HostFileSystem, OpenError, OpenMode,
    backend::OverlayBackend,
    fault::Fault,
    format::{FORMAT_TABLE, FileKind, FormatRow},
    layout::LOG_TABLE,
    state_file,
};

/// redb's cache while it looks.
const CACHE_BYTES: usize = 4 << 20;

/// What a file is probed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbedFile {
    /// A segment: the sequence of its last commit, 0 when there is none.
    Segment,
    /// The same, with the checksum of every page that redb has in use.
    SegmentPages,
    /// `state.redb`: the sequence up to which it is applied. Every row is read and every page checked: unlike a segment,
    /// this file is written to again.
    State,
}

/// Where suspect files are looked at.
pub trait Prober: fmt::Debug + Send + Sync + 'static {
    /// [`probe`], wherever that is done.
    ///
    /// # Errors
    /// As [`probe`]'s.
    fn probe(&self, file_system: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError>;
}

/// Looks at them in this process. A panic is caught, a lack of memory is not.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Prober for InProcess {
    fn probe(&self, file_system: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
        probe_through(file_system, path, file)
    }
}

/// Looks into a file of the host; its last sequence.
///
/// # Errors
/// See [`OpenError`]: a newer format, damage (redb's panics among it), or what the disk said.
pub fn probe(path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
    probe_through(&HostFileSystem, path, file)
}

fn probe_through(file_system: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
    let looked = catch_unwind(AssertUnwindSafe(|| look(file_system, path, file)));
    looked.unwrap_or_else(|_| Err(Fault::damaged(path, "redb cannot make sense of it").into()))
}

fn look(file_system: &dyn FileSystem, path: &Path, file: ProbedFile) -> Result<u64, OpenError> {
    let mut db = open_overlay(file_system, path)?;
    let last = match file {
        ProbedFile::Segment | ProbedFile::SegmentPages => last_sequence(path, &db)?,
        ProbedFile::State => state_file::check(path, &db)?,
    };
    if file != ProbedFile::Segment && !db.check_integrity().map_err(Fault::redb(path, "check"))? {
        return Err(Fault::damaged(path, "redb's pages do not agree with each other").into());
    }
    Ok(last)
}

/// Opens a file so that repairs and anything else redb writes stay in memory.
pub(crate) fn open_overlay(file_system: &dyn FileSystem, path: &Path) -> Result<Database, Fault> {
    let file = file_system.open(path, OpenMode::ReadOnly).map_err(|error| Fault::io(path, "open", error))?;
    let backend = OverlayBackend::new(file).map_err(|error| Fault::io(path, "open", error))?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder.create_with_backend(backend).map_err(Fault::redb(path, "open"))
}

fn last_sequence(path: &Path, db: &Database) -> Result<u64, OpenError> {
    let snapshot = db.begin_read().map_err(Fault::redb(path, "read"))?;
    let format = snapshot.open_table(FORMAT_TABLE).map_err(Fault::redb(path, "read"))?;
    FormatRow { kind: FileKind::Segment }.check(path, &format)?;
    let log = snapshot.open_table(LOG_TABLE).map_err(Fault::redb(path, "read"))?;
    let last = log.last().map_err(Fault::redb(path, "read"))?;
    Ok(last.map_or(0, |(key, _)| key.value().0))
}

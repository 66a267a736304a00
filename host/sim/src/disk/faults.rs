//! Calls that fail: which, when, and what they say.
//!
//! Start at [`Faults`].

use std::io;

/// What calls say when they fail, and which do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// An I/O error of any call; a write has done a part of its work, and what a sync did is unknown.
    Io,
    /// There are no more blocks: only calls that take some fail.
    Full,
    /// Only syncs fail, and what they should have made durable is dropped.
    Sync,
    /// The same, of files alone.
    FileSync,
    /// The same, of directories alone: the names are not durable, and may become so.
    DirSync,
    /// A read ends before it has all, as if the file did.
    ShortRead,
    /// A write ends before it has all.
    ShortWrite,
    /// A file that is there is not opened.
    Open,
    /// A file, a directory or a second name is not made.
    Create,
    /// A file keeps its name.
    Rename,
    /// A file is not unlinked.
    Remove,
    /// A directory is not listed.
    List,
}

impl FaultKind {
    /// Every kind.
    pub const EVERY: [FaultKind; 12] = [
        FaultKind::Io,
        FaultKind::Full,
        FaultKind::Sync,
        FaultKind::FileSync,
        FaultKind::DirSync,
        FaultKind::ShortRead,
        FaultKind::ShortWrite,
        FaultKind::Open,
        FaultKind::Create,
        FaultKind::Rename,
        FaultKind::Remove,
        FaultKind::List,
    ];

    pub(super) fn hits(self, call: Call) -> bool {
        match self {
            FaultKind::Io => true,
            FaultKind::Full => matches!(call, Call::Write | Call::Resize | Call::Grow),
            FaultKind::Sync => matches!(call, Call::Sync | Call::SyncDir),
            FaultKind::FileSync => call == Call::Sync,
            FaultKind::DirSync => call == Call::SyncDir,
            FaultKind::ShortRead => call == Call::Read,
            FaultKind::ShortWrite => call == Call::Write,
            FaultKind::Open => call == Call::Open,
            FaultKind::Create => call == Call::Create,
            FaultKind::Rename => call == Call::Rename,
            FaultKind::Remove => call == Call::Remove,
            FaultKind::List => call == Call::List,
        }
    }

    pub(super) fn error(self) -> io::Error {
        match self {
            FaultKind::Full => io::ErrorKind::StorageFull.into(),
            FaultKind::ShortRead => io::ErrorKind::UnexpectedEof.into(),
            FaultKind::ShortWrite => io::ErrorKind::WriteZero.into(),
            _ => io::Error::other("a fault of the simulation"),
        }
    }
}

/// Calls that fail.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// What they say.
    pub kind: FaultKind,
    /// Calls that succeed before.
    pub after: u64,
    /// Calls that fail.
    pub count: u64,
    /// Whether dropped pages are forgotten at once, so that reads see what is on the disk.
    pub evict: bool,
}

/// A call, as far as faults are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Bytes of a file.
    Read,
    /// A length, how much room there is, pages that are forgotten.
    Look,
    List,
    Open,
    Create,
    Write,
    /// The length of a file is set, or blocks of it are given back: file systems may need a block for that, too.
    Resize,
    Grow,
    Sync,
    SyncDir,
    Rename,
    Remove,
}

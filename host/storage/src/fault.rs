//! What can go wrong between us and a file, told apart: the disk said no, or the bytes are not ours.
//!
//! Each operation turns it into its own error.

use std::{io, path::Path};

use crate::{OpenError, ReadError};

/// A failure while reading or writing one file.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The disk, the system or redb failed at something.
    Io { file: String, action: &'static str, cause: io::Error },
    /// The bytes contradict their checksum, their place, or each other.
    Damaged { file: String, what: String },
}

/// A file's name as errors show it.
pub(crate) fn file_name(path: &Path) -> String {
    path.display().to_string()
}

impl Fault {
    /// What the disk said while we tried `action` on the file. Where it ends before what was written into it does, it does not
    /// have the bytes that it had.
    pub(crate) fn io(path: &Path, action: &'static str, cause: io::Error) -> Fault {
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            return Fault::damaged(path, "it is cut off");
        }
        Fault::Io { file: file_name(path), action, cause }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Fault {
        Fault::Damaged { file: file_name(path), what: what.into() }
    }

    /// For `map_err`: what redb said while we tried `action` on the file.
    pub(crate) fn redb<E: Into<redb::Error>>(path: &Path, action: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| match error.into() {
            redb::Error::Corrupted(what) => Fault::damaged(path, what),
            redb::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                Fault::damaged(path, cause.to_string())
            }
            // We ask for the tables that we make, as we make them: what has others was not written by us.
            error @ (redb::Error::UpgradeRequired(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Fault::damaged(path, error.to_string()),
            redb::Error::Io(cause) => Fault::io(path, action, cause),
            other => Fault::io(path, action, io::Error::other(other.to_string())),
        }
    }

    /// Whether the disk has no room.
    pub(crate) fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Fault::Io { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded))
    }

    /// One line for a commit's answer and the read-only state.
    pub(crate) fn text(&self) -> String {
        match self {
            Fault::Io { file, action, cause } => format!("failed to {action} `{file}`: {cause}"),
            Fault::Damaged { file, what } => format!("`{file}` is damaged: {what}"),
        }
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { file, cause, .. } => ReadError::Io { file, cause: cause.to_string() },
            Fault::Damaged { file, what } => ReadError::Damaged { file, what },
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io { file, action, cause } => OpenError::Io { action, file, source: cause },
            Fault::Damaged { file, what } => OpenError::Damaged { file, what },
        }
    }
}

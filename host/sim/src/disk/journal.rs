//! What was done to a disk, in the order of the calls.
//!
//! Start at [`Op`].

use std::{path::PathBuf, sync::Arc};

/// A file, whatever its names.
pub type FileId = u64;

/// One call that changed something, or made it durable.
#[derive(Debug, Clone)]
pub enum Op {
    /// A directory was made.
    MakeDir {
        /// Where.
        parent: PathBuf,
        /// Its name there.
        name: String,
    },
    /// A file was made.
    Create {
        /// Where.
        dir: PathBuf,
        /// Its name there.
        name: String,
        /// Which.
        file: FileId,
    },
    /// Bytes were written.
    Write {
        /// Where to.
        file: FileId,
        /// From which position on.
        offset: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// The length was set.
    SetLen {
        /// Whose.
        file: FileId,
        /// The new one.
        len: u64,
    },
    /// Blocks were given back.
    Release {
        /// Whose.
        file: FileId,
        /// From which position on.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Everything written to a file is durable.
    Sync {
        /// Which.
        file: FileId,
    },
    /// A sync failed: some of what was written is durable, and the rest never will be, whatever is synced later.
    SyncFailed {
        /// Of which file.
        file: FileId,
        /// Which of the writes are durable.
        seed: u64,
    },
    /// A file has another name.
    Rename {
        /// Where.
        dir: PathBuf,
        /// The name it had.
        from: String,
        /// The name it has.
        to: String,
        /// Which.
        file: FileId,
    },
    /// A name is gone.
    Remove {
        /// From where.
        dir: PathBuf,
        /// Which.
        name: String,
    },
    /// The names of a directory are durable.
    SyncDir {
        /// Which.
        dir: PathBuf,
    },
}

impl Op {
    /// What it is and where, for people.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Op::MakeDir { parent, name } => format!("mkdir {}/{name}", parent.display()),
            Op::Create { name, file, .. } => format!("create {name} = file {file}"),
            Op::Write { file, offset, data } => format!("write file {file} at {offset}, {} bytes", data.len()),
            Op::SetLen { file, len } => format!("set_len file {file} to {len}"),
            Op::Release { file, offset, bytes } => format!("release file {file} at {offset}, {bytes} bytes"),
            Op::Sync { file } => format!("sync file {file}"),
            Op::SyncFailed { file, .. } => format!("sync file {file} FAILED"),
            Op::Rename { from, to, file, .. } => format!("rename {from} to {to} = file {file}"),
            Op::Remove { name, .. } => format!("remove {name}"),
            Op::SyncDir { dir } => format!("sync_dir {}", dir.display()),
        }
    }
}

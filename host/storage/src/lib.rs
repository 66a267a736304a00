//! The partitioned log on redb: one durable commit for everything that waits, checked reads, retention.
//!
//! Owns the data directory's `segments/` and `state.redb`, and the lock on the directory. Knows partitions by id and
//! record batches by their fixed header; topics, producers and groups are rows of bytes to it. Plain sync code: no
//! async, no sockets; it reads no clock outside `clock.rs`.
//!
//! Invariants
//! - The commit is the sole truth: `Store::submit` is the only way in which anything here changes. Everything else
//!   (`state.redb`, indices, watermarks) is a projection that can be rebuilt from the commits.
//! - The coverage of a partition has no holes: each append begins where the last one ended.
//! - A reader sees nothing that is not synced, and no byte whose checksum and place were not checked.
//! - Nothing is written to a file after a write or sync of it failed.
//!
//! ```text
//! submit -> committer thread: drain, one redb transaction, one sync, answer all, repeat
//!                 |                         |
//!                 v                         v
//!          tail (memory), index      overlay -> projector thread -> state.redb
//! ```
//!
//! Start at [`Store`].

mod backend;
mod backup;
mod batches;
mod budget;
mod buffers;
mod cleaner;
mod clock;
mod commit;
mod committer;
mod compact;
mod coverage;
mod fault;
mod file_system;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod ids;
mod index;
mod index_file;
mod inspect;
mod layout;
mod partitions;
mod parts;
mod probe;
mod read;
mod record;
mod recovery;
mod reserve;
mod restore;
mod retention;
mod rewrite;
mod salvage;
mod scrub;
mod segment;
mod state;
mod state_file;
mod store;
pub mod sync;
mod tail;
mod verify;

pub use backup::{BackupError, BackupReport, CopyProgress, Progress, Restorable};
pub use budget::Budget;
pub use cleaner::{CleanError, CleanReport};
pub use clock::{Clock, HostClock};
pub use commit::{Append, Commit, CommitError, CommitReceipt, PartitionChange, StateChange, StateTable};
pub use file_system::{DirLock, FileEntry, FileSystem, HostFileSystem, OpenMode, Space, StoreFile};
pub use probe::{InProcess, ProbedFile, Prober, probe};
pub use protocol::Health;
pub use read::{ReadError, ReadOutcome};
pub use restore::{RestoreError, RestorePoint, RestoreReport, Restored, restore};
pub use retention::{RetentionError, RetentionReport};
pub use salvage::{LostRange, SalvageError, SalvageOptions, SalvageProgress, SalvageReport, StateSource, salvage};
pub use scrub::ScrubProgress;
pub use store::{CloseError, CommitDone, OpenError, PartitionPlace, Store, StoreId, StoreOptions, StoreStats};
pub use verify::{Damage, VerifyProgress, VerifyReport, verify};

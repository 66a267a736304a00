//! The core of weir: topics, produce, fetch, deployments. Doors in front of it, storage and transforms below it.
//!
//! Owns the catalog, the order of everything that is stored, and the mapping of errors to the wire. Never opens a
//! socket, and reads time and chance in `clock.rs` alone.
//!
//! ```text
//! Partition::produce ─► Sequencer (a value, under one lock) ─► Store::submit ─► committer ─► answers thread ─► ticket
//!                            │          ▲
//!                            ▼          │ finish
//!                       plugin workers ─┘   (topics with a pipeline)
//! ```
//!
//! Invariants
//! - What is answered is durable: a batch with its producer's window, a topic with its catalog row.
//! - Offsets are given under the sequencer's lock, and the commit is submitted before it is released.
//! - No lock is held while a guest runs, a file is read or a commit is awaited, except the admin lock that puts
//!   changes of the catalog in a row.
//!
//! Locks, in the order in which they may be held together: an upload's turn, admin, sequencer, slots. The directory's and
//! those of settings are held for a look, and no other is taken meanwhile.
//!
//! Start at [`Broker`], then `partition.rs` and `sequencer.rs`.

mod admin;
mod backup;
mod blocking;
mod broker;
mod catalog;
mod clock;
mod core;
mod dead_letter;
mod deployment;
mod directory;
mod errors;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod housekeeping;
mod partition;
mod plugin_files;
mod plugins;
mod producer_ids;
mod route;
mod sequencer;
mod topics;
mod transforms;
mod uploads;
mod versioned;
mod workers;

pub use backup::{Beside, restore};
pub use broker::{Broker, BrokerOptions};
pub use catalog::{partition_names, partitions_of};
pub use errors::{
    BackupError, CatalogError, DeployError, FetchError, OpenBrokerError, PluginError, ProduceError, TopicError,
    UnknownTopicOrPartition,
};
pub use partition::{Partition, ProduceTicket, ProducerPlace};
pub use storage::{
    Budget, InProcess, PartitionPlace, Prober, Progress, ReadOutcome, RestoreError, RestorePoint, RestoreReport,
    StoreOptions,
};
pub use transform::{Compiler, InProcess as InProcessCompiler, PluginHost};
pub use versioned::RowError;

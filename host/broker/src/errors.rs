//! What can go wrong: one small enum per operation.
//!
//! Owns the words. Which numbered error of the wire each becomes is decided in `errors/wire.rs`, for every door.

mod wire;

use std::{error::Error, sync::Arc};

use protocol::{
    BatchError, Epoch, NameError, Offset, PluginName, Sequence, TopicName, TransformName,
    limits::{
        IN_FLIGHT_BATCHES_MAX, PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, PIPELINE_STAGES_MAX, PLUGIN_BYTES_MAX,
        PLUGINS_MAX, RECORD_BYTES_CEILING, ROUTED_BYTES_PER_BATCH_MAX, TRANSFORM_TARGETS_MAX, UPLOADS_WAITING_MAX,
    },
};
use storage::{CommitError, OpenError, ReadError};
use transform::CompileError;

use crate::versioned::RowError;

/// Why a broker could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBrokerError {
    /// The store refused.
    #[error("failed to open the store")]
    Store(#[from] OpenError),
    /// The plugin engine could not be set up.
    #[error("failed to set up the plugin engine")]
    PluginHost(#[source] Box<dyn Error + Send + Sync>),
    /// A row of the catalog or of a producer cannot be read.
    #[error("failed to read row `{key}` of the {table}")]
    Row {
        /// Which table.
        table: &'static str,
        /// Which row.
        key: String,
        /// Why not.
        #[source]
        source: RowError,
    },
    /// The state could not be read.
    #[error("failed to read the state")]
    Read(#[from] ReadError),
    /// A topic in the catalog has a partition that the store does not have.
    #[error("partition {partition} of topic `{topic}` is in the catalog, but not in the store")]
    PartitionMissing {
        /// The topic.
        topic: TopicName,
        /// The partition's number.
        partition: u32,
    },
    /// A transform that is deployed cannot be brought back.
    #[error("failed to restore transform `{transform}` of topic `{topic}`")]
    Transform {
        /// The topic.
        topic: TopicName,
        /// The transform.
        transform: TransformName,
        /// Why not.
        #[source]
        source: Box<DeployError>,
    },
    /// A thread could not be started, or a directory not be made.
    #[error("failed to {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// No such topic, or no such partition of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTopicOrPartition {
    /// No such topic.
    #[error("topic `{0}` does not exist")]
    Topic(TopicName),
    /// No such partition.
    #[error("topic `{topic}` has {partitions} partitions, none has number {partition}")]
    Partition {
        /// The topic.
        topic: TopicName,
        /// The number asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },
}

/// Why a batch was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// The partition was deleted.
    #[error("the partition was deleted")]
    PartitionGone,
    /// The batch breaks the format or a limit, or is nothing that a client may send.
    #[error("batch is not valid")]
    Batch(#[source] BatchError),
    /// A record is larger than its topic allows.
    #[error("record {index} of {bytes} bytes is larger than `max_record_bytes` ({limit}) of topic `{topic}`")]
    RecordTooLarge {
        /// Its index in the batch.
        index: u32,
        /// Key, value and headers.
        bytes: usize,
        /// What the topic allows.
        limit: usize,
        /// The topic.
        topic: TopicName,
    },
    /// A record has no key, and its topic keeps the newest record of each key.
    #[error(
        "record {index} has no key, and topic `{topic}` compacts by key: give it one, or alter the topic: `weir topic alter {topic} --cleanup-policy delete`"
    )]
    KeyMissing {
        /// Its index in the batch.
        index: u32,
        /// The topic.
        topic: TopicName,
    },
    /// A batch of this producer is missing in between.
    #[error("batch begins with sequence {}, the next one of its producer is {}", .found.0, .expected.0)]
    OutOfOrderSequence {
        /// The sequence after the last one accepted.
        expected: Sequence,
        /// What the batch says.
        found: Sequence,
    },
    /// A newer incarnation of the producer has written.
    #[error("producer epoch {} is fenced: epoch {} has written", .epoch.0, .current.0)]
    ProducerFenced {
        /// What the batch says.
        epoch: Epoch,
        /// The newest one seen.
        current: Epoch,
    },
    /// The producer does not wait for its answers.
    #[error("producer has `in_flight_batches_max` ({IN_FLIGHT_BATCHES_MAX}) batches unanswered in this partition")]
    TooManyInFlight,
    /// The transforms made too much of one batch.
    #[error(
        "routed and dead-lettered records of the batch take {bytes} bytes, more than `routed_bytes_per_batch_max` ({ROUTED_BYTES_PER_BATCH_MAX})"
    )]
    RoutedTooLarge {
        /// What they would take.
        bytes: usize,
    },
    /// Batches that route to each other's partitions came together and share a commit, and it cannot hold them. Alone,
    /// each fits.
    #[error("batch does not fit into the commit it shares with batches that it routes to: {why}")]
    CommitTooLarge {
        /// Limit and value.
        why: Arc<str>,
    },
    /// A transform with `on_error = pause` failed; nothing is taken until an operator acts.
    #[error("partition is paused: {why}")]
    Paused {
        /// Transform and failure.
        why: Arc<str>,
    },
    /// The transforms could not run for now; no record is at fault.
    #[error("transforms could not run: {why}")]
    TransformBusy {
        /// Why not.
        why: Arc<str>,
    },
    /// A topic that the batch was routed to was deleted meanwhile; the retry runs through the pipeline of today.
    #[error("a topic that the batch was routed to is gone")]
    TargetGone,
    /// Whether the batch is stored is not known; the retry decides.
    #[error("outcome of the commit is unknown: {why}")]
    CommitUnknown {
        /// What the store said.
        why: Arc<str>,
    },
    /// The disk fails, and the store takes no writes until it can be written to again; the batch is not stored.
    #[error("the store is read-only: {why}")]
    ReadOnly {
        /// What the disk said.
        why: Arc<str>,
    },
    /// The disk is full, and no records are taken until there is space again; the batch is not stored.
    #[error("the disk is full: {why}")]
    Full {
        /// Which limit is reached, and the way out.
        why: Arc<str>,
    },
    /// The broker is going away; the batch may or may not be stored.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// We are broken.
    #[error("internal error: {why}")]
    Internal {
        /// What happened.
        why: Arc<str>,
    },
}

impl ProduceError {
    /// Whether the same batch may be stored later as it is.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.code().is_retryable()
    }

    /// What a producer learns of a commit that did not become durable.
    pub(crate) fn of_commit(error: CommitError) -> ProduceError {
        match error {
            CommitError::ReadOnly { why } => ProduceError::ReadOnly { why: why.into() },
            CommitError::Full { why } => ProduceError::Full { why: why.into() },
            CommitError::ShuttingDown => ProduceError::ShuttingDown,
            CommitError::TooLarge { .. } => ProduceError::CommitTooLarge { why: error.to_string().into() },
            // All but the first mean that the commit was built on one that failed.
            CommitError::Failed { .. }
            | CommitError::Hole { .. }
            | CommitError::Malformed { .. }
            | CommitError::UnknownPartition { .. }
            | CommitError::PartitionIdUsed { .. }
            | CommitError::LogStartBeyondEnd { .. } => ProduceError::CommitUnknown { why: error.to_string().into() },
        }
    }
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The partition was deleted.
    #[error("the partition was deleted")]
    PartitionGone,
    /// Before the first record kept, or behind the last one.
    #[error("offset {offset} is not in [{log_start_offset}, {high_watermark}]")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First offset still kept.
        log_start_offset: Offset,
        /// First offset not yet to be seen.
        high_watermark: Offset,
    },
    /// The store could not read.
    #[error("failed to read")]
    Read(#[source] ReadError),
    /// The broker is going away.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

impl FetchError {
    pub(crate) fn of_read(error: ReadError) -> FetchError {
        match error {
            ReadError::UnknownPartition { .. } => FetchError::PartitionGone,
            ReadError::OutOfRange { offset, log_start_offset, high_watermark, .. } => {
                FetchError::OffsetOutOfRange { offset, log_start_offset, high_watermark }
            }
            error => FetchError::Read(error),
        }
    }
}

/// A change of the catalog that did not become durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// The store refused, or its outcome is unknown.
    #[error("failed to commit")]
    Commit(#[from] CommitError),
    /// The broker is going away.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// Why a topic was not created, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No such topic.
    #[error("topic `{0}` does not exist")]
    Unknown(TopicName),
    /// It exists with other settings.
    #[error("topic `{name}` exists with {difference}")]
    ExistsOtherwise {
        /// The topic.
        name: TopicName,
        /// What is different.
        difference: String,
    },
    /// Not a number of partitions.
    #[error("{partitions} partitions are not in 1..=`partitions_per_topic_max` ({PARTITIONS_PER_TOPIC_MAX})")]
    Partitions {
        /// What was asked for.
        partitions: u32,
    },
    /// The number of partitions can only grow.
    #[error("topic `{name}` has {partitions} partitions, and cannot shrink to {asked}")]
    Shrink {
        /// The topic.
        name: TopicName,
        /// How many it has.
        partitions: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The store is full of partitions.
    #[error("{partitions} partitions in all are more than `partitions_max` ({PARTITIONS_MAX})")]
    TooManyPartitions {
        /// How many there would be.
        partitions: u32,
    },
    /// A record must fit a batch.
    #[error("`max_record_bytes` of {bytes} is not in 1..=`record_bytes_ceiling` ({RECORD_BYTES_CEILING})")]
    RecordBytes {
        /// What was asked for.
        bytes: u32,
    },
    /// A transform of another topic writes to it.
    #[error("topic `{name}` is written by transform `{transform}` of topic `{source_topic}`")]
    Target {
        /// The topic.
        name: TopicName,
        /// The transform.
        transform: TransformName,
        /// The topic it runs on.
        source_topic: TopicName,
    },
    /// It would no longer take what transforms put into it.
    #[error(
        "`max_record_bytes` of {bytes} for topic `{name}` does not suit topic `{other}`, which has {other_bytes}: transforms write from one to the other"
    )]
    RecordBytesOfTarget {
        /// The topic.
        name: TopicName,
        /// What was asked for.
        bytes: u32,
        /// The other end.
        other: TopicName,
        /// Its limit.
        other_bytes: u32,
    },
    /// The change is not durable.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Why a plugin was not stored or deleted.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No such plugin.
    #[error("plugin `{0}` does not exist")]
    Unknown(PluginName),
    /// A transform uses it.
    #[error("plugin `{plugin}` is used by transform `{transform}` of topic `{topic}`")]
    InUse {
        /// The plugin.
        plugin: PluginName,
        /// The transform.
        transform: TransformName,
        /// Its topic.
        topic: TopicName,
    },
    /// The file is larger than it may be.
    #[error("module of {bytes} bytes is larger than `plugin_bytes_max` ({PLUGIN_BYTES_MAX})")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// There is no room for another one.
    #[error("there are `plugins_max` ({PLUGINS_MAX}) plugins already")]
    TooMany,
    /// Not a module, or one that we refuse.
    #[error("module is refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The module could not be compiled or tried out, and is not at fault.
    #[error("module could not be examined")]
    NotExamined(#[source] Box<dyn Error + Send + Sync>),
    /// Enough of them wait.
    #[error("`uploads_waiting_max` ({UPLOADS_WAITING_MAX}) uploads wait already while another one is compiled")]
    TooManyUploads,
    /// Whoever uploaded it does not wait any more.
    #[error("the upload was cancelled")]
    Cancelled,
    /// Its file could not be kept.
    #[error("failed to {action} the module's file")]
    File {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The change is not durable.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl PluginError {
    /// Tells a module that is refused from one that could not be looked at.
    pub(crate) fn of_engine(error: transform::PluginError) -> PluginError {
        match error {
            transform::PluginError::Compile(CompileError::Cancelled) => PluginError::Cancelled,
            error if error.is_retriable() => PluginError::NotExamined(Box::new(error)),
            error => PluginError::Refused(Box::new(error)),
        }
    }
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory's path depends on where the broker was started.
    #[error("`{to}` is not an absolute path")]
    NotAbsolute {
        /// What was given.
        to: String,
    },
    /// One at a time.
    #[error("a backup to `{to}` is under way; wait until it is done")]
    UnderWay {
        /// Its directory.
        to: String,
    },
    /// There is no thread for it.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// It was a fault of ours.
    #[error("the backup's thread panicked")]
    Panicked,
    /// The store could not.
    #[error(transparent)]
    Store(#[from] storage::BackupError),
}

/// Why a transform was not deployed or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// No such topic.
    #[error("topic `{0}` does not exist")]
    UnknownTopic(TopicName),
    /// No such plugin.
    #[error("plugin `{0}` does not exist")]
    UnknownPlugin(PluginName),
    /// No such transform, neither to remove nor to be placed beside.
    #[error("topic `{topic}` has no transform `{transform}`")]
    UnknownTransform {
        /// The topic.
        topic: TopicName,
        /// The transform.
        transform: TransformName,
    },
    /// The plugin's name, which would be the transform's, is none.
    #[error("failed to name the transform")]
    Name(#[source] NameError),
    /// A transform cannot be placed beside itself.
    #[error("transform `{0}` cannot be placed beside itself")]
    BesideItself(TransformName),
    /// A topic it may route to does not exist.
    #[error("target topic `{0}` does not exist; create it first")]
    UnknownTarget(TopicName),
    /// A topic is named twice among the targets, or is the topic itself, which is target 0 always.
    #[error("target topic `{0}` is named twice")]
    TargetTwice(TopicName),
    /// A target does not take records as large as the topic does.
    #[error("target topic `{target}` takes records of {target_bytes} bytes, topic `{topic}` of {topic_bytes}")]
    TargetTooSmall {
        /// The target.
        target: TopicName,
        /// Its limit.
        target_bytes: u32,
        /// The topic.
        topic: TopicName,
        /// Its limit.
        topic_bytes: u32,
    },
    /// Too many of them.
    #[error("{targets} targets are more than `transform_targets_max` ({TRANSFORM_TARGETS_MAX})")]
    TooManyTargets {
        /// How many.
        targets: usize,
    },
    /// The pipeline is full.
    #[error("topic `{0}` has `pipeline_stages_max` ({PIPELINE_STAGES_MAX}) transforms already")]
    TooManyStages(TopicName),
    /// The dead letter topic cannot be made: its name would be too long, or there are too many partitions.
    #[error("failed to make the dead letter topic of topic `{topic}`")]
    DeadLetter {
        /// The topic.
        topic: TopicName,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The plugin did not take its configuration, or cannot run.
    #[error("transform is refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The plugin's file is gone or damaged.
    #[error("failed to load plugin `{plugin}`")]
    Plugin {
        /// The plugin.
        plugin: PluginName,
        /// Why not.
        #[source]
        source: Box<PluginError>,
    },
    /// The change is not durable.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

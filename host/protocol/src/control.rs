//! Bodies of control frames: CBOR maps with integer keys, so that fields can be added without a new version.
//!
//! Owns the requests and answers of the control and admin streams. A decoder ignores keys it does not know; a
//! missing optional key is its default. Never used on the path of a produced record: hot frames are fixed ([`crate::frame`]).

use minicbor::{Decode, Encode};

use crate::{
    BreakerPolicy, Epoch, Health, Isolation, LimitChanges, Offset, OnError, PluginDescription, PluginHash, PluginName,
    ProducerId, TopicConfig, TopicDescription, TopicName, TopicPartition, TransformDescription, TransformName,
    TransformSpec, WireError, limits::CONTROL_BODY_BYTES_MAX,
};

/// First frame of a connection, by the client on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Name and version of the client program, for logs.
    #[n(0)]
    pub client: String,
    /// Feature bits the client can use.
    #[n(1)]
    pub features: u64,
    /// Feature bits the client cannot do without; a broker that lacks one refuses.
    #[n(2)]
    pub features_required: u64,
}

/// The broker's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Name and version of the broker.
    #[n(0)]
    pub broker: String,
    /// Feature bits in force on this connection.
    #[n(1)]
    pub features: u64,
    /// The store's id, in hex: another one means another broker's data.
    #[n(2)]
    pub store_id: String,
    /// Who the broker takes the client for.
    #[n(3)]
    pub principal: String,
    /// Largest frame it reads, in bytes.
    #[n(4)]
    pub frame_bytes_max: u32,
    /// Largest batch it takes, in bytes.
    #[n(5)]
    pub batch_bytes_max: u32,
    /// Produce bytes one handle may have unanswered.
    #[n(6)]
    pub in_flight_bytes_per_handle: u32,
}

/// A place in a partition, as a reader asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum OffsetSpec {
    /// The log start offset.
    #[n(0)]
    Beginning,
    /// The high watermark.
    #[n(1)]
    End,
    /// This offset.
    #[n(2)]
    At(#[n(0)] Offset),
    /// The first record with this timestamp (milliseconds since 1970) or a later one; the end when there is none.
    #[n(3)]
    Timestamp(#[n(0)] i64),
}

/// A request on the control stream or on an admin stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Topics with their partitions; all of them for an empty list. Answer: [`Response::Topics`].
    #[n(0)]
    DescribeTopics(#[n(0)] Vec<TopicName>),
    /// Creates a topic. One that exists alike is success. Answer: [`Response::Topics`] with it.
    #[n(1)]
    CreateTopic(#[n(0)] CreateTopic),
    /// Deletes a topic and its records. Answer: [`Response::Done`].
    #[n(2)]
    DeleteTopic(#[n(0)] TopicName),
    /// Changes a topic's settings. Answer: [`Response::Topics`] with it.
    #[n(3)]
    AlterTopic(#[n(0)] AlterTopic),
    /// Turns a place into an offset. Answer: [`Response::Offset`].
    #[n(4)]
    FindOffset(#[n(0)] TopicPartition, #[n(1)] OffsetSpec),
    /// A new producer id. Answer: [`Response::Producer`].
    #[n(5)]
    InitProducer,
    /// All plugins. Answer: [`Response::Plugins`].
    #[n(6)]
    ListPlugins,
    /// Deletes a plugin that no transform uses. Answer: [`Response::Done`].
    #[n(7)]
    DeletePlugin(#[n(0)] PluginName),
    /// Deploys or replaces a transform. Answer: [`Response::Transforms`] with it.
    #[n(8)]
    DeployTransform(#[n(0)] DeployTransform),
    /// Removes a transform from a topic's pipeline. Answer: [`Response::Done`].
    #[n(9)]
    RemoveTransform(#[n(0)] TopicName, #[n(1)] TransformName),
    /// Transforms with what they did; of all topics for `None`. Answer: [`Response::Transforms`].
    #[n(10)]
    ListTransforms(#[n(0)] Option<TopicName>),
    /// Uploads a plugin: the file follows in UPLOAD frames on the same (admin) stream. Answer: [`Response::Plugins`] with it.
    #[n(11)]
    UploadPlugin(#[n(0)] UploadPlugin),
    /// How the broker is. Answer: [`Response::Status`].
    #[n(12)]
    Status,
    /// Begins a backup on the broker's host; one that is being made in the same directory is taken for it. Answer:
    /// [`Response::Backup`], at once.
    #[n(13)]
    StartBackup(#[n(0)] StartBackup),
    /// How far the last backup is. Answer: [`Response::Backup`].
    #[n(14)]
    BackupStatus,
    /// Changes limits and policies of a transform while it runs. Answer: [`Response::Transforms`] with it.
    #[n(15)]
    AlterTransform(#[n(0)] AlterTransform),
    /// Closes a transform's breaker, and lets what it paused go on. Answer: [`Response::Transforms`] with it.
    #[n(16)]
    ResumeTransform(#[n(0)] TopicName, #[n(1)] TransformName),
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    /// It is done, and durable.
    #[n(0)]
    Done,
    /// Topics, by name.
    #[n(1)]
    Topics(#[n(0)] Vec<TopicDescription>),
    /// An offset.
    #[n(2)]
    Offset(#[n(0)] Offset),
    /// A producer's identity.
    #[n(3)]
    Producer(#[n(0)] ProducerId, #[n(1)] Epoch),
    /// Plugins, by name.
    #[n(4)]
    Plugins(#[n(0)] Vec<PluginDescription>),
    /// Transforms, by topic and stage.
    #[n(5)]
    Transforms(#[n(0)] Vec<TransformDescription>),
    /// How the broker is.
    #[n(6)]
    Status(#[n(0)] Status),
    /// The last backup, if there was one since the broker was started.
    #[n(7)]
    Backup(#[n(0)] Option<BackupStatus>),
}

/// See [`Request::CreateTopic`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CreateTopic {
    /// Its name.
    #[n(0)]
    pub name: TopicName,
    /// How many partitions.
    #[n(1)]
    pub partitions: u32,
    /// Its settings.
    #[n(2)]
    pub config: TopicConfig,
}

/// See [`Request::AlterTopic`]. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AlterTopic {
    /// Which topic.
    #[n(0)]
    pub name: TopicName,
    /// New retention.
    #[n(1)]
    pub retention: Option<crate::Retention>,
    /// New largest record, in bytes.
    #[n(2)]
    pub max_record_bytes: Option<u32>,
    /// New number of partitions; it can only grow.
    #[n(3)]
    pub partitions: Option<u32>,
}

/// Where in the pipeline a new transform goes. A replaced one stays where it is unless this says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Placement {
    /// Behind all others (or where the replaced one was).
    #[default]
    #[n(0)]
    Last,
    /// Right before this one.
    #[n(1)]
    Before(#[n(0)] TransformName),
    /// Right after this one.
    #[n(2)]
    After(#[n(0)] TransformName),
}

/// See [`Request::DeployTransform`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeployTransform {
    /// The topic it is to run on.
    #[n(0)]
    pub topic: TopicName,
    /// Its name; the plugin's when `None`.
    #[n(1)]
    pub name: Option<TransformName>,
    /// The plugin to run.
    #[n(2)]
    pub plugin: PluginName,
    /// Its configuration, as JSON text.
    #[n(3)]
    pub config: String,
    /// What becomes of records it fails on.
    #[n(4)]
    pub on_error: OnError,
    /// What it may use; the defaults where it says nothing.
    #[n(5)]
    pub limits: LimitChanges,
    /// Topics it may route to.
    #[n(6)]
    pub targets: Vec<TopicName>,
    /// Its place.
    #[n(7)]
    pub placement: Placement,
    /// Which instance a batch meets.
    #[n(8)]
    #[cbor(default)]
    pub isolation: Isolation,
    /// What becomes of records while it keeps failing; `None`: what goes with `on_error` ([`BreakerPolicy::beside`]).
    #[n(9)]
    pub breaker: Option<BreakerPolicy>,
}

impl DeployTransform {
    /// A plugin on a topic, with everything else as it is by default.
    #[must_use]
    pub fn new(topic: TopicName, plugin: PluginName) -> DeployTransform {
        DeployTransform {
            topic,
            name: None,
            plugin,
            config: "{}".into(),
            on_error: OnError::default(),
            limits: LimitChanges::default(),
            targets: Vec::new(),
            placement: Placement::default(),
            isolation: Isolation::default(),
            breaker: None,
        }
    }
}

/// See [`Request::AlterTransform`]. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AlterTransform {
    /// The topic it runs on.
    #[n(0)]
    pub topic: TopicName,
    /// Which transform.
    #[n(1)]
    pub name: TransformName,
    /// What it may use from now on.
    #[n(2)]
    pub limits: LimitChanges,
    /// What becomes of records it fails on.
    #[n(3)]
    pub on_error: Option<OnError>,
    /// Which instance a batch meets.
    #[n(4)]
    pub isolation: Option<Isolation>,
    /// What becomes of records while it keeps failing.
    #[n(5)]
    pub breaker: Option<BreakerPolicy>,
}

impl AlterTransform {
    /// Changes nothing as yet.
    #[must_use]
    pub fn new(topic: TopicName, name: TransformName) -> AlterTransform {
        let limits = LimitChanges::default();
        AlterTransform { topic, name, limits, on_error: None, isolation: None, breaker: None }
    }

    /// The settings that these changes make of `spec`.
    #[must_use]
    pub fn apply(&self, spec: TransformSpec) -> TransformSpec {
        TransformSpec {
            limits: self.limits.apply(spec.limits),
            on_error: self.on_error.unwrap_or(spec.on_error),
            isolation: self.isolation.unwrap_or(spec.isolation),
            breaker: self.breaker.unwrap_or(spec.breaker),
            ..spec
        }
    }
}

/// See [`Request::UploadPlugin`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UploadPlugin {
    /// The name it gets; uploading under an existing name replaces what new deployments use.
    #[n(0)]
    pub name: PluginName,
    /// Size of the file that follows, in bytes.
    #[n(1)]
    pub wasm_bytes: u64,
    /// SHA-256 of the file that follows.
    #[n(2)]
    pub hash: PluginHash,
}

/// How the broker is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// Name and version.
    #[n(0)]
    pub broker: String,
    /// The store's id, in hex.
    #[n(1)]
    pub store_id: String,
    /// Milliseconds since the start.
    #[n(2)]
    pub uptime_ms: u64,
    /// Bytes of its files on disk.
    #[n(3)]
    pub disk_bytes: u64,
    /// Segments on disk.
    #[n(4)]
    pub segments: u64,
    /// Sequence of the last durable commit.
    #[n(5)]
    pub commit_sequence: u64,
    /// Topics.
    #[n(6)]
    pub topics: u64,
    /// Partitions of all topics.
    #[n(7)]
    pub partitions: u64,
    /// Open connections.
    #[n(8)]
    pub connections: u64,
    /// Whether writes are taken, and if not all of them, why not.
    #[n(10)]
    #[cbor(default)]
    pub health: Health,
    /// What its files may take of the disk, in bytes; 0 where the file system does not say how large it is.
    #[n(11)]
    #[cbor(default)]
    pub budget_bytes: u64,
    /// What the file system has left for it, in bytes; 0 where it does not say.
    #[n(12)]
    #[cbor(default)]
    pub available_bytes: u64,
    /// Bytes of sealed segments that were read in the background since the start, to find damage.
    #[n(13)]
    #[cbor(default)]
    pub scrubbed_bytes: u64,
    /// Places in them that are damaged.
    #[n(14)]
    #[cbor(default)]
    pub damages: u64,
}

/// See [`Request::StartBackup`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StartBackup {
    /// The backup's directory: an absolute path on the broker's host.
    #[n(0)]
    pub to: String,
    /// How many snapshots stay there; all for `None`.
    #[n(1)]
    pub keep: Option<u32>,
    /// Whether the broker's identity goes with it: its CA's key, with which anybody can be let in.
    #[n(2)]
    pub with_identity: bool,
}

/// How far a backup is, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BackupStatus {
    /// Which of the backups since the broker was started, from 1.
    #[n(0)]
    pub number: u64,
    /// Its directory on the broker's host.
    #[n(1)]
    pub to: String,
    /// Files linked or copied, and checked.
    #[n(2)]
    pub files_done: u64,
    /// Of so many, as far as is known.
    #[n(3)]
    pub files_total: u64,
    /// Bytes of those files read.
    #[n(4)]
    pub bytes_done: u64,
    /// Of so many, as far as is known.
    #[n(5)]
    pub bytes_total: u64,
    /// Set when it is complete.
    #[n(6)]
    pub done: Option<BackupDone>,
    /// Set when it failed.
    #[n(7)]
    pub error: Option<WireError>,
}

/// A complete backup.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BackupDone {
    /// The state is kept as of this commit.
    #[n(0)]
    pub snapshot_sequence: u64,
    /// The last commit in it.
    #[n(1)]
    pub last_sequence: u64,
    /// Segments that were brought.
    #[n(2)]
    pub segments_added: u64,
    /// Segments that were there from before.
    #[n(3)]
    pub segments_kept: u64,
    /// What those that were brought take of the disk, in bytes.
    #[n(4)]
    pub bytes_added: u64,
    /// Whether they were linked: they share the disk blocks of the broker's own files.
    #[n(5)]
    pub linked: bool,
    /// Files that no snapshot needs any more, and that were removed.
    #[n(6)]
    pub files_removed: u64,
    /// To where a restore can go.
    #[n(7)]
    pub restorable: Vec<RestorableRun>,
}

/// Commits to each of which a restore can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RestorableRun {
    /// The first of them.
    #[n(0)]
    pub commit_min: u64,
    /// The last of them.
    #[n(1)]
    pub commit_max: u64,
    /// From this time on, in milliseconds since 1970.
    #[n(2)]
    pub time_min_ms: i64,
    /// Up to this time.
    #[n(3)]
    pub time_max_ms: i64,
}

/// A control body that is no such body.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Longer than the limit.
    #[error("control body of {bytes} bytes is larger than `control_body_bytes_max` ({CONTROL_BODY_BYTES_MAX})")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not the CBOR that was expected.
    #[error("control body is not valid: {0}")]
    Invalid(#[source] minicbor::decode::Error),
    /// Something follows the body.
    #[error("control body has {bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Encodes a control body.
#[must_use]
pub fn encode<T: Encode<()>>(body: &T) -> Vec<u8> {
    minicbor::to_vec(body).expect("encoding into memory cannot fail")
}

/// Decodes a control body.
///
/// # Errors
/// When it is over the limit, is not the expected CBOR, or something follows it.
pub fn decode<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, ControlError> {
    if body.len() > CONTROL_BODY_BYTES_MAX {
        return Err(ControlError::TooLarge { bytes: body.len() });
    }
    let mut decoder = minicbor::Decoder::new(body);
    let value = decoder.decode().map_err(ControlError::Invalid)?;
    match body.len() - decoder.position() {
        0 => Ok(value),
        bytes => Err(ControlError::Trailing { bytes }),
    }
}

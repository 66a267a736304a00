//! Settings of clients, producers and consumers. Every one has a default but the brokers and the identity.

use std::time::Duration;

use protocol::{Compression, TopicPartition, control::OffsetSpec};

use crate::identity::Identity;

/// How to reach a broker, and as whom.
///
/// ```
/// # use client::{ClientConfig, Identity};
/// # use std::time::Duration;
/// # fn config(identity: Identity) -> ClientConfig {
/// ClientConfig { connect_timeout: Duration::from_secs(2), ..ClientConfig::new(["127.0.0.1:7433"], identity) }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Addresses of the broker, `HOST:PORT` each, tried in order. They must lead to the same broker's data.
    pub brokers: Vec<String>,
    /// Who the client is.
    pub identity: Identity,
    /// Name of the program, for the broker's log. Default: `weir-client` and its version.
    pub name: String,
    /// How long one address may take to answer. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long a request may take, reconnecting and retrying included. Default: 30 s.
    pub request_timeout: Duration,
    /// Shortest wait before something is tried again; it doubles with each try. Default: 20 ms.
    pub retry_wait_min: Duration,
    /// Longest wait before something is tried again. Default: 1 s.
    pub retry_wait_max: Duration,
}

impl ClientConfig {
    /// The default settings for these brokers and this identity.
    pub fn new(brokers: impl IntoIterator<Item = impl Into<String>>, identity: Identity) -> ClientConfig {
        ClientConfig {
            brokers: brokers.into_iter().map(Into::into).collect(),
            identity,
            name: concat!("weir-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_wait_min: Duration::from_millis(20),
            retry_wait_max: Duration::from_secs(1),
        }
    }
}

/// How a producer gathers, sends and retries.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// How batches are compressed. Default: not at all.
    pub compression: Compression,
    /// A batch is sent when it holds this many bytes of records (before compression). Default: 256 KiB.
    pub batch_bytes: usize,
    /// A batch is sent when it holds this many records. Default: 10,000.
    pub batch_records: u32,
    /// A batch is sent when it is this old, full or not. Default: 5 ms.
    pub linger: Duration,
    /// Bytes of records that may be in the producer, unsent or unanswered; `send` waits beyond. Default: 32 MiB.
    pub buffer_bytes: usize,
    /// How long a record may take from `send` to its acknowledgement, retries and reconnects included. Default: 2 min.
    pub delivery_timeout: Duration,
    /// Which partition a record without one goes to. Default: [`Partitioner::Keyed`].
    pub partitioner: Partitioner,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            compression: Compression::None,
            batch_bytes: 256 << 10,
            batch_records: 10_000,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
            partitioner: Partitioner::Keyed,
        }
    }
}

/// Which partition a record goes to when the program does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// Keyed records by murmur2 of the key, as Kafka's clients do; unkeyed ones together, one partition after the other,
    /// moving on with each batch.
    #[default]
    Keyed,
    /// All records as [`Keyed`](Partitioner::Keyed) does with unkeyed ones.
    Sticky,
}

/// What a consumer reads, and how.
///
/// ```
/// # use client::{Assignment, ConsumerConfig, OffsetSpec, Until};
/// # fn config() -> Result<ConsumerConfig, client::NameError> {
/// let clicks = Assignment { topic: "clicks".parse()?, partition: 0, from: OffsetSpec::Beginning };
/// Ok(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([clicks]) })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The partitions to read, each from its own place.
    pub assignments: Vec<Assignment>,
    /// When reading is over. Default: never.
    pub until: Until,
    /// Who decides when records travel. Default: the broker pushes them.
    pub delivery: DeliveryMode,
    /// Bytes of batches that may wait here for the program, all partitions together; each may hold one batch more than
    /// its share. Default: 16 MiB.
    pub buffer_bytes: usize,
}

impl ConsumerConfig {
    /// The default settings for these partitions.
    pub fn new(assignments: impl IntoIterator<Item = Assignment>) -> ConsumerConfig {
        ConsumerConfig {
            assignments: assignments.into_iter().collect(),
            until: Until::Forever,
            delivery: DeliveryMode::Push,
            buffer_bytes: 16 << 20,
        }
    }
}

/// One partition to read, and where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The topic.
    pub topic: protocol::TopicName,
    /// Number of the partition.
    pub partition: u32,
    /// The first record to read.
    pub from: OffsetSpec,
}

impl Assignment {
    /// The partition, without the place.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

/// When a consumer stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// Never: it waits for records to come.
    #[default]
    Forever,
    /// At the end that each partition had when the consumer began to read it.
    End,
}

/// Who decides when records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// The broker pushes as far as the consumer has room: the lowest latency, the highest rate. A client has streams for
    /// 48 partitions read in this way; further ones are pulled.
    #[default]
    Push,
    /// The consumer asks for the next records when it has room.
    Pull,
}

//! The client SDK of weir: produce, consume and administer over QUIC.
//!
//! Owns what a program needs to trust its records to a broker: batching, retries that store nothing twice, reconnects
//! that nobody notices, readers that miss nothing. No type of the QUIC library shows here.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Assignment, Client, ClientConfig, ConsumerConfig, Identity, NOW, OffsetSpec, ProducerConfig, Record, TopicName, Until};
//!
//! let identity = Identity::load("weir-data/identity/admin.pem")?;
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7433"], identity)).await?;
//! let clicks: TopicName = "clicks".parse()?;
//!
//! let producer = client.producer(ProducerConfig::default());
//! let delivery = producer.send(&clicks, Record::new("user-7", "/checkout", NOW)).await?;
//! println!("offset {}", delivery.await?.offset());
//! producer.close().await?;
//!
//! let from_start = Assignment { topic: clicks, partition: 0, from: OffsetSpec::Beginning };
//! let mut consumer = client.consumer(ConsumerConfig { until: Until::End, ..ConsumerConfig::new([from_start]) });
//! while let Some(record) = consumer.next().await {
//!     let record = record?;
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(()) }
//! ```
//!
//! Invariants
//! - A record is acknowledged once, and stored once however often the connection breaks in between, as long as the
//!   broker remembers the producer; where that cannot be kept, the error says so.
//! - A consumer hands out every record from its place on once, in order, across reconnects.
//! - Every `async` method can be cancelled (in `select!`, by a timeout) without losing anything that was taken over:
//!   it is either done or not begun.
//!
//! Start at [`Client`].

mod admin;
mod client;
mod clock;
mod config;
mod consumer;
mod error;
mod identity;
mod link;
mod producer;
mod request;
mod session;
mod transport;
mod wire;

pub use protocol::{
    BatchBuilder, BatchError, Books, BreakerOpen, BreakerPolicy, CleanupPolicy, Compression, ErrorCode, Header,
    HeadersView, Isolation, LimitChanges, NameError, Offset, OnError, PartitionDescription, PluginDescription,
    PluginHash, PluginName, Record, RecordBatch, RecordError, Retention, TopicConfig, TopicDescription, TopicName,
    TopicPartition, TransformDescription, TransformLimits, TransformName, TransformSpec, TransformStats,
    TransformUsage, WireError,
    control::{
        AlterTopic, AlterTransform, BackupDone, BackupStatus, CreateTopic, DeployTransform, OffsetSpec, Placement,
        RestorableRun, StartBackup, Status, Welcome,
    },
};

pub use crate::{
    admin::Admin,
    client::Client,
    config::{Assignment, ClientConfig, ConsumerConfig, DeliveryMode, Partitioner, ProducerConfig, Until},
    consumer::{Batches, ConsumedBatch, ConsumedRecord, Consumer, RecordRef},
    error::{AdminError, ConnectError, ConsumeError, ProduceError},
    identity::{Identity, IdentityError},
    producer::{BatchDelivery, BatchHandle, Delivery, DeliveryHandle, NOW, Outcome, Producer},
};

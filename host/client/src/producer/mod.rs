//! The producer: gathers records into batches, sends them in order, and again until they are answered.
//!
//! ```text
//!   program's tasks                     one background task
//!   send --> accumulator --- closed batches ---> window per partition ---> PRODUCE
//!     ^        (encodes)                             |  ^                     |
//!     +------------------- delivery handles <--------+  +------- ACK, ERROR --+
//! ```
//! Start at [`Producer`].

mod accumulator;
mod delivery;
mod part;
mod sender;
mod window;

use std::sync::Arc;

use protocol::{
    BatchBuilder, BatchError, Books, Record, RecordBatch, TopicName, TopicPartition,
    control::{Request, Response},
};

pub use self::delivery::{BatchDelivery, BatchHandle, Delivery, DeliveryHandle, Outcome};
use self::{
    accumulator::{Shared, Topic, record_bytes},
    sender::Sender,
};
use crate::{
    clock,
    config::ProducerConfig,
    error::{AdminError, ProduceError},
    link::Link,
    request,
};

/// A record's timestamp that stands for the time of [`Producer::send`].
pub const NOW: i64 = -1;

/// Writes records to topics. Cheap to clone; clones share one identity, one buffer and one order.
///
/// Idempotent: a batch that is sent again after a broken connection is stored once. Records of one partition are stored
/// in the order of their `send`s.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use client::{NOW, ProducerConfig, Record};
///
/// let producer = client.producer(ProducerConfig::default());
/// let topic = "clicks".parse()?;
/// for user in 0..1_000 {
///     // Waits only when the producer's buffer is full.
///     let _delivery = producer.send(&topic, Record::new(format!("user-{user}"), "/", NOW)).await?;
/// }
/// producer.flush().await?;
/// println!("{:?}", producer.books());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    link: Link,
}

impl Producer {
    pub(crate) fn start(link: Link, config: ProducerConfig) -> Producer {
        let shared = Arc::new(Shared::new(config));
        tokio::spawn(Sender::new(link.clone(), Arc::clone(&shared)).run());
        Producer { inner: Arc::new(Inner { shared, link }) }
    }

    /// Hands a record over, to a partition the [partitioner](crate::Partitioner) chooses. Ready when the producer's
    /// buffer has room; the handle is ready when the record is durable. Cancelled before it is ready, the record is not
    /// taken over.
    ///
    /// A timestamp below 0 ([`NOW`]) becomes the present time.
    ///
    /// # Errors
    /// When the topic does not exist or the record is too large for it, or the producer has ended.
    pub async fn send(&self, topic: &TopicName, record: Record) -> Result<DeliveryHandle, ProduceError> {
        self.send_record(topic, None, record).await
    }

    /// Hands a record over, to this partition.
    ///
    /// # Errors
    /// As [`send`](Producer::send).
    pub async fn send_to(&self, partition: &TopicPartition, record: Record) -> Result<DeliveryHandle, ProduceError> {
        self.send_record(&partition.topic, Some(partition.partition), record).await
    }

    async fn send_record(
        &self,
        topic: &TopicName,
        partition: Option<u32>,
        mut record: Record,
    ) -> Result<DeliveryHandle, ProduceError> {
        let bytes = record_bytes(&record);
        let known = self.topic(topic).await?;
        if bytes > known.max_record_bytes {
            self.check_size(topic, bytes).await?;
        }
        if record.timestamp < 0 {
            record.timestamp = clock::unix_ms();
        }
        let shared = &self.inner.shared;
        let reserved = shared.reserve(bytes).await?;
        shared.append(topic, partition, &record, reserved)
    }

    /// A builder for [`send_batch`](Producer::send_batch) with this producer's compression and room for a batch.
    #[must_use]
    pub fn batch(&self) -> BatchBuilder {
        let config = &self.inner.shared.config;
        BatchBuilder::with_capacity(config.compression, config.batch_bytes)
    }

    /// Hands a whole batch over, to this partition: the quickest way, with one answer for all its records. Ready when
    /// the producer's buffer has room. Timestamps are sent as they are.
    ///
    /// # Errors
    /// When the batch is empty or the producer has ended.
    ///
    /// ```no_run
    /// # async fn example(producer: client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// # let now_ms = 1_700_000_000_000;
    /// let partition = client::TopicPartition { topic: "clicks".parse()?, partition: 0 };
    /// let mut batch = producer.batch();
    /// for index in 0..1_000 {
    ///     batch.append_parts(index, now_ms, None, Some(b"click"), std::iter::empty())?;
    /// }
    /// let delivery = producer.send_batch(&partition, batch).await?.await?;
    /// assert_eq!(delivery.books.records_in, 1_000);
    /// # Ok(()) }
    /// ```
    pub async fn send_batch(
        &self,
        partition: &TopicPartition,
        batch: BatchBuilder,
    ) -> Result<BatchHandle, ProduceError> {
        if batch.is_empty() {
            return Err(BatchError::NotProducible { rule: "it holds no record" }.into());
        }
        let shared = &self.inner.shared;
        let reserved = shared.reserve(batch.section_bytes()).await?;
        shared.append_batch(partition, batch.into(), reserved)
    }

    /// Hands a batch over that is encoded already, to this partition: a stored one that is copied, say, made fit by
    /// [`RecordBatch::into_produced`]. Its records travel as they are, compression included; producer and sequence
    /// become this producer's. Ready when the producer's buffer has room.
    ///
    /// # Errors
    /// When the batch is none that a client may send, or the producer has ended.
    ///
    /// ```no_run
    /// # async fn example(producer: client::Producer, consumed: client::ConsumedBatch) -> Result<(), Box<dyn std::error::Error>> {
    /// let copy = client::TopicPartition { topic: "copy".parse()?, partition: 0 };
    /// let delivery = producer.send_encoded(&copy, consumed.encoded().clone().into_produced()?).await?.await?;
    /// println!("copied to offset {}", delivery.base_offset);
    /// # Ok(()) }
    /// ```
    pub async fn send_encoded(
        &self,
        partition: &TopicPartition,
        batch: RecordBatch,
    ) -> Result<BatchHandle, ProduceError> {
        batch.check_produced()?;
        let shared = &self.inner.shared;
        let reserved = shared.reserve(batch.bytes().len()).await?;
        shared.append_batch(partition, batch.into(), reserved)
    }

    /// Sends what is gathered at once, and waits until everything handed over before is answered.
    ///
    /// # Errors
    /// With the first failure of any record since the last flush; each record's own is with its handle.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        self.inner.shared.flush().await
    }

    /// Flushes and ends the producer, for all clones: later sends fail.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub async fn close(self) -> Result<Books, ProduceError> {
        self.inner.shared.begin_close();
        self.flush().await?;
        Ok(self.books())
    }

    /// What became of all records answered so far.
    #[must_use]
    pub fn books(&self) -> Books {
        self.inner.shared.totals().books
    }

    /// Records that were handed over and failed.
    #[must_use]
    pub fn records_failed(&self) -> u64 {
        self.inner.shared.totals().failed
    }

    async fn topic(&self, name: &TopicName) -> Result<Topic, ProduceError> {
        match self.inner.shared.topic(name) {
            Some(topic) => Ok(topic),
            None => self.look_up(name).await,
        }
    }

    async fn look_up(&self, name: &TopicName) -> Result<Topic, ProduceError> {
        let failed = |cause| ProduceError::Topic { topic: name.clone(), cause };
        let request = Request::DescribeTopics(vec![name.clone()]);
        let found = match request::ask(&self.inner.link, &request).await.map_err(failed)? {
            Response::Topics(mut topics) => topics.pop(),
            _ => None,
        };
        let found =
            found.filter(|topic| !topic.partitions.is_empty()).ok_or_else(|| failed(AdminError::WrongAnswer))?;
        let topic = Topic {
            partitions: found.partitions.len() as u32,
            max_record_bytes: found.config.max_record_bytes as usize,
            sticky: 0,
        };
        self.inner.shared.set_topic(name.clone(), topic);
        Ok(topic)
    }

    /// A record is over the limit we know; it may have been raised.
    async fn check_size(&self, topic: &TopicName, bytes: usize) -> Result<(), ProduceError> {
        match self.look_up(topic).await?.max_record_bytes {
            limit if bytes > limit => Err(ProduceError::RecordTooLarge { bytes, limit, topic: topic.clone() }),
            _ => Ok(()),
        }
    }
}

impl Drop for Inner {
    /// What was handed over is still sent, as long as the runtime lives.
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

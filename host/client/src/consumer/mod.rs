//! The consumer: reads partitions from where the program says, in order, across reconnects.
//!
//! ```text
//!   a task per partition                          the program
//!   BATCH, GAP --> feed (bounded by credit) --> Consumer::next, next_batch
//!   CREDIT    <---------- bytes the program is done with
//! ```
//! Start at [`Consumer`].

mod batch;
mod feed;
mod partition;
mod reader;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use protocol::{Offset, TopicPartition, control::OffsetSpec, limits::CREDIT_BYTES_MAX};

pub use self::batch::{ConsumedBatch, ConsumedRecord, RecordRef};
use self::{feed::Arrivals, partition::Partition};
use crate::{
    config::{Assignment, ConsumerConfig},
    error::ConsumeError,
    link::Link,
};

/// The least share of the buffer a partition gets: a few small batches.
const ROOM_BYTES_MIN: u64 = 64 << 10;

/// Reads records of the partitions it was given; within a partition in order, each once. A [`Stream`] of records;
/// [`batches`](Consumer::batches) is one of batches.
///
/// Partitions take turns. When one fails, its error is handed out once and the others go on. The stream ends when
/// every partition has failed or, with [`Until::End`](crate::Until::End), is at its end.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use client::{Assignment, ConsumerConfig, OffsetSpec};
///
/// let clicks = Assignment { topic: "clicks".parse()?, partition: 0, from: OffsetSpec::End };
/// let mut consumer = client.consumer(ConsumerConfig::new([clicks]));
/// while let Some(batch) = consumer.next_batch().await {
///     for record in batch?.records() {
///         println!("{} {:?}", record.offset, record.value);
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Consumer {
    link: Link,
    config: ConsumerConfig,
    arrivals: Arc<Arrivals>,
    partitions: Vec<Partition>,
    /// Whose turn it is.
    turn: usize,
    /// The batch whose records are being handed out.
    cursor: Option<Cursor>,
}

struct Cursor {
    partition: usize,
    batch: ConsumedBatch,
    /// Where its next record begins in the section.
    at: usize,
}

impl Consumer {
    pub(crate) fn start(link: Link, config: ConsumerConfig) -> Consumer {
        let arrivals = Arc::<Arrivals>::default();
        let mut consumer = Consumer { link, config, arrivals, partitions: Vec::new(), turn: 0, cursor: None };
        for assignment in consumer.config.assignments.clone() {
            let partition = consumer.start_partition(&assignment.topic_partition(), assignment.from);
            consumer.partitions.push(partition);
        }
        consumer
    }

    fn start_partition(&self, partition: &TopicPartition, from: OffsetSpec) -> Partition {
        let share = self.config.buffer_bytes as u64 / self.config.assignments.len().max(1) as u64;
        let room = share.clamp(ROOM_BYTES_MIN, CREDIT_BYTES_MAX);
        Partition::start(self.link.clone(), partition.clone(), from, &self.config, Arc::clone(&self.arrivals), room)
    }

    /// The next record; `None` when there will be no more. Cancellation safe.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        std::future::poll_fn(|cx| self.poll_record(cx)).await
    }

    /// The next batch; `None` when there will be no more. Cancellation safe. The rest of a batch that
    /// [`next`](Consumer::next) has begun comes first.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, ConsumeError>> {
        std::future::poll_fn(|cx| self.poll_batch(cx)).await
    }

    /// The same as a [`Stream`] of batches.
    pub fn batches(&mut self) -> Batches<'_> {
        Batches { consumer: self }
    }

    /// Goes on at another place. What was read ahead of the old one is dropped.
    ///
    /// # Errors
    /// When the partition is not one of this consumer's.
    pub fn seek(&mut self, partition: &TopicPartition, to: OffsetSpec) -> Result<(), ConsumeError> {
        let index = self.index(partition).ok_or_else(|| ConsumeError::NotAssigned(partition.clone()))?;
        self.cursor.take_if(|cursor| cursor.partition == index);
        self.partitions[index] = self.start_partition(partition, to);
        Ok(())
    }

    /// What this consumer reads.
    #[must_use]
    pub fn assignments(&self) -> &[Assignment] {
        &self.config.assignments
    }

    /// The offset behind the last record handed out. `None` before the broker said where reading begins.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.index(partition).and_then(|index| self.partitions[index].position())
    }

    /// The end of the partition, as far as the broker has told. `None` before it said anything.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.index(partition).and_then(|index| self.partitions[index].high_watermark())
    }

    /// Whether everything that was in the partitions, when the broker last told of their ends, was handed out.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.cursor.is_none() && self.partitions.iter().all(Partition::is_at_end)
    }

    fn index(&self, partition: &TopicPartition) -> Option<usize> {
        self.partitions.iter().position(|known| known.name() == partition)
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumedRecord, ConsumeError>>> {
        loop {
            if let Some(cursor) = &mut self.cursor {
                if let Some((record, at)) = cursor.batch.record_at(cursor.at) {
                    cursor.at = at;
                    self.partitions[cursor.partition].advance(record.offset.plus(1));
                    return Poll::Ready(Some(Ok(record)));
                }
                self.end_cursor();
            }
            match self.poll_partitions(cx) {
                Poll::Ready(Some(Ok((partition, batch)))) => self.cursor = Some(Cursor { partition, batch, at: 0 }),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumedBatch, ConsumeError>>> {
        if let Some(cursor) = self.cursor.take() {
            let partition = &mut self.partitions[cursor.partition];
            let place = partition.position().unwrap_or_default();
            partition.advance(cursor.batch.next_offset());
            if let Some(rest) = cursor.batch.from(place) {
                return Poll::Ready(Some(Ok(rest)));
            }
        }
        self.poll_partitions(cx).map_ok(|(partition, batch)| {
            self.partitions[partition].advance(batch.next_offset());
            batch
        })
    }

    /// The next batch of the partition whose turn it is, or of the next one that has something.
    fn poll_partitions(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(usize, ConsumedBatch), ConsumeError>>> {
        self.arrivals.register(cx);
        for _ in 0..self.partitions.len() {
            let index = self.turn % self.partitions.len();
            self.turn = index + 1;
            if let Some(batch) = self.partitions[index].take() {
                return Poll::Ready(Some(batch.map(|batch| (index, batch))));
            }
        }
        if self.partitions.iter().all(Partition::is_over) { Poll::Ready(None) } else { Poll::Pending }
    }

    fn end_cursor(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            self.partitions[cursor.partition].advance(cursor.batch.next_offset());
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_record(cx)
    }
}

/// A consumer's batches as a [`Stream`]; see [`Consumer::batches`].
pub struct Batches<'a> {
    consumer: &'a mut Consumer,
}

impl Stream for Batches<'_> {
    type Item = Result<ConsumedBatch, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().consumer.poll_batch(cx)
    }
}

//! Where records become batches: what the program's threads and the sender's task share.
//!
//! Owns the open batch of every partition, the bound on memory, and the books. Records are encoded straight into the
//! batch's buffer. Never waits: callers reserve memory first ([`Shared::reserve`]).
//!
//! Invariants
//! - Batches of a partition are closed, and handed to the sender, in the order their first records came.
//! - Every batch has a number, from 0 in the order they were opened; `outstanding` holds those without an answer.
//!
//! Locks: `state` alone; a [`Cell`] is completed after it was let go.
//!
//! Start at [`Shared`].

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    BatchBuilder, BatchError, BatchProducer, Books, Offset, Record, RecordBatch, TopicName, TopicPartition,
    limits::HANDLES_PER_PRODUCER_MAX, partition_for_key,
};
use tokio::sync::{Notify, Semaphore};

use super::delivery::{BatchDelivery, BatchHandle, Cell, DeliveryHandle};
use crate::{
    clock::{self, Instant},
    config::{Partitioner, ProducerConfig},
    error::ProduceError,
};

/// What a record costs in a batch beside its bytes, at most, as long as it has few headers.
const RECORD_OVERHEAD_BYTES: usize = 32;

pub(super) struct Shared {
    pub(super) config: ProducerConfig,
    /// Wakes the sender: a batch was opened or closed, or the producer is closing.
    pub(super) work: Notify,
    state: Mutex<State>,
    memory: Semaphore,
    /// Callers that wait for memory: a batch must not linger while they do.
    short_of_memory: AtomicUsize,
    answered: Notify,
}

#[derive(Default)]
struct State {
    topics: HashMap<TopicName, Topic>,
    places: HashMap<TopicPartition, usize>,
    parts: Vec<Part>,
    /// Batches that are open, in the order of their deadlines; those closed meanwhile are skipped.
    lingering: VecDeque<(Instant, usize, u64)>,
    /// Closed batches the sender has not fetched, in order, with their part.
    closed: VecDeque<(usize, ClosedBatch)>,
    next_number: u64,
    outstanding: BTreeSet<u64>,
    totals: Totals,
    /// The first failure since the last flush.
    failure: Option<ProduceError>,
    /// Why nothing is taken any more.
    stopped: Option<ProduceError>,
    closing: bool,
}

/// What is known of a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topic {
    pub(super) partitions: u32,
    pub(super) max_record_bytes: usize,
    /// Where unkeyed records go at present.
    pub(super) sticky: u32,
}

struct Part {
    partition: TopicPartition,
    open: Option<OpenBatch>,
}

struct OpenBatch {
    builder: BatchBuilder,
    ticket: BatchTicket,
}

/// What stays of a batch until it is answered.
pub(super) struct BatchTicket {
    pub(super) cell: Arc<Cell>,
    number: u64,
    /// Memory reserved for it.
    cost: usize,
    records: u32,
    pub(super) deadline: Instant,
}

/// A batch that takes no more records.
pub(super) struct ClosedBatch {
    pub(super) content: Content,
    pub(super) ticket: BatchTicket,
}

/// The records of a closed batch.
pub(super) enum Content {
    /// Still to be sealed: the sender knows the producer by then, so the bytes are gone over once.
    Open(BatchBuilder),
    /// As the program gave them.
    Encoded(RecordBatch),
}

impl From<BatchBuilder> for Content {
    fn from(builder: BatchBuilder) -> Content {
        Content::Open(builder)
    }
}

impl From<RecordBatch> for Content {
    fn from(batch: RecordBatch) -> Content {
        Content::Encoded(batch)
    }
}

impl Content {
    pub(super) fn record_count(&self) -> u32 {
        match self {
            Content::Open(builder) => builder.record_count(),
            Content::Encoded(batch) => batch.header().record_count,
        }
    }

    /// The batch as it travels, by this producer where it is known.
    pub(super) fn seal(self, producer: Option<BatchProducer>) -> Result<RecordBatch, BatchError> {
        match (self, producer) {
            (Content::Open(mut builder), producer) => {
                producer.map(|producer| builder.producer(producer));
                builder.finish(Offset::ZERO)
            }
            (Content::Encoded(batch), Some(producer)) => Ok(batch.with_producer(producer)),
            (Content::Encoded(batch), None) => Ok(batch),
        }
    }
}

/// Sums over a producer's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) books: Books,
    pub(super) failed: u64,
}

/// Memory for a record or batch that is about to be taken over.
pub(super) struct Reserved<'a> {
    permit: tokio::sync::SemaphorePermit<'a>,
    cost: usize,
}

/// A caller that waits for memory, counted; given up when it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn begin(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a record's key, value and headers.
pub(super) fn record_bytes(record: &Record) -> usize {
    let len = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.name.len() + len(&header.value)).sum();
    len(&record.key) + len(&record.value) + headers
}

impl Shared {
    pub(super) fn new(config: ProducerConfig) -> Shared {
        let memory = Semaphore::new(config.buffer_bytes.clamp(1, u32::MAX as usize >> 4));
        Shared {
            config,
            work: Notify::new(),
            state: Mutex::default(),
            memory,
            short_of_memory: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    fn cost(&self, bytes: usize) -> usize {
        // Something larger than the whole buffer waits for all of it.
        bytes.clamp(1, self.config.buffer_bytes.clamp(1, u32::MAX as usize >> 4))
    }

    /// Memory for `bytes`; waits until there is some, at most the delivery timeout.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reserved<'_>, ProduceError> {
        let cost = self.cost(bytes);
        if let Ok(permit) = self.memory.try_acquire_many(cost as u32) {
            return Ok(Reserved { permit, cost });
        }
        let _waiting = Waiting::begin(&self.short_of_memory);
        self.close_all();
        let waited = self.config.delivery_timeout;
        match tokio::time::timeout(waited, self.memory.acquire_many(cost as u32)).await {
            Ok(Ok(permit)) => Ok(Reserved { permit, cost }),
            Ok(Err(_)) => Err(self.why_stopped()),
            Err(_) => {
                let last = "the producer's buffer stayed full".to_owned();
                Err(ProduceError::TimedOut { waited, sent: false, last, code: None })
            }
        }
    }

    pub(super) fn topic(&self, name: &TopicName) -> Option<Topic> {
        self.state.lock().topics.get(name).copied()
    }

    pub(super) fn set_topic(&self, name: TopicName, topic: Topic) {
        let mut state = self.state.lock();
        let sticky = state.topics.get(&name).map_or(0, |known| known.sticky);
        state.topics.insert(name, Topic { sticky, ..topic });
    }

    /// Takes a record of a known topic over.
    pub(super) fn append(
        &self,
        topic: &TopicName,
        partition: Option<u32>,
        record: &Record,
        reserved: Reserved<'_>,
    ) -> Result<DeliveryHandle, ProduceError> {
        let mut state = self.state.lock();
        state.check_open()?;
        let part = match partition {
            Some(partition) => state.part(topic, partition)?,
            None => state.partition_of(topic, record, self.config.partitioner)?,
        };
        let full = |builder: &BatchBuilder, more: usize| {
            builder.section_bytes() + more > self.config.batch_bytes
                || builder.record_count() >= self.config.batch_records
        };
        let mut wake = false;
        if state.parts[part]
            .open
            .as_ref()
            .is_some_and(|open| full(&open.builder, reserved.cost + RECORD_OVERHEAD_BYTES))
        {
            state.close(part);
            wake = true;
        }
        let index = match state.append_open(part, record) {
            Some(index) => index?,
            None => {
                // Wakes the sender so that it learns of the new deadline.
                wake = true;
                state.open(part, &self.config, record)?
            }
        };
        let open = state.parts[part].open.as_mut().expect("it was appended to");
        open.ticket.cost += reserved.cost;
        reserved.permit.forget();
        let handle = DeliveryHandle::new(Arc::clone(&open.ticket.cell), index);
        if full(&open.builder, 0) || self.short_of_memory.load(Ordering::Relaxed) > 0 {
            state.close(part);
            wake = true;
        }
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(handle)
    }

    /// Takes a whole batch over.
    pub(super) fn append_batch(
        &self,
        partition: &TopicPartition,
        content: Content,
        reserved: Reserved<'_>,
    ) -> Result<BatchHandle, ProduceError> {
        let mut state = self.state.lock();
        state.check_open()?;
        let part = state.part(&partition.topic, partition.partition)?;
        state.close(part);
        let mut ticket = state.ticket(self.config.delivery_timeout);
        ticket.cost = reserved.cost;
        ticket.records = content.record_count();
        reserved.permit.forget();
        let handle = BatchHandle::new(Arc::clone(&ticket.cell));
        state.closed.push_back((part, ClosedBatch { content, ticket }));
        drop(state);
        self.work.notify_one();
        Ok(handle)
    }

    /// Sends what is gathered at once, and waits until everything taken over before the call is answered. The first
    /// failure since the last flush.
    pub(super) async fn flush(&self) -> Result<(), ProduceError> {
        let target = self.close_all();
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            // Registers before the look, so that no answer between look and wait is missed.
            answered.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.outstanding.first().is_none_or(|oldest| *oldest >= target) {
                    return state.failure.take().map_or(Ok(()), Err);
                }
            }
            answered.await;
        }
    }

    /// No more records; the sender ends when everything is answered.
    pub(super) fn begin_close(&self) {
        self.state.lock().closing = true;
        self.close_all();
    }

    /// Closes every open batch. Returns the number of the next one to be opened.
    fn close_all(&self) -> u64 {
        let next_number = {
            let mut state = self.state.lock();
            state.close_all();
            state.next_number
        };
        self.work.notify_one();
        next_number
    }

    pub(super) fn totals(&self) -> Totals {
        self.state.lock().totals
    }

    fn why_stopped(&self) -> ProduceError {
        self.state.lock().stopped.clone().unwrap_or(ProduceError::Closed)
    }

    // What follows is the sender's side.

    /// Closed batches, in order, with the number of their part; closes those that are old enough.
    pub(super) fn take_closed(&self, now: Instant) -> VecDeque<(usize, ClosedBatch)> {
        let mut state = self.state.lock();
        while let Some((due, part, number)) = state.lingering.front().copied() {
            let is_open = state.parts[part].open.as_ref().is_some_and(|open| open.ticket.number == number);
            if is_open && due > now {
                break;
            }
            state.lingering.pop_front();
            if is_open {
                state.close(part);
            }
        }
        std::mem::take(&mut state.closed)
    }

    /// When the next open batch is old enough.
    pub(super) fn next_linger(&self) -> Option<Instant> {
        self.state.lock().lingering.front().map(|(due, ..)| *due)
    }

    pub(super) fn partition(&self, part: usize) -> TopicPartition {
        self.state.lock().parts[part].partition.clone()
    }

    /// Whether the producer is closing and nothing is unanswered.
    pub(super) fn is_finished(&self) -> bool {
        let state = self.state.lock();
        state.closing && state.outstanding.is_empty()
    }

    /// Whether anything is unanswered.
    pub(super) fn has_work(&self) -> bool {
        !self.state.lock().outstanding.is_empty()
    }

    /// A batch is answered.
    pub(super) fn answer(&self, ticket: &BatchTicket, answer: Result<BatchDelivery, ProduceError>) {
        {
            let mut state = self.state.lock();
            state.outstanding.remove(&ticket.number);
            match &answer {
                Ok(delivery) => state.totals.books.add(&delivery.books),
                Err(error) => {
                    state.totals.failed += u64::from(ticket.records);
                    state.failure.get_or_insert_with(|| error.clone());
                }
            }
        }
        self.memory.add_permits(ticket.cost);
        ticket.cell.complete(answer.map(Arc::new));
        self.answered.notify_waiters();
    }

    /// Nothing is taken any more; returns what the sender does not know of yet.
    pub(super) fn stop(&self, why: ProduceError) -> VecDeque<(usize, ClosedBatch)> {
        let mut state = self.state.lock();
        state.stopped.get_or_insert(why);
        state.close_all();
        let rest = std::mem::take(&mut state.closed);
        drop(state);
        self.memory.close();
        rest
    }
}

impl State {
    fn check_open(&self) -> Result<(), ProduceError> {
        match &self.stopped {
            Some(why) => Err(why.clone()),
            None if self.closing => Err(ProduceError::Closed),
            None => Ok(()),
        }
    }

    fn part(&mut self, topic: &TopicName, partition: u32) -> Result<usize, ProduceError> {
        let partition = TopicPartition { topic: topic.clone(), partition };
        if let Some(part) = self.places.get(&partition) {
            return Ok(*part);
        }
        if self.parts.len() >= HANDLES_PER_PRODUCER_MAX {
            return Err(ProduceError::TooManyPartitions { limit: HANDLES_PER_PRODUCER_MAX });
        }
        self.parts.push(Part { partition: partition.clone(), open: None });
        self.places.insert(partition, self.parts.len() - 1);
        Ok(self.parts.len() - 1)
    }

    fn partition_of(&mut self, name: &TopicName, record: &Record, by: Partitioner) -> Result<usize, ProduceError> {
        let topic = self.topics.get(name).expect("the topic was looked up before");
        let partition = match (&record.key, by) {
            (Some(key), Partitioner::Keyed) => partition_for_key(key, topic.partitions),
            _ => topic.sticky,
        };
        self.part(name, partition)
    }

    /// Appends to the open batch; `None` when there is none, or it took no more and was closed.
    fn append_open(&mut self, part: usize, record: &Record) -> Option<Result<u32, ProduceError>> {
        let open = self.parts[part].open.as_mut()?;
        let index = open.builder.record_count();
        match open.builder.append(record) {
            Ok(()) => {
                open.ticket.records += 1;
                Some(Ok(index))
            }
            Err(BatchError::Budget { .. } | BatchError::TooManyRecords { .. }) => {
                self.close(part);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Opens a batch with its first record.
    fn open(&mut self, part: usize, config: &ProducerConfig, record: &Record) -> Result<u32, ProduceError> {
        let mut builder = BatchBuilder::with_capacity(config.compression, config.batch_bytes);
        builder.append(record)?;
        let mut ticket = self.ticket(config.delivery_timeout);
        ticket.records = 1;
        let due = clock::now() + config.linger;
        self.lingering.push_back((due, part, ticket.number));
        self.parts[part].open = Some(OpenBatch { builder, ticket });
        Ok(0)
    }

    fn ticket(&mut self, timeout: Duration) -> BatchTicket {
        let number = self.next_number;
        self.next_number += 1;
        self.outstanding.insert(number);
        let deadline = clock::now() + timeout;
        BatchTicket { cell: Arc::default(), number, cost: 0, records: 0, deadline }
    }

    fn close(&mut self, part: usize) {
        let Some(OpenBatch { builder, ticket }) = self.parts[part].open.take() else { return };
        self.closed.push_back((part, ClosedBatch { content: builder.into(), ticket }));
        // Unkeyed records move on with each batch, so that partitions fill evenly in whole batches.
        let Part { partition, .. } = &self.parts[part];
        if let Some(topic) = self.topics.get_mut(&partition.topic)
            && topic.sticky == partition.partition
        {
            topic.sticky = (topic.sticky + 1) % topic.partitions;
        }
    }

    fn close_all(&mut self) {
        for part in 0..self.parts.len() {
            self.close(part);
        }
        self.lingering.clear();
    }
}

#[cfg(test)]
#[path = "accumulator_tests.rs"]
mod tests;

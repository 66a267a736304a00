//! One partition, to produce to and fetch from: where a batch enters the core, and where readers wait.
//!
//! Owns the checks that need nobody else (records valid, not over the topic's limit) and the waiting. The order of
//! batches is the sequencer's, the reading is the store's.
//!
//! Invariants
//! - `produce` never blocks and never awaits: the order of the calls is the order of the batches.
//! - Nothing from the disk is read on the caller's thread.
//!
//! Start at [`Partition::produce`].

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use protocol::{
    BatchError, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, Sequence, TopicName,
    TopicPartition, control::OffsetSpec, limits::DECOMPRESSED_BYTES_MAX, records,
};
use storage::{PartitionPlace, ReadError, ReadOutcome, Store};
use tokio::sync::oneshot;

use crate::{
    FetchError, ProduceError,
    blocking::{self, Ended},
    core::{Core, Mark, Settings, Slot},
    sequencer::Outcome,
};

/// A partition of a running broker. Outlives its topic: then everything answers that it is gone.
pub struct Partition {
    slot: Arc<Slot>,
    core: Arc<Core>,
}

/// The answer to a produced batch, when it comes. Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "a batch is stored when its ticket says so"]
pub struct ProduceTicket(oneshot::Receiver<Outcome>);

/// What is durable of a producer in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerPlace {
    /// Epoch of its last durable batch; an older one is fenced.
    pub epoch: Epoch,
    /// The sequence after its last durable record.
    pub next_sequence: Sequence,
}

impl Future for ProduceTicket {
    type Output = Result<ProduceAnswer, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        // Whoever dropped the sender took the broker down with it.
        let outcome = outcome.unwrap_or(Err(ProduceError::ShuttingDown));
        Poll::Ready(outcome.map(Arc::unwrap_or_clone))
    }
}

impl Partition {
    pub(crate) fn new(slot: Arc<Slot>, core: Arc<Core>) -> Partition {
        Partition { slot, core }
    }

    /// Its id in the store.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.slot.id
    }

    /// Its topic and number.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.slot.place
    }

    /// Hands over a batch. Batches take their order from the order of the calls. Never blocks: the caller bounds what
    /// it has unanswered.
    ///
    /// A batch that fails retriably makes those of its producer behind it fail retriably or as out of order: retry
    /// them all, in order.
    pub fn produce(&self, batch: RecordBatch) -> ProduceTicket {
        let (waiter, ticket) = oneshot::channel();
        match self.check(&batch) {
            Ok(checked) => {
                let offer = |sequencer: &mut crate::core::Lanes, effects: &mut _| {
                    sequencer.offer(self.slot.id, batch, checked, waiter, effects);
                };
                self.core.sequence(offer);
            }
            Err(error) => self.core.sequence(|sequencer, effects| {
                sequencer.offer_refused(self.slot.id, batch.header(), error, waiter, effects);
            }),
        }
        ProduceTicket(ticket)
    }

    /// Checks what can be checked now; says whether the records were. A pipeline unfolds and checks them itself.
    fn check(&self, batch: &RecordBatch) -> Result<bool, ProduceError> {
        batch.check_produced().map_err(ProduceError::Batch)?;
        let settings = self.slot.settings();
        if !settings.deployment.is_empty() {
            return Ok(false);
        }
        check_records(batch, &settings, &self.slot.place.topic)?;
        Ok(true)
    }

    /// Whole batches from `from` on, about `max_bytes` of them, the first even if it is larger. From memory at once,
    /// from the disk on the runtime's blocking threads.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, from: Offset, max_bytes: usize) -> Result<ReadOutcome, FetchError> {
        let id = self.slot.id;
        if let Some(outcome) = self.core.store.read_tail(id, from, max_bytes) {
            return Ok(outcome);
        }
        self.on_disk(move |store| store.read(id, from, max_bytes)).await
    }

    /// Waits until the high watermark is above `offset`.
    ///
    /// # Errors
    /// When the partition is deleted or the broker shuts down.
    pub async fn wait_for(&self, offset: Offset) -> Result<(), FetchError> {
        let mut mark = self.slot.mark.subscribe();
        let reached = |mark: &Mark| !matches!(mark, Mark::At(high_watermark) if *high_watermark <= offset);
        // The sender lives in `self.slot`, so it cannot be gone.
        match mark.wait_for(reached).await.as_deref() {
            Ok(Mark::At(_)) => Ok(()),
            Ok(Mark::Gone) => Err(FetchError::PartitionGone),
            Ok(Mark::Closing) | Err(_) => Err(FetchError::ShuttingDown),
        }
    }

    /// Where it stands; `None` when it was deleted.
    #[must_use]
    pub fn place(&self) -> Option<PartitionPlace> {
        self.core.store.partition(self.slot.id)
    }

    /// Turns a place into an offset.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn find_offset(&self, spec: OffsetSpec) -> Result<Offset, FetchError> {
        let PartitionPlace { log_start_offset, high_watermark, .. } = self.place().ok_or(FetchError::PartitionGone)?;
        match spec {
            OffsetSpec::Beginning => Ok(log_start_offset),
            OffsetSpec::End => Ok(high_watermark),
            OffsetSpec::At(offset) if (log_start_offset..=high_watermark).contains(&offset) => Ok(offset),
            OffsetSpec::At(offset) => Err(FetchError::OffsetOutOfRange { offset, log_start_offset, high_watermark }),
            OffsetSpec::Timestamp(timestamp_ms) => {
                let id = self.slot.id;
                let found = self.on_disk(move |store| store.offset_for_timestamp(id, timestamp_ms)).await?;
                Ok(found.unwrap_or(high_watermark))
            }
        }
    }

    /// What is durable of a producer here; `None` when nothing is remembered.
    #[must_use]
    pub fn producer_place(&self, producer: ProducerId) -> Option<ProducerPlace> {
        let place = self.core.sequence(|sequencer, _| sequencer.producer_place(self.slot.id, producer));
        place.map(|(epoch, next_sequence)| ProducerPlace { epoch, next_sequence })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let store = self.core.store.clone();
        match blocking::run(move || read(&store)).await {
            Ok(read) => read.map_err(FetchError::of_read),
            Err(Ended) => Err(FetchError::ShuttingDown),
        }
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("id", &self.slot.id).field("place", &self.slot.place).finish_non_exhaustive()
    }
}

/// Unfolds a batch under the budget and checks its records.
pub(crate) fn check_records(batch: &RecordBatch, settings: &Settings, topic: &TopicName) -> Result<(), ProduceError> {
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).map_err(ProduceError::Batch)?;
    let checked = batch.validate_records(&section, settings.max_record_bytes as usize);
    checked.map_err(|error| refused(error, topic))?;
    if settings.keyed { check_keys(&section, topic) } else { Ok(()) }
}

/// A record without a key would stay in a compacted topic for ever. The whole batch is refused, as Kafka does.
fn check_keys(section: &[u8], topic: &TopicName) -> Result<(), ProduceError> {
    for (index, record) in (0..).zip(records(section)) {
        if record.map_err(ProduceError::Batch)?.key.is_none() {
            return Err(ProduceError::KeyMissing { index, topic: topic.clone() });
        }
    }
    Ok(())
}

/// A refused batch, with the topic's name where the topic's limit was passed.
pub(crate) fn refused(error: BatchError, topic: &TopicName) -> ProduceError {
    match error {
        BatchError::RecordTooLarge { index, bytes, limit } => {
            ProduceError::RecordTooLarge { index, bytes, limit, topic: topic.clone() }
        }
        error => ProduceError::Batch(error),
    }
}

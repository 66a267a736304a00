//! One partition, to produce to and fetch from.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use protocol::{
    Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, Sequence, TopicPartition, control::OffsetSpec,
};
use storage::{PartitionPlace, ReadOutcome};

use crate::{FetchError, ProduceError};

/// A partition of a running broker. Outlives its topic: then everything answers that it is gone.
pub struct Partition {}

/// The answer to a produced batch, when it comes. Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "a batch is stored when its ticket says so"]
pub struct ProduceTicket {}

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

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Partition {
    /// Its id in the store.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        todo!()
    }

    /// Its topic and number.
    #[must_use]
    pub fn topic_partition(&self) -> &TopicPartition {
        todo!()
    }

    /// Hands over a batch. Batches take their order from the order of the calls. Never blocks: the caller bounds what
    /// it has unanswered.
    ///
    /// A batch that fails retriably makes those of its producer behind it fail retriably or as out of order: retry
    /// them all, in order.
    pub fn produce(&self, _batch: RecordBatch) -> ProduceTicket {
        todo!()
    }

    /// Whole batches from `from` on, about `max_bytes` of them, the first even if it is larger. From memory at once,
    /// from the disk on the runtime's blocking threads.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, _from: Offset, _max_bytes: usize) -> Result<ReadOutcome, FetchError> {
        todo!()
    }

    /// Waits until the high watermark is above `offset`.
    ///
    /// # Errors
    /// When the partition is deleted or the broker shuts down.
    pub async fn wait_for(&self, _offset: Offset) -> Result<(), FetchError> {
        todo!()
    }

    /// Where it stands; `None` when it was deleted.
    #[must_use]
    pub fn place(&self) -> Option<PartitionPlace> {
        todo!()
    }

    /// Turns a place into an offset.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn find_offset(&self, _spec: OffsetSpec) -> Result<Offset, FetchError> {
        todo!()
    }

    /// What is durable of a producer here; `None` when nothing is remembered.
    #[must_use]
    pub fn producer_place(&self, _producer: ProducerId) -> Option<ProducerPlace> {
        todo!()
    }
}

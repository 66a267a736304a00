//! One partition as the sequencer sees it: where it is, what waits, what its producers did.
//!
//! Owns no decision that concerns another partition.
//!
//! Invariants
//! - `next_offset` is behind everything that was handed over and has not failed.
//! - Batches leave `waiting` from the front, one at a time, and only while the stage is idle.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    BatchHeader, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, Sequence,
    limits::PRODUCERS_PER_PARTITION_MAX,
};
use storage::{StateChange, StateTable};

use super::{
    BatchId, Finished, RunId,
    queue::{Place, Queued},
    window::{Check, PRODUCER_KEY_BYTES, Stamp, Window},
};
use crate::errors::ProduceError;

/// A batch that has its place in the order, and not yet its offsets.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: BatchId,
    pub(crate) numbered: Option<Numbered>,
    pub(crate) batch: RecordBatch,
    pub(crate) checked: bool,
    /// What it holds of the room for batches that wait; none where it need not.
    pub(crate) place: Option<Place>,
}

/// A producer's stamp and the number its window gave the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered {
    pub(crate) stamp: Stamp,
    pub(crate) number: u64,
}

/// Where the batch in hand is.
#[derive(Debug)]
pub(crate) enum Stage {
    Idle,
    /// On a worker; its span is not known. `batch` is taken out when the lane falls back meanwhile: the run is void.
    Running {
        run: RunId,
        batch: Option<(BatchId, Option<Numbered>)>,
    },
    /// Finished, and waiting for a target that runs.
    Pending {
        id: BatchId,
        numbered: Option<Numbered>,
        finished: Finished,
    },
}

/// What a lane begins with.
#[derive(Debug)]
pub(crate) struct LaneStart {
    /// Names the topic: the id of its first partition.
    pub(crate) group: PartitionId,
    pub(crate) next_offset: Offset,
    pub(crate) producers: BTreeMap<ProducerId, Window>,
    pub(crate) piped: bool,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) group: PartitionId,
    pub(crate) next_offset: Offset,
    pub(crate) producers: BTreeMap<ProducerId, Window>,
    /// Rows of producers that were forgotten; removed with the next batch.
    pub(crate) forgotten: Vec<[u8; PRODUCER_KEY_BYTES]>,
    /// Whether the topic has a pipeline.
    pub(crate) piped: bool,
    /// Why a transform stopped the partition.
    pub(crate) paused: Option<Arc<str>>,
    pub(crate) waiting: VecDeque<Accepted>,
    pub(crate) queued: Queued,
    pub(crate) stage: Stage,
    /// Whether it stands in the ready queue.
    pub(crate) ready: bool,
    /// Its partition is being deleted: nothing is taken.
    pub(crate) closed: bool,
}

impl Lane {
    pub(crate) fn new(start: LaneStart) -> Lane {
        Lane {
            group: start.group,
            next_offset: start.next_offset,
            producers: start.producers,
            forgotten: Vec::new(),
            piped: start.piped,
            paused: None,
            waiting: VecDeque::new(),
            queued: Queued::default(),
            stage: Stage::Idle,
            ready: false,
            closed: false,
        }
    }

    /// Whether the next batch needs no worker, and nothing before it does.
    pub(crate) fn is_direct(&self) -> bool {
        !self.piped && self.waiting.is_empty() && matches!(self.stage, Stage::Idle)
    }

    pub(crate) fn check(&self, stamp: &Stamp) -> Result<Check, ProduceError> {
        match self.producers.get(&stamp.producer) {
            Some(window) => window.check(stamp),
            None => Window::default().check(stamp),
        }
    }

    /// Takes a new batch into its producer's window.
    pub(crate) fn number(&mut self, partition: PartitionId, stamp: Stamp, id: BatchId) -> Numbered {
        if self.producers.len() >= PRODUCERS_PER_PARTITION_MAX && !self.producers.contains_key(&stamp.producer) {
            self.forget_longest_idle(partition);
        }
        let number = self.producers.entry(stamp.producer).or_default().push(&stamp, id);
        Numbered { stamp, number }
    }

    fn forget_longest_idle(&mut self, partition: PartitionId) {
        let idle = self.producers.iter().filter(|(_, window)| window.is_durable());
        if let Some(producer) = idle.min_by_key(|(_, window)| window.last_batch()).map(|(producer, _)| *producer)
            && let Some(window) = self.producers.remove(&producer)
        {
            self.forgotten.extend(window.row_keys(partition, producer));
        }
    }

    /// The keys of all rows that its producers have, or will when what is in flight is durable.
    pub(crate) fn row_keys(&self, partition: PartitionId) -> impl Iterator<Item = [u8; PRODUCER_KEY_BYTES]> {
        let windows = self.producers.iter();
        let known = windows.flat_map(move |(producer, window)| window.row_keys(partition, *producer));
        known.chain(self.forgotten.iter().copied())
    }

    pub(crate) fn make_durable(&mut self, numbered: &Numbered, answer: Arc<ProduceAnswer>) {
        if let Some(window) = self.producers.get_mut(&numbered.stamp.producer) {
            window.make_durable(numbered.number, answer);
        }
    }

    /// A batch was refused: takes it and what its producer sent after it out of the window and out of the line;
    /// returns those after it.
    pub(crate) fn take_back(&mut self, numbered: &Numbered) -> Vec<BatchId> {
        let Some(window) = self.producers.get_mut(&numbered.stamp.producer) else { return Vec::new() };
        let followers = window.take_back(numbered.number);
        if window.is_empty() {
            self.producers.remove(&numbered.stamp.producer);
        }
        self.waiting.retain(|accepted| !followers.contains(&accepted.id));
        followers
    }

    /// Takes everything that waits out of the line; returns it in order.
    pub(crate) fn clear(&mut self) -> Vec<BatchId> {
        let mut cleared = Vec::new();
        match &mut self.stage {
            Stage::Idle => {}
            Stage::Running { batch, .. } => cleared.extend(batch.take().map(|(id, _)| id)),
            Stage::Pending { id, .. } => {
                cleared.push(*id);
                self.stage = Stage::Idle;
            }
        }
        for accepted in std::mem::take(&mut self.waiting) {
            cleared.push(accepted.id);
            if let Some(numbered) = accepted.numbered {
                self.take_back(&numbered);
            }
        }
        cleared
    }

    /// These batches are lost: takes them out of the windows.
    pub(crate) fn forget(&mut self, lost: &BTreeSet<BatchId>) {
        self.producers.values_mut().for_each(|window| window.forget(lost));
        self.producers.retain(|_, window| !window.is_empty());
    }
}

/// Removes a row of a producer.
pub(crate) fn remove_row(key: &[u8; PRODUCER_KEY_BYTES]) -> StateChange {
    StateChange { table: StateTable::Producers, key: Bytes::copy_from_slice(key), value: None }
}

impl Stamp {
    /// The stamp of a batch; `None` when its producer is not idempotent.
    pub(crate) fn of(header: &BatchHeader) -> Option<Stamp> {
        Some(Stamp {
            producer: ProducerId(u64::try_from(header.producer_id).ok()?),
            epoch: Epoch(header.producer_epoch.max(0) as u16),
            base_sequence: Sequence(header.base_sequence.max(0) as u32),
            record_count: header.record_count,
        })
    }
}

//! One partition as the sequencer sees it: where it is, what waits, what its producers did.
//!
//! Owns no decision that concerns another partition.
//!
//! Invariants
//! - `durable_offset <= next_offset`; the commits in flight lie between them.
//! - Batches leave `waiting` from the front, one at a time, and only while the stage is idle.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use protocol::{BatchHeader, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, Sequence};

use super::{
    BatchId, Finished, RunId,
    window::{Check, Stamp, Window},
};
use crate::errors::ProduceError;

/// A batch that has its place in the order, and not yet its offsets.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: BatchId,
    pub(crate) numbered: Option<Numbered>,
    pub(crate) batch: RecordBatch,
    pub(crate) checked: bool,
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
    /// Changes when the lane falls back: a commit or run of another generation is not its own any more.
    pub(crate) generation: u64,
    pub(crate) group: PartitionId,
    pub(crate) durable_offset: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) producers: BTreeMap<ProducerId, Window>,
    /// Whether the topic has a pipeline.
    pub(crate) piped: bool,
    /// Why a transform stopped the partition.
    pub(crate) paused: Option<Arc<str>>,
    pub(crate) waiting: VecDeque<Accepted>,
    pub(crate) stage: Stage,
    /// Whether it stands in the ready queue.
    pub(crate) ready: bool,
}

impl Lane {
    pub(crate) fn new(generation: u64, start: LaneStart) -> Lane {
        Lane {
            generation,
            group: start.group,
            durable_offset: start.next_offset,
            next_offset: start.next_offset,
            producers: start.producers,
            piped: start.piped,
            paused: None,
            waiting: VecDeque::new(),
            stage: Stage::Idle,
            ready: false,
        }
    }

    /// Whether the batch that was just put in line needs no worker and nothing before it does.
    pub(crate) fn is_direct(&self) -> bool {
        !self.piped && self.waiting.len() == 1 && matches!(self.stage, Stage::Idle)
    }

    pub(crate) fn check(&self, stamp: &Stamp) -> Result<Check, ProduceError> {
        match self.producers.get(&stamp.producer) {
            Some(window) => window.check(stamp),
            None => Window::default().check(stamp),
        }
    }

    /// Takes a new batch into its producer's window.
    pub(crate) fn number(&mut self, stamp: Stamp, id: BatchId) -> Numbered {
        let number = self.producers.entry(stamp.producer).or_default().push(&stamp, id);
        Numbered { stamp, number }
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

    /// Goes back to what is durable; returns the batches in line, which are lost.
    pub(crate) fn fall_back(&mut self) -> Vec<BatchId> {
        let lost = self.clear();
        self.ready = false;
        self.next_offset = self.durable_offset;
        self.producers.values_mut().for_each(Window::fall_back);
        self.producers.retain(|_, window| !window.is_empty());
        lost
    }
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

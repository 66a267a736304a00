//! Turns finished batches into commits: gives them their offsets, in every partition they go to.
//!
//! Owns the rule for batches that wait for each other. A finished batch may go into partitions whose own batch is in
//! its pipeline; the span of that one is not known, so nothing can be placed behind it, and the finished one is *pending*.
//! Pendings that wait for each other (A routes to B while B routes to A) are one commit.
//!
//! Invariants
//! - Pendings wait for runs only, and runs wait for nothing: there is no deadlock.
//! - What a run was waited for is settled before its partition runs again: there is no starvation.
//! - In a merged commit each partition takes its own batch first, then what is routed to it, by source partition.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use protocol::{Offset, PartitionId, ProduceAnswer, RecordBatch};
use storage::{Append, Commit, StateChange};

use super::{
    BatchId, Effects, Finished, Flight, FlightBatch, FlightId, Numbered, Sequencer, Stage, Touch, lane::remove_row,
};
use crate::errors::ProduceError;

/// What one batch puts into another partition.
#[derive(Debug)]
pub(crate) struct RoutedBatches {
    pub(crate) target: PartitionId,
    /// In order; their base offsets are set when they get their place.
    pub(crate) batches: Vec<RecordBatch>,
}

/// Where a pending batch and all that it waits for stand.
enum Closure {
    /// These can go, together.
    Complete(BTreeSet<PartitionId>),
    /// A target of this one runs.
    Waits,
    /// This pending names a partition that is gone.
    Broken(PartitionId),
}

/// A finished batch on its way into a commit.
struct Settled {
    partition: PartitionId,
    id: BatchId,
    numbered: Option<Numbered>,
    finished: Finished,
}

impl<W> Sequencer<W> {
    /// Commits every pending batch that waits for no run, the smallest circles first, so that only batches that
    /// really wait for each other share a commit.
    pub(super) fn settle(&mut self, effects: &mut Effects<W>) {
        while let Some(circle) = self.settle_round(effects) {
            self.submit(&circle, effects);
        }
    }

    /// One look at every pending batch: those that stand alone go at once. Returns the smallest circle when no batch
    /// stood alone.
    fn settle_round(&mut self, effects: &mut Effects<W>) -> Option<BTreeSet<PartitionId>> {
        loop {
            let mut smallest: Option<BTreeSet<PartitionId>> = None;
            let mut moved = false;
            for partition in self.pending.clone() {
                if !self.pending.contains(&partition) {
                    continue; // It was refused along the way.
                }
                match self.closure(partition) {
                    Closure::Waits => {}
                    Closure::Broken(at) => {
                        self.refuse_pending(at, effects);
                        moved = true;
                    }
                    Closure::Complete(circle) if circle.len() == 1 => {
                        self.submit(&circle, effects);
                        moved = true;
                    }
                    Closure::Complete(circle) => {
                        if smallest.as_ref().is_none_or(|least| circle.len() < least.len()) {
                            smallest = Some(circle);
                        }
                    }
                }
            }
            if !moved {
                return smallest;
            }
        }
    }

    /// The pendings that `first` waits for, itself included.
    fn closure(&self, first: PartitionId) -> Closure {
        let (mut circle, mut open) = (BTreeSet::from([first]), vec![first]);
        while let Some(partition) = open.pop() {
            let Some(Stage::Pending { finished, .. }) = self.lanes.get(&partition).map(|lane| &lane.stage) else {
                unreachable!("only pendings are followed")
            };
            for routed in &finished.routed {
                match self.open_lane(routed.target).map(|lane| &lane.stage) {
                    None => return Closure::Broken(partition),
                    // A void run allocates nothing.
                    Some(Stage::Idle | Stage::Running { batch: None, .. }) => {}
                    Some(Stage::Running { .. }) => return Closure::Waits,
                    Some(Stage::Pending { .. }) => {
                        if circle.insert(routed.target) {
                            open.push(routed.target);
                        }
                    }
                }
            }
        }
        Closure::Complete(circle)
    }

    /// A target is gone: the batch is refused, its retry runs through the pipeline of today.
    fn refuse_pending(&mut self, partition: PartitionId, effects: &mut Effects<W>) {
        let Settled { id, numbered, .. } = self.take_pending(partition);
        self.refuse(partition, id, numbered, &ProduceError::TargetGone, effects);
        self.make_ready(partition);
    }

    fn take_pending(&mut self, partition: PartitionId) -> Settled {
        self.pending.remove(&partition);
        let lane = self.lanes.get_mut(&partition).expect("a pending partition has a lane");
        let Stage::Pending { id, numbered, finished } = std::mem::replace(&mut lane.stage, Stage::Idle) else {
            unreachable!("it was pending")
        };
        Settled { partition, id, numbered, finished }
    }

    /// One commit for all of `circle`.
    pub(super) fn submit(&mut self, circle: &BTreeSet<PartitionId>, effects: &mut Effects<W>) {
        let mut commit = Commit::default();
        let mut flight = Flight { touches: Vec::new(), batches: Vec::new(), doomed: false };
        let mut routed = Vec::new();
        for partition in circle {
            let Settled { partition, id, numbered, finished } = self.take_pending(*partition);
            let (base_offset, next_offset) = self.allocate(partition, finished.span, &mut flight);
            if let Some(own) = &finished.own {
                assert_eq!(own.header().base_offset, base_offset, "nothing was placed while the batch ran");
            }
            commit.appends.push(Append {
                partition,
                cover_start: base_offset,
                cover_end: next_offset,
                batches: finished.own.map(RecordBatch::into_bytes),
                max_timestamp_ms: finished.max_timestamp_ms,
            });
            let Finished { books, rejects, .. } = finished;
            let answer = Arc::new(ProduceAnswer { base_offset, next_offset, books, rejects });
            commit.state.extend(numbered.map(|numbered| numbered.state_change(partition, &answer)));
            commit.state.extend(self.forgotten_rows(partition));
            flight.batches.push(FlightBatch { partition, id, numbered, answer });
            routed.extend(finished.routed);
        }
        for routed in routed {
            let append = self.place(routed, &mut flight);
            commit.appends.push(append);
        }
        let id = FlightId(self.next_id());
        self.flights.insert(id, flight);
        effects.commits.push((id, commit));
        for partition in circle {
            self.make_ready(*partition);
        }
    }

    /// Removes the rows of producers that the partition has forgotten.
    fn forgotten_rows(&mut self, partition: PartitionId) -> impl Iterator<Item = StateChange> {
        let lane = self.lanes.get_mut(&partition).expect("the circle was just looked at");
        let keys = std::mem::take(&mut lane.forgotten).into_iter();
        keys.map(|key| remove_row(&key))
    }

    /// Takes the next `span` offsets of a partition.
    fn allocate(&mut self, partition: PartitionId, span: u64, flight: &mut Flight) -> (Offset, Offset) {
        let lane = self.lanes.get_mut(&partition).expect("the circle was just looked at");
        let start = lane.next_offset;
        lane.next_offset = start.plus(span);
        let end = lane.next_offset;
        match flight.touches.iter_mut().find(|touch| touch.partition == partition) {
            Some(touch) => touch.end = end,
            None => flight.touches.push(Touch { partition, start, end }),
        }
        (start, end)
    }

    /// Routed batches take the next offsets of their target.
    fn place(&mut self, routed: RoutedBatches, flight: &mut Flight) -> Append {
        let span = routed.batches.iter().map(|batch| u64::from(batch.header().last_offset_delta) + 1).sum();
        let max_timestamp_ms = routed.batches.iter().map(|batch| batch.header().max_timestamp).max();
        let (cover_start, cover_end) = self.allocate(routed.target, span, flight);
        let mut next = cover_start;
        let placed = routed.batches.into_iter().map(|batch| {
            let batch = batch.with_base_offset(next);
            next = batch.next_offset();
            batch
        });
        let bytes = concatenate(placed);
        assert_eq!(next, cover_end, "the batches fill what they cover");
        Append {
            partition: routed.target,
            cover_start,
            cover_end,
            batches: Some(bytes),
            max_timestamp_ms: max_timestamp_ms.expect("routed batches are not empty"),
        }
    }
}

fn concatenate(batches: impl Iterator<Item = RecordBatch>) -> Bytes {
    let mut run: Vec<Bytes> = batches.map(RecordBatch::into_bytes).collect();
    if run.len() == 1 {
        return run.remove(0);
    }
    let mut bytes = BytesMut::with_capacity(run.iter().map(Bytes::len).sum());
    run.iter().for_each(|batch| bytes.extend_from_slice(batch));
    bytes.freeze()
}

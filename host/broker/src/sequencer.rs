//! Decides the order of everything that is stored: one sequencer value over the lanes of all partitions.
//!
//! Owns duplicate detection, offsets, which batch runs in a pipeline next, and what goes into which commit. A pure
//! value: it takes an event and says in [`Effects`] what is to be done; it never does I/O, never waits, never reads a clock.
//!
//! ```text
//! offer ──► duplicate check ──► no pipeline ───────────────────────────► allocate ─► commit ─► committed ─► answer
//!                  │                                                        ▲
//!                  └──► waiting ──► take_work ──► (a worker) ──► finish ──► pending: while a target's span is unknown
//! ```
//!
//! Invariants
//! - Offsets of a partition are allocated in the order in which its commits leave in [`Effects::commits`]: whoever
//!   executes effects does it under the lock that guards this value.
//! - A partition runs at most one batch at a time, and while one runs or is pending nothing else is allocated there.
//! - A batch is answered once to everybody who waits for it, and only after its commit.
//! - What is built on a failed commit fails with it, in every partition it touched; the lanes fall back to what is durable.
//!
//! Start at [`Sequencer::offer`].

mod lane;
mod settle;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{Books, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, RecordError, Sequence};
use storage::{Commit, StateChange, StateTable};

use crate::errors::ProduceError;
pub(crate) use lane::LaneStart;
use lane::{Accepted, Lane, Numbered, Stage};
pub(crate) use settle::RoutedBatches;
use window::Check;
pub(crate) use window::{ProducerRow, Stamp, Window};

/// A batch that was accepted and is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchId(u64);

/// A commit that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightId(u64);

/// A batch that was handed to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunId(u64);

/// What a batch is answered with.
pub(crate) type Outcome = Result<Arc<ProduceAnswer>, ProduceError>;

/// What is to be done, in order, under the sequencer's lock (the answers may go out after it).
#[derive(Debug)]
pub(crate) struct Effects<W> {
    /// Hand these to the store.
    pub(crate) commits: Vec<(FlightId, Commit)>,
    /// Tell these.
    pub(crate) answers: Vec<(W, Outcome)>,
    /// Readers may see these partitions up to here.
    pub(crate) watermarks: Vec<(PartitionId, Offset)>,
}

impl<W> Default for Effects<W> {
    fn default() -> Self {
        Effects { commits: Vec::new(), answers: Vec::new(), watermarks: Vec::new() }
    }
}

/// A batch for a worker.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) partition: PartitionId,
    pub(crate) run: RunId,
    pub(crate) base_offset: Offset,
    pub(crate) batch: RecordBatch,
    /// Whether its records were validated before it was offered.
    pub(crate) checked: bool,
}

/// What a worker made of a batch.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What goes into the own partition, its base offset set.
    pub(crate) own: Option<RecordBatch>,
    /// Offsets it covers there; at least 1.
    pub(crate) span: u64,
    /// The largest timestamp of the input.
    pub(crate) max_timestamp_ms: i64,
    /// What goes into other partitions.
    pub(crate) routed: Vec<RoutedBatches>,
    pub(crate) books: Books,
    pub(crate) rejects: Vec<RecordError>,
}

/// A commit on its way.
#[derive(Debug)]
struct Flight {
    touches: Vec<Touch>,
    batches: Vec<FlightBatch>,
    /// Something it is built on failed: its batches are answered already.
    doomed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Touch {
    partition: PartitionId,
    generation: u64,
    end: Offset,
}

#[derive(Debug)]
struct FlightBatch {
    partition: PartitionId,
    id: BatchId,
    numbered: Option<Numbered>,
    answer: Arc<ProduceAnswer>,
}

/// See the module. `W` is who waits for an answer.
#[derive(Debug)]
pub(crate) struct Sequencer<W> {
    lanes: BTreeMap<PartitionId, Lane>,
    /// Lanes with waiting batches that nobody runs, in the order in which they get their turn.
    ready: VecDeque<PartitionId>,
    /// Lanes whose finished batch waits for a target.
    pending: BTreeSet<PartitionId>,
    /// Group of each run, and how many of a group run.
    runs: BTreeMap<RunId, PartitionId>,
    busy: BTreeMap<PartitionId, usize>,
    runs_per_group_max: usize,
    flights: BTreeMap<FlightId, Flight>,
    waiters: BTreeMap<BatchId, Vec<W>>,
    /// Source of batch, flight, run ids and generations.
    last_id: u64,
    closing: bool,
}

impl<W> Sequencer<W> {
    /// An empty sequencer. `runs_per_group_max`: how many partitions of one topic may be on workers at once; below the
    /// number of workers, so that a topic whose guest loops leaves a worker to the others.
    pub(crate) fn new(runs_per_group_max: usize) -> Self {
        Sequencer {
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            pending: BTreeSet::new(),
            runs: BTreeMap::new(),
            busy: BTreeMap::new(),
            runs_per_group_max,
            flights: BTreeMap::new(),
            waiters: BTreeMap::new(),
            last_id: 0,
            closing: false,
        }
    }

    /// Adds a partition.
    pub(crate) fn add_lane(&mut self, partition: PartitionId, start: LaneStart) {
        let generation = self.next_id();
        let before = self.lanes.insert(partition, Lane::new(generation, start));
        assert!(before.is_none(), "partition {partition} has one lane");
    }

    /// Removes a partition: what waits for its pipeline is refused; what is committing still gets its answer.
    pub(crate) fn remove_lane(&mut self, partition: PartitionId, effects: &mut Effects<W>) {
        let Some(mut lane) = self.lanes.remove(&partition) else { return };
        self.ready.retain(|ready| *ready != partition);
        self.pending.remove(&partition);
        for batch in lane.clear() {
            self.answer(batch, &Err(ProduceError::PartitionGone), effects);
        }
        self.settle(effects);
    }

    /// The partition's topic got or lost its pipeline, or has another one: what was paused goes on.
    pub(crate) fn set_piped(&mut self, partition: PartitionId, piped: bool) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.piped = piped;
            lane.paused = None;
        }
    }

    /// No more batches are accepted; what was accepted is finished.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether everything accepted is answered and every commit came back.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.flights.is_empty()
    }

    /// Whether a worker could have something to do.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Epoch and sequence after the last durable record of a producer in a partition.
    pub(crate) fn producer_place(&self, partition: PartitionId, producer: ProducerId) -> Option<(Epoch, Sequence)> {
        self.lanes.get(&partition)?.producers.get(&producer)?.durable_place()
    }

    /// A producer hands over a batch. `checked`: its records were validated, so that it may be stored as it is.
    pub(crate) fn offer(
        &mut self,
        partition: PartitionId,
        batch: RecordBatch,
        checked: bool,
        waiter: W,
        effects: &mut Effects<W>,
    ) {
        match self.admit(partition, &batch) {
            Err(error) => effects.answers.push((waiter, Err(error))),
            Ok(Admission::Stored(answer)) => effects.answers.push((waiter, Ok(answer))),
            Ok(Admission::InFlight(id)) => {
                self.waiters.get_mut(&id).expect("a batch in flight has somebody waiting").push(waiter);
            }
            Ok(Admission::New(stamp)) => {
                let id = BatchId(self.next_id());
                self.waiters.insert(id, vec![waiter]);
                let lane = self.lanes.get_mut(&partition).expect("the batch was admitted to it");
                let numbered = stamp.map(|stamp| lane.number(stamp, id));
                lane.waiting.push_back(Accepted { id, numbered, batch, checked });
                if checked && lane.is_direct() {
                    self.pass_through(partition, effects);
                } else {
                    self.make_ready(partition);
                }
            }
        }
    }

    fn admit(&self, partition: PartitionId, batch: &RecordBatch) -> Result<Admission, ProduceError> {
        let lane = self.lanes.get(&partition).ok_or(ProduceError::PartitionGone)?;
        let stamp = Stamp::of(batch.header());
        match stamp.as_ref().map(|stamp| lane.check(stamp)).transpose()? {
            Some(Check::Stored(answer)) => return Ok(Admission::Stored(answer)),
            Some(Check::InFlight(id)) => return Ok(Admission::InFlight(id)),
            Some(Check::New) | None => {}
        }
        if self.closing {
            return Err(ProduceError::ShuttingDown);
        }
        match &lane.paused {
            Some(why) => Err(ProduceError::Paused { why: why.clone() }),
            None => Ok(Admission::New(stamp)),
        }
    }

    /// A batch without a pipeline: it takes its offsets and goes.
    fn pass_through(&mut self, partition: PartitionId, effects: &mut Effects<W>) {
        let lane = self.lanes.get_mut(&partition).expect("the batch was admitted to it");
        let Accepted { id, numbered, batch, .. } = lane.waiting.pop_front().expect("it was just put there");
        debug_assert!(lane.waiting.is_empty());
        let finished = Finished::unchanged(batch.with_base_offset(lane.next_offset));
        lane.stage = Stage::Pending { id, numbered, finished };
        self.pending.insert(partition);
        self.settle(effects);
    }

    /// The next batch for a worker, if any: the ready partitions take turns.
    pub(crate) fn take_work(&mut self) -> Option<Work> {
        let free = |partition: &PartitionId| {
            let group = self.lanes.get(partition).map_or(*partition, |lane| lane.group);
            self.busy.get(&group).copied().unwrap_or(0) < self.runs_per_group_max
        };
        let at = self.ready.iter().position(free)?;
        let partition = self.ready.remove(at).expect("the position was just found");
        let run = RunId(self.next_id());
        let lane = self.lanes.get_mut(&partition).expect("a ready partition has a lane");
        lane.ready = false;
        let Accepted { id, numbered, batch, checked } = lane.waiting.pop_front().expect("a ready lane has a batch");
        lane.stage = Stage::Running { run, batch: Some((id, numbered)) };
        self.runs.insert(run, lane.group);
        *self.busy.entry(lane.group).or_default() += 1;
        Some(Work { partition, run, base_offset: lane.next_offset, batch, checked })
    }

    /// A worker is done with a batch.
    pub(crate) fn finish(
        &mut self,
        partition: PartitionId,
        run: RunId,
        outcome: Result<Finished, ProduceError>,
        effects: &mut Effects<W>,
    ) {
        let group = self.runs.remove(&run).expect("each run ends once");
        let busy = self.busy.get_mut(&group).expect("the group of a run is counted");
        *busy -= 1;
        if *busy == 0 {
            self.busy.remove(&group);
        }
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        // A run of a lane that fell back meanwhile has lost its batch, one of a lane that was removed its stage.
        if !matches!(&lane.stage, Stage::Running { run: current, .. } if *current == run) {
            return;
        }
        let Stage::Running { batch, .. } = std::mem::replace(&mut lane.stage, Stage::Idle) else {
            unreachable!("the stage was just looked at")
        };
        match (batch, outcome) {
            (None, _) => {}
            (Some((id, numbered)), Ok(finished)) => {
                assert!(finished.span > 0, "a batch has records");
                lane.stage = Stage::Pending { id, numbered, finished };
                self.pending.insert(partition);
            }
            (Some((id, numbered)), Err(error)) => self.refuse(partition, id, numbered, &error, effects),
        }
        self.make_ready(partition);
        self.settle(effects);
    }

    /// The batch that ran is refused, and with it what cannot be stored without it.
    fn refuse(
        &mut self,
        partition: PartitionId,
        id: BatchId,
        numbered: Option<Numbered>,
        error: &ProduceError,
        effects: &mut Effects<W>,
    ) {
        let lane = self.lanes.get_mut(&partition).expect("it ran the batch");
        let mut followers = numbered.map_or_else(Vec::new, |numbered| lane.take_back(&numbered));
        if let ProduceError::Paused { why } = error {
            lane.paused = Some(why.clone());
            followers.extend(lane.clear());
        }
        let follower_error = match numbered {
            // They are sound; what they wait for may still come.
            _ if error.is_retriable() => error.clone(),
            Some(Numbered { stamp, .. }) => ProduceError::OutOfOrderSequence {
                expected: stamp.base_sequence,
                found: stamp.base_sequence.plus(stamp.record_count),
            },
            None => error.clone(),
        };
        self.answer(id, &Err(error.clone()), effects);
        for follower in followers {
            self.answer(follower, &Err(follower_error.clone()), effects);
        }
    }

    /// A commit came back from the store.
    pub(crate) fn committed(&mut self, id: FlightId, result: Result<(), ProduceError>, effects: &mut Effects<W>) {
        let flight = self.flights.remove(&id).expect("a commit comes back once");
        match result {
            Ok(()) => self.make_durable(flight, effects),
            Err(_) if flight.doomed => {}
            Err(error) => {
                let touched = self.doom(&flight, &error, effects);
                self.fall_back(touched, &error, effects);
            }
        }
    }

    fn make_durable(&mut self, flight: Flight, effects: &mut Effects<W>) {
        // Its first offset was no longer the partition's next one, so the store must have refused it.
        assert!(!flight.doomed, "a commit became durable whose ground had failed");
        for touch in &flight.touches {
            if let Some(lane) = self.lanes.get_mut(&touch.partition)
                && lane.generation == touch.generation
            {
                lane.durable_offset = touch.end;
            }
            effects.watermarks.push((touch.partition, touch.end));
        }
        for batch in flight.batches {
            if let (Some(lane), Some(numbered)) = (self.lanes.get_mut(&batch.partition), batch.numbered) {
                lane.make_durable(&numbered, batch.answer.clone());
            }
            self.answer(batch.id, &Ok(batch.answer), effects);
        }
    }

    /// Answers the batches of a commit that failed or will; returns the partitions that stood on it.
    fn doom(&mut self, flight: &Flight, error: &ProduceError, effects: &mut Effects<W>) -> Vec<PartitionId> {
        for batch in &flight.batches {
            self.answer(batch.id, &Err(error.clone()), effects);
        }
        let stands =
            |touch: &&Touch| self.lanes.get(&touch.partition).is_some_and(|lane| lane.generation == touch.generation);
        flight.touches.iter().filter(stands).map(|touch| touch.partition).collect()
    }

    /// Takes these lanes back to what is durable, and whatever is built on what they lose.
    fn fall_back(&mut self, mut touched: Vec<PartitionId>, error: &ProduceError, effects: &mut Effects<W>) {
        while let Some(partition) = touched.pop() {
            let generation = self.next_id();
            let Some(lane) = self.lanes.get_mut(&partition) else { continue };
            let before = std::mem::replace(&mut lane.generation, generation);
            let lost = lane.fall_back();
            self.pending.remove(&partition);
            self.ready.retain(|ready| *ready != partition);
            for batch in lost {
                self.answer(batch, &Err(error.clone()), effects);
            }
            let built_on = |flight: &Flight| {
                let hit = |touch: &Touch| touch.partition == partition && touch.generation == before;
                !flight.doomed && flight.touches.iter().any(hit)
            };
            let ids: Vec<FlightId> = self.flights.iter().filter(|(_, f)| built_on(f)).map(|(id, _)| *id).collect();
            for id in ids {
                let Some(mut flight) = self.flights.remove(&id) else { continue };
                flight.doomed = true;
                touched.extend(self.doom(&flight, &error, effects));
                self.flights.insert(id, flight);
            }
        }
        self.settle(effects);
    }

    fn make_ready(&mut self, partition: PartitionId) {
        let lane = self.lanes.get_mut(&partition).expect("the caller has it in hand");
        if !lane.ready && !lane.waiting.is_empty() && matches!(lane.stage, Stage::Idle) {
            lane.ready = true;
            self.ready.push_back(partition);
        }
    }

    fn answer(&mut self, id: BatchId, outcome: &Outcome, effects: &mut Effects<W>) {
        for waiter in self.waiters.remove(&id).into_iter().flatten() {
            effects.answers.push((waiter, outcome.clone()));
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

enum Admission {
    New(Option<Stamp>),
    Stored(Arc<ProduceAnswer>),
    InFlight(BatchId),
}

impl Finished {
    /// A batch that is stored as it came.
    pub(crate) fn unchanged(batch: RecordBatch) -> Finished {
        let header = batch.header();
        let (span, count) = (u64::from(header.last_offset_delta) + 1, u64::from(header.record_count));
        let books = Books { records_in: count, kept: count, stored: count, ..Books::default() };
        let max_timestamp_ms = header.max_timestamp;
        Finished { own: Some(batch), span, max_timestamp_ms, routed: Vec::new(), books, rejects: Vec::new() }
    }
}

impl Numbered {
    /// What makes the batch's retry harmless, in the batch's own commit.
    fn state_change(&self, partition: PartitionId, answer: &ProduceAnswer) -> StateChange {
        let row = ProducerRow::new(self.number, &self.stamp, answer);
        StateChange {
            table: StateTable::Producers,
            key: Bytes::copy_from_slice(&ProducerRow::key(partition, self.stamp.producer, self.number)),
            value: Some(row.encode().into()),
        }
    }
}

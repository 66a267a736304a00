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
//! - What waits for pipelines has a bound, and one partition's full queue is no other's ([`queue`]).
//! - A partition runs at most one batch at a time, and while one runs or is pending nothing else is allocated there.
//! - A batch is answered once to everybody who waits for it, and only after its commit.
//! - What is built on a failed commit fails with it, in every partition it touched; the lanes go back to where it began.
//!
//! Start at [`Sequencer::offer`].

mod lane;
mod queue;
mod settle;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    BatchHeader, Books, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordBatch, RecordError, Sequence,
    limits::PIPELINE_QUEUE_BYTES_MAX,
};
use storage::{Commit, StateChange, StateTable};

use crate::errors::ProduceError;
pub(crate) use lane::LaneStart;
use lane::{Accepted, Lane, Numbered, Stage};
use queue::{Place, QueueFull, Queues};
pub(crate) use settle::RoutedBatches;
pub(crate) use window::{Check, ProducerRow, Stamp, Window};

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
    /// Given back when the worker is done.
    pub(crate) place: Option<Place>,
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
    start: Offset,
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
    queues: Queues,
    flights: BTreeMap<FlightId, Flight>,
    waiters: BTreeMap<BatchId, Vec<W>>,
    /// Source of batch, flight and run ids.
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
            queues: Queues::new(PIPELINE_QUEUE_BYTES_MAX),
            flights: BTreeMap::new(),
            waiters: BTreeMap::new(),
            last_id: 0,
            closing: false,
        }
    }

    /// Adds a partition.
    pub(crate) fn add_lane(&mut self, partition: PartitionId, start: LaneStart) {
        let before = self.lanes.insert(partition, Lane::new(start));
        assert!(before.is_none(), "partition {partition} has one lane");
    }

    /// Closes a partition that is to be deleted: what waits for its pipeline is refused, and so is what comes; what is
    /// committing still gets its answer. Returns what removes its producers' rows.
    pub(crate) fn close_lane(&mut self, partition: PartitionId, effects: &mut Effects<W>) -> Vec<StateChange> {
        let Some(lane) = self.lanes.get_mut(&partition) else { return Vec::new() };
        let rows = lane.row_keys(partition).map(|key| lane::remove_row(&key)).collect();
        (lane.closed, lane.ready) = (true, false);
        let refused = lane.clear();
        self.ready.retain(|ready| *ready != partition);
        self.pending.remove(&partition);
        for batch in refused {
            self.answer(batch, &Err(ProduceError::PartitionGone), effects);
        }
        self.settle(effects);
        rows
    }

    /// The deletion failed: batches are taken again.
    pub(crate) fn reopen_lane(&mut self, partition: PartitionId) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.closed = false;
        }
    }

    /// Removes a partition that was closed.
    pub(crate) fn remove_lane(&mut self, partition: PartitionId) {
        let lane = self.lanes.remove(&partition);
        assert!(lane.is_none_or(|lane| lane.closed), "partition {partition} is closed before it is removed");
    }

    /// The partition's topic got or lost its pipeline, or has another one: what was paused goes on.
    pub(crate) fn set_piped(&mut self, partition: PartitionId, piped: bool) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.piped = piped;
            lane.paused = None;
        }
    }

    /// Answers everybody: the broker stops here and now.
    pub(crate) fn abandon(&mut self, effects: &mut Effects<W>) {
        self.closing = true;
        let ids: Vec<BatchId> = self.waiters.keys().copied().collect();
        for id in ids {
            self.answer(id, &Err(ProduceError::ShuttingDown), effects);
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

    /// How many workers would find something to do, counted up to a bound: a topic that has all the workers it may have
    /// calls no more of them, however many of its partitions wait.
    pub(crate) fn runnable_count(&self, at_most: usize) -> usize {
        let mut runs = BTreeMap::new();
        let runnable = |partition: &&PartitionId| {
            let group = self.lanes.get(*partition).map_or(**partition, |lane| lane.group);
            let runs = runs.entry(group).or_insert_with(|| self.busy.get(&group).copied().unwrap_or(0));
            *runs += 1;
            *runs <= self.runs_per_group_max
        };
        self.ready.iter().filter(runnable).take(at_most).count()
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
        match self.admit(partition, batch.header()) {
            Err(error) => effects.answers.push((waiter, Err(error))),
            Ok(Admission::Stored(answer)) => effects.answers.push((waiter, Ok(answer))),
            Ok(Admission::InFlight(id)) => self.join(id, waiter, effects),
            Ok(Admission::New(stamp)) => {
                let lane = self.lanes.get(&partition).expect("the batch was admitted to it");
                let is_direct = checked && lane.is_direct();
                match (!is_direct).then(|| self.queues.enter(&lane.queued, batch.bytes().len())).transpose() {
                    Ok(place) => {
                        let id = BatchId(self.next_id());
                        self.waiters.insert(id, vec![waiter]);
                        self.accept(partition, Accepted { id, numbered: None, batch, checked, place }, stamp);
                        if is_direct { self.pass_through(partition, effects) } else { self.make_ready(partition) }
                    }
                    Err(full) => effects.answers.push((waiter, Err(queue_full(full)))),
                }
            }
        }
    }

    /// Puts a batch in its partition's line, and into its producer's window.
    fn accept(&mut self, partition: PartitionId, accepted: Accepted, stamp: Option<Stamp>) {
        let lane = self.lanes.get_mut(&partition).expect("the batch was admitted to it");
        let numbered = stamp.map(|stamp| lane.number(partition, stamp, accepted.id));
        lane.waiting.push_back(Accepted { numbered, ..accepted });
    }

    /// A producer hands over a batch that may not be stored as the topic is now. One that was taken before is answered
    /// as it was: its producer would otherwise take it for lost, and give its sequences to another.
    pub(crate) fn offer_refused(
        &mut self,
        partition: PartitionId,
        header: &BatchHeader,
        error: ProduceError,
        waiter: W,
        effects: &mut Effects<W>,
    ) {
        match self.admit(partition, header) {
            Ok(Admission::Stored(answer)) => effects.answers.push((waiter, Ok(answer))),
            Ok(Admission::InFlight(id)) => self.join(id, waiter, effects),
            Ok(Admission::New(_)) | Err(_) => effects.answers.push((waiter, Err(error))),
        }
    }

    /// Waits for a batch that is taken already.
    fn join(&mut self, id: BatchId, waiter: W, effects: &mut Effects<W>) {
        match self.waiters.get_mut(&id) {
            Some(waiters) => waiters.push(waiter),
            // It was answered before its time, because the broker stops.
            None => effects.answers.push((waiter, Err(ProduceError::ShuttingDown))),
        }
    }

    /// A partition that is there, and not about to go.
    fn open_lane(&self, partition: PartitionId) -> Option<&Lane> {
        self.lanes.get(&partition).filter(|lane| !lane.closed)
    }

    fn admit(&self, partition: PartitionId, header: &BatchHeader) -> Result<Admission, ProduceError> {
        let lane = self.open_lane(partition).ok_or(ProduceError::PartitionGone)?;
        let stamp = Stamp::of(header);
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
        self.submit(&BTreeSet::from([partition]), effects);
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
        let accepted = lane.waiting.pop_front().expect("a ready lane has a batch");
        let Accepted { id, numbered, batch, checked, place } = accepted;
        lane.stage = Stage::Running { run, batch: Some((id, numbered)) };
        self.runs.insert(run, lane.group);
        *self.busy.entry(lane.group).or_default() += 1;
        Some(Work { partition, run, base_offset: lane.next_offset, batch, checked, place })
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
        // A run of a lane that fell back or was closed meanwhile has lost its batch.
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
            Err(error) => self.fall_back(id, flight, &error, effects),
        }
    }

    fn make_durable(&mut self, flight: Flight, effects: &mut Effects<W>) {
        // Its first offset was no longer the partition's next one, so the store must have refused it.
        assert!(!flight.doomed, "a commit became durable whose ground had failed");
        for touch in &flight.touches {
            effects.watermarks.push((touch.partition, touch.end));
        }
        for batch in flight.batches {
            if let (Some(lane), Some(numbered)) = (self.lanes.get_mut(&batch.partition), batch.numbered) {
                lane.make_durable(&numbered, batch.answer.clone());
            }
            self.answer(batch.id, &Ok(batch.answer), effects);
        }
    }

    /// A commit failed: what is built on it fails with it, and its partitions go back to where it began. Commits that
    /// were handed over before it, or that stand beside it, are not touched.
    fn fall_back(&mut self, failed: FlightId, flight: Flight, error: &ProduceError, effects: &mut Effects<W>) {
        let mut back_to: BTreeMap<PartitionId, Offset> =
            flight.touches.iter().map(|t| (t.partition, t.start)).collect();
        let mut lost: BTreeSet<BatchId> = flight.batches.iter().map(|batch| batch.id).collect();
        // Whatever is built on a commit comes after it, so one pass in order finds all.
        for later in self.flights.range_mut(failed..).map(|(_, later)| later).filter(|later| !later.doomed) {
            if later.touches.iter().any(|touch| back_to.contains_key(&touch.partition)) {
                later.doomed = true;
                lost.extend(later.batches.iter().map(|batch| batch.id));
                for touch in &later.touches {
                    let start = back_to.entry(touch.partition).or_insert(touch.start);
                    *start = touch.start.min(*start);
                }
            }
        }
        for (partition, next_offset) in &back_to {
            if let Some(lane) = self.lanes.get_mut(partition) {
                lost.extend(lane.clear());
                lane.ready = false;
                lane.next_offset = *next_offset;
                self.pending.remove(partition);
            }
        }
        self.ready.retain(|ready| !back_to.contains_key(ready));
        for partition in back_to.keys() {
            if let Some(lane) = self.lanes.get_mut(partition) {
                lane.forget(&lost);
            }
        }
        for id in lost {
            self.answer(id, &Err(error.clone()), effects);
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

fn queue_full(full: QueueFull) -> ProduceError {
    let why = format!(
        "{} bytes wait for the transforms of the partition, which is its part of `pipeline_queue_bytes_max` ({PIPELINE_QUEUE_BYTES_MAX})",
        full.queued_bytes
    );
    ProduceError::TransformBusy { why: why.into() }
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

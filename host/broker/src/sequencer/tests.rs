//! The sequencer against a world that does everything to it: retries, runs that end in any order, batches routed in
//! circles, commits that fail. The store of the model is a list that refuses holes.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use protocol::{
    BatchBuilder, BatchProducer, Books, Compression, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, Record,
    RecordBatch, Sequence, limits::PRODUCERS_PER_PARTITION_MAX, records,
};
use storage::Commit;

use super::{Effects, Finished, FlightId, LaneStart, Outcome, RoutedBatches, Sequencer, Work};
use crate::errors::ProduceError;

const PARTITIONS: u32 = 4;
const PRODUCERS: u64 = 2;

#[derive(Debug, Clone)]
enum Event {
    /// A producer sends its next batch, with this many records.
    Send { partition: u32, producer: u64, records: u32 },
    /// A producer sends one of its batches again.
    Resend { which: prop::sample::Index },
    /// A worker takes a batch.
    Take,
    /// A worker is done: what it keeps, and where it routes.
    Finish { which: prop::sample::Index, keep: bool, extra_span: u64, routes: Vec<u32> },
    /// A worker gives up on a batch.
    Refuse { which: prop::sample::Index, retriable: bool },
    /// The oldest commit comes back.
    Commit { ok: bool },
    /// A partition's pipeline comes or goes.
    Pipe { partition: u32, piped: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        6 => (partition.clone(), 0..PRODUCERS, 1..4u32)
            .prop_map(|(partition, producer, records)| Event::Send { partition, producer, records }),
        3 => any::<prop::sample::Index>().prop_map(|which| Event::Resend { which }),
        6 => Just(Event::Take),
        6 => (any::<prop::sample::Index>(), any::<bool>(), 0..3u64, prop::collection::vec(partition.clone(), 0..3))
            .prop_map(|(which, keep, extra_span, routes)| Event::Finish { which, keep, extra_span, routes }),
        1 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(which, retriable)| Event::Refuse { which, retriable }),
        6 => prop::bool::weighted(0.9).prop_map(|ok| Event::Commit { ok }),
        1 => (partition, any::<bool>()).prop_map(|(partition, piped)| Event::Pipe { partition, piped }),
    ]
}

#[derive(Debug, Clone)]
struct Sent {
    partition: PartitionId,
    producer: u64,
    base_sequence: Sequence,
    records: u32,
    answers: Vec<Result<ProduceAnswer, ProduceError>>,
}

struct World {
    sequencer: Sequencer<usize>,
    queue: VecDeque<(FlightId, Commit)>,
    log: BTreeMap<PartitionId, Vec<(Offset, Offset, Option<RecordBatch>)>>,
    runs: Vec<Work>,
    sent: Vec<Sent>,
    next_sequence: BTreeMap<(PartitionId, u64), Sequence>,
}

fn batch(value: &str, records: u32, producer: Option<BatchProducer>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.append(&Record::unkeyed(value.to_owned(), 7)).unwrap();
    }
    if let Some(producer) = producer {
        builder.producer(producer);
    }
    builder.finish(Offset::ZERO).unwrap()
}

fn value_of(batch: &RecordBatch) -> String {
    let section = batch.records_section(1 << 20).unwrap();
    let record = records(&section).next().unwrap().unwrap();
    String::from_utf8(record.value.unwrap().to_vec()).unwrap()
}

/// What is routed is in the commit of the batch it comes from, all of it.
fn check_together(commit: &Commit) {
    let batches = commit.appends.iter().filter_map(|append| append.batches.clone());
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for value in batches.map(|bytes| value_of(&RecordBatch::decode(bytes).unwrap())) {
        match value.split_once('>') {
            Some((name, routes)) => expected.extend(vec![format!("routed {name}"); routes.parse().unwrap()]),
            None if value.starts_with("routed") => found.push(value),
            None => {}
        }
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

impl World {
    fn new(piped: &[bool]) -> World {
        let mut sequencer = Sequencer::new(2);
        for (number, piped) in piped.iter().enumerate() {
            let id = PartitionId(number as u32);
            let start = LaneStart { group: id, next_offset: Offset::ZERO, producers: BTreeMap::new(), piped: *piped };
            sequencer.add_lane(id, start);
        }
        World {
            sequencer,
            queue: VecDeque::new(),
            log: (0..PARTITIONS).map(|id| (PartitionId(id), Vec::new())).collect(),
            runs: Vec::new(),
            sent: Vec::new(),
            next_sequence: BTreeMap::new(),
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Send { partition, producer, records } => {
                let next = self.next_sequence.entry((PartitionId(partition), producer)).or_default();
                let base_sequence = *next;
                *next = next.plus(records);
                let partition = PartitionId(partition);
                self.sent.push(Sent { partition, producer, base_sequence, records, answers: Vec::new() });
                self.offer(self.sent.len() - 1);
            }
            Event::Resend { which } if !self.sent.is_empty() => self.offer(which.index(self.sent.len())),
            Event::Take => {
                let Some(work) = self.sequencer.take_work() else { return };
                let again = self.runs.iter().any(|other| other.partition == work.partition);
                assert!(!again, "partition {} is on two workers", work.partition);
                self.runs.push(work);
            }
            Event::Finish { which, keep, extra_span, routes } if !self.runs.is_empty() => {
                let at = which.index(self.runs.len());
                self.finish(at, keep, extra_span, &routes);
            }
            Event::Refuse { which, retriable } if !self.runs.is_empty() => {
                let work = self.runs.swap_remove(which.index(self.runs.len()));
                let error = match retriable {
                    true => ProduceError::TransformBusy { why: "for now".into() },
                    false => ProduceError::RoutedTooLarge { bytes: 1 },
                };
                let mut effects = Effects::default();
                self.sequencer.finish(work.partition, work.run, Err(error), &mut effects);
                self.execute(effects);
            }
            Event::Commit { ok } => self.commit(ok),
            Event::Pipe { partition, piped } => self.sequencer.set_piped(PartitionId(partition), piped),
            Event::Resend { .. } | Event::Finish { .. } | Event::Refuse { .. } => {}
        }
    }

    fn offer(&mut self, index: usize) {
        let sent = &self.sent[index];
        let producer =
            BatchProducer { id: ProducerId(sent.producer), epoch: Epoch(0), base_sequence: sent.base_sequence };
        let name = format!("{}/{}/{}", sent.partition, sent.producer, sent.base_sequence.0);
        let batch = batch(&name, sent.records, Some(producer));
        let mut effects = Effects::default();
        self.sequencer.offer(sent.partition, batch, true, index, &mut effects);
        self.execute(effects);
    }

    /// What a run keeps says where it routes, so that the store can see whether all of it is there.
    fn finish(&mut self, at: usize, keep: bool, extra_span: u64, routes: &[u32]) {
        let work = self.runs.swap_remove(at);
        let header = *work.batch.header();
        let count = u64::from(header.record_count);
        let name = value_of(&work.batch);
        let producer = BatchProducer {
            id: ProducerId(header.producer_id as u64),
            epoch: Epoch(0),
            base_sequence: Sequence(header.base_sequence as u32),
        };
        let routed = routes.iter().map(|target| RoutedBatches {
            target: PartitionId(*target),
            batches: vec![batch(&format!("routed {name}"), 2, None)],
        });
        let own = batch(&format!("{name}>{}", routes.len()), header.record_count, Some(producer));
        let finished = Finished {
            own: (keep || !routes.is_empty()).then(|| own.with_base_offset(work.base_offset)),
            span: count + extra_span,
            max_timestamp_ms: 7,
            routed: routed.collect(),
            books: Books { records_in: count, kept: count, ..Books::default() },
            rejects: Vec::new(),
        };
        let mut effects = Effects::default();
        self.sequencer.finish(work.partition, work.run, Ok(finished), &mut effects);
        self.execute(effects);
    }

    /// The store of the model: first come, first served, all or nothing, no holes.
    fn commit(&mut self, ok: bool) {
        let Some((id, commit)) = self.queue.pop_front() else { return };
        let mut next: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        let whole = commit.appends.iter().all(|append| {
            let end = self.log[&append.partition].last().map_or(Offset::ZERO, |(_, end, _)| *end);
            let next = next.entry(append.partition).or_insert(end);
            let fits = *next == append.cover_start && append.cover_end > append.cover_start;
            *next = append.cover_end;
            fits
        });
        let result = match ok && whole {
            true => Ok(()),
            false => Err(ProduceError::CommitUnknown { why: "the disk said so".into() }),
        };
        if result.is_ok() {
            check_together(&commit);
            for append in commit.appends {
                let batch = append.batches.map(|bytes| RecordBatch::decode(bytes).unwrap());
                let log = self.log.get_mut(&append.partition).unwrap();
                log.push((append.cover_start, append.cover_end, batch));
            }
        }
        let mut effects = Effects::default();
        self.sequencer.committed(id, result, &mut effects);
        self.execute(effects);
    }

    fn execute(&mut self, effects: Effects<usize>) {
        self.queue.extend(effects.commits);
        for (index, outcome) in effects.answers {
            let outcome: Outcome = outcome;
            self.sent[index].answers.push(outcome.map(|answer| (*answer).clone()));
        }
    }

    /// Everything that is under way ends well.
    fn settle(&mut self) {
        while !self.sequencer.is_idle() {
            let before = (self.queue.len(), self.runs.len());
            while let Some(work) = self.sequencer.take_work() {
                self.runs.push(work);
            }
            while !self.runs.is_empty() {
                self.finish(0, true, 0, &[]);
            }
            while !self.queue.is_empty() {
                self.commit(true);
            }
            assert!(
                before != (0, 0) || self.sequencer.is_idle() || self.sequencer.runnable_count(1) > 0,
                "nothing moves"
            );
        }
    }

    /// Every producer sends again what was not stored, in order, until all is.
    fn retry(&mut self) {
        for index in 0..self.sent.len() {
            self.offer(index);
            self.settle();
            let last = self.sent[index].answers.last().unwrap();
            assert!(last.is_ok(), "a retry in order is taken: {last:?}");
        }
    }

    fn check(&self) {
        for sent in &self.sent {
            let answers: Vec<_> = sent.answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "a retry is answered alike: {answers:?}");
            let log = &self.log[&sent.partition];
            let (base, next) = (answers[0].base_offset, answers[0].next_offset);
            assert!(log.iter().any(|(start, end, _)| (*start, *end) == (base, next)), "what is answered is stored");
        }
        for (partition, log) in &self.log {
            let mut next = BTreeMap::new();
            for (start, _, batch) in log.iter().filter_map(|(s, e, b)| b.as_ref().map(|b| (s, e, b))) {
                let header = batch.header();
                assert_eq!(header.base_offset, *start);
                if header.producer_id >= 0 {
                    let last = next.insert(header.producer_id, header.base_sequence);
                    assert!(last.is_none_or(|last| last < header.base_sequence), "out of order in {partition}");
                }
            }
        }
        self.check_stored_once();
    }

    fn check_stored_once(&self) {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for batch in self.log.values().flatten().filter_map(|(_, _, batch)| batch.as_ref()) {
            let value = value_of(batch);
            *found.entry(value.split('>').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        for sent in &self.sent {
            let (partition, producer, sequence) = (sent.partition.0, sent.producer, sent.base_sequence.0);
            let name = format!("{partition}/{producer}/{sequence}");
            assert!(found.get(&name).copied().unwrap_or(0) <= 1, "{name} is stored twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_batch_is_stored_once_in_order_and_answered_alike(
        piped in prop::collection::vec(any::<bool>(), PARTITIONS as usize),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(&piped);
        for event in events {
            world.step(event);
        }
        world.settle();
        for sent in &world.sent {
            prop_assert!(!sent.answers.is_empty(), "everybody is answered");
        }
        world.retry();
        world.check();
    }
}

fn answered(world: &World, index: usize) -> &Result<ProduceAnswer, ProduceError> {
    world.sent[index].answers.last().expect("it was answered")
}

fn send(world: &mut World, partition: u32, producer: u64) -> usize {
    world.step(Event::Send { partition, producer, records: 1 });
    world.sent.len() - 1
}

fn take(world: &mut World, partition: u32) -> usize {
    world.step(Event::Take);
    world.runs.iter().position(|work| work.partition.0 == partition).expect("it is its turn")
}

#[test]
fn batches_that_route_to_each_other_share_one_commit() {
    let mut world = World::new(&[true, true, false, false]);
    send(&mut world, 0, 0);
    send(&mut world, 1, 0);
    let a = take(&mut world, 0);
    let b = take(&mut world, 1);
    assert_ne!(a, b);
    world.finish(a, true, 0, &[1]);
    assert!(world.queue.is_empty(), "the span of partition 1's batch is not known yet");
    world.finish(0, true, 0, &[0]);
    assert_eq!(world.queue.len(), 1, "one commit for both");
    let (_, commit) = &world.queue[0];
    let places: Vec<_> = commit.appends.iter().map(|append| (append.partition.0, append.cover_start.0)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 1), (0, 1)], "own batches first");
    world.settle();
    world.check();
}

#[test]
fn batches_that_do_not_wait_for_each_other_have_commits_of_their_own() {
    let mut world = World::new(&[true, true, true, false]);
    for partition in 0..2 {
        send(&mut world, partition, 0);
    }
    take(&mut world, 0);
    let b = take(&mut world, 1);
    world.finish(1 - b, true, 0, &[1, 3]);
    assert!(world.queue.is_empty());
    world.finish(0, true, 0, &[3]);
    assert_eq!(world.queue.len(), 2);
    assert_eq!(world.queue[0].1.appends[0].partition.0, 1, "the one that was waited for goes first");
}

#[test]
fn a_commit_that_fails_takes_what_is_built_on_it_and_nothing_else() {
    let mut world = World::new(&[false, false, true, false]);
    let lost = send(&mut world, 0, 0);
    let beside = send(&mut world, 1, 0);
    let built_on = send(&mut world, 0, 0);
    world.commit(false);
    assert!(matches!(answered(&world, lost), Err(ProduceError::CommitUnknown { .. })));
    assert!(matches!(answered(&world, built_on), Err(ProduceError::CommitUnknown { .. })));
    world.commit(true);
    assert!(answered(&world, beside).is_ok());
    world.commit(true);
    world.offer(lost);
    world.settle();
    assert_eq!(answered(&world, lost).as_ref().unwrap().base_offset, Offset::ZERO, "the place is free again");
    world.retry();
    world.check();
}

#[test]
fn a_retry_of_a_batch_in_flight_gets_the_same_answer() {
    let mut world = World::new(&[true, false, false, false]);
    let index = send(&mut world, 0, 0);
    world.offer(index);
    take(&mut world, 0);
    world.offer(index);
    world.finish(0, true, 2, &[]);
    world.offer(index);
    assert!(world.sent[index].answers.is_empty());
    world.commit(true);
    world.offer(index);
    assert_eq!(world.sent[index].answers.len(), 5);
    world.check();
}

#[test]
fn a_gap_a_fenced_epoch_and_a_flood_are_refused() {
    let offer = |sequencer: &mut Sequencer<usize>, epoch, sequence| {
        let producer = BatchProducer { id: ProducerId(0), epoch: Epoch(epoch), base_sequence: Sequence(sequence) };
        let mut effects = Effects::default();
        sequencer.offer(PartitionId(0), batch("x", 1, Some(producer)), true, 0, &mut effects);
        effects.answers.pop().map(|(_, outcome)| outcome)
    };
    let mut world = World::new(&[false; 4]);
    let sequencer = &mut world.sequencer;
    assert!(matches!(offer(sequencer, 1, 5), Some(Err(ProduceError::OutOfOrderSequence { .. }))));
    assert!(offer(sequencer, 1, 0).is_none());
    assert!(matches!(offer(sequencer, 1, 2), Some(Err(ProduceError::OutOfOrderSequence { .. }))));
    assert!(matches!(offer(sequencer, 0, 1), Some(Err(ProduceError::ProducerFenced { .. }))));
    for sequence in 1..128 {
        assert!(offer(sequencer, 1, sequence).is_none());
    }
    assert!(matches!(offer(sequencer, 1, 128), Some(Err(ProduceError::TooManyInFlight))));
}

#[test]
fn a_topic_leaves_a_worker_to_the_others() {
    let mut sequencer = Sequencer::new(1);
    for id in 0..3 {
        let group = PartitionId(if id < 2 { 0 } else { 2 });
        let start = LaneStart { group, next_offset: Offset::ZERO, producers: BTreeMap::new(), piped: true };
        sequencer.add_lane(PartitionId(id), start);
        let mut effects = Effects::default();
        sequencer.offer(PartitionId(id), batch("x", 1, None), true, id, &mut effects);
    }
    assert_eq!((sequencer.runnable_count(9), sequencer.runnable_count(1)), (2, 1));
    assert_eq!(sequencer.take_work().unwrap().partition, PartitionId(0));
    assert_eq!(sequencer.take_work().unwrap().partition, PartitionId(2), "not the second one of the first topic");
    assert_eq!(sequencer.runnable_count(9), 0, "nobody is called for what must wait");
    assert!(sequencer.take_work().is_none());
}

#[test]
fn a_batch_whose_target_is_gone_is_to_be_retried() {
    let mut world = World::new(&[true, true, false, false]);
    let index = send(&mut world, 0, 0);
    send(&mut world, 1, 0);
    let a = take(&mut world, 0);
    take(&mut world, 1);
    world.finish(a, true, 0, &[1]);
    let mut effects = Effects::default();
    world.sequencer.close_lane(PartitionId(1), &mut effects);
    world.execute(effects);
    assert!(matches!(answered(&world, index), Err(ProduceError::TargetGone)));
}

#[test]
fn a_partition_whose_deletion_failed_goes_on_where_it_was() {
    let mut world = World::new(&[true, false, false, false]);
    let stored = send(&mut world, 1, 0);
    world.step(Event::Commit { ok: true });
    let in_flight = send(&mut world, 1, 0);
    let running = send(&mut world, 0, 0);
    let run = take(&mut world, 0);
    let mut effects = Effects::default();
    let rows: usize = (0..2).map(|id| world.sequencer.close_lane(PartitionId(id), &mut effects).len()).sum();
    assert_eq!(rows, 3, "of what is stored, in flight and running");
    world.execute(effects);
    let refused = send(&mut world, 1, 1);
    for index in [running, refused] {
        assert!(matches!(answered(&world, index), Err(ProduceError::PartitionGone)));
    }
    world.finish(run, true, 0, &[]);
    world.step(Event::Commit { ok: true });
    (0..2).for_each(|id| world.sequencer.reopen_lane(PartitionId(id)));
    for index in [stored, in_flight] {
        let first = answered(&world, index).clone().unwrap();
        world.offer(index);
        assert_eq!(answered(&world, index).clone().unwrap(), first);
    }
    world.offer(refused);
    world.step(Event::Commit { ok: true });
    assert_eq!(answered(&world, refused).clone().unwrap().base_offset, Offset(2));
}

#[test]
fn a_partition_forgets_the_producer_that_is_idle_for_longest_and_its_rows() {
    let mut world = World::new(&[false; 4]);
    let mut rows = std::collections::BTreeSet::new();
    let mut offer = |world: &mut World, producer| {
        let stamp = BatchProducer { id: ProducerId(producer), epoch: Epoch(0), base_sequence: Sequence(0) };
        let mut effects = Effects::default();
        world.sequencer.offer(PartitionId(0), batch("x", 1, Some(stamp)), true, 0, &mut effects);
        for (id, commit) in effects.commits {
            for row in commit.state {
                let changed = if row.value.is_some() { rows.insert(row.key) } else { rows.remove(&row.key) };
                assert!(changed);
            }
            world.sequencer.committed(id, Ok(()), &mut Effects::default());
        }
        rows.len()
    };
    for producer in 0..PRODUCERS_PER_PARTITION_MAX as u64 + 3 {
        let stored = offer(&mut world, producer);
        assert!(stored <= PRODUCERS_PER_PARTITION_MAX);
    }
    let known = |producer| world.sequencer.producer_place(PartitionId(0), ProducerId(producer)).is_some();
    assert!(!known(0) && !known(2) && known(3));
}

//! A broker as it should be, and clients that do as they like: histories in which nothing is broken, and how it really
//! was.
//!
//! Start at [`run`].

use std::collections::VecDeque;

use protocol::Books;
use sim::{
    checker::history::{Event, Fate, History, Partition, RecordId, Seen, What},
    rng::Rng,
};

/// Partitions of a model: one without a transform, one with, its dead letters, one that retention trims.
pub(crate) const PLAIN: u32 = 0;
pub(crate) const FILTERED: u32 = 1;
pub(crate) const LETTERS: u32 = 2;
pub(crate) const TRIMMED: u32 = 3;

const PRODUCERS: u32 = 4;
const READERS: u32 = 4;
/// Numbers of readers begin here.
const FIRST_READER: u32 = 100;

/// A history and how it came to be.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) batches: Vec<Batch>,
}

/// Records that were stored, or not, as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) producer: u32,
    pub(crate) partition: u32,
    pub(crate) first: u64,
    pub(crate) fates: Vec<Fate>,
    /// The event that sent it, or the first of several.
    pub(crate) sent: usize,
    /// How many events sent it.
    pub(crate) sends: usize,
    pub(crate) outcome: Outcome,
    /// The event that answered it.
    pub(crate) answered: Option<usize>,
    /// Where it lies.
    pub(crate) base: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acked,
    Refused,
    Unknown,
}

impl Batch {
    pub(crate) fn id(&self, index: usize) -> RecordId {
        RecordId { producer: self.producer, partition: self.partition, number: self.first + index as u64 }
    }

    pub(crate) fn len(&self) -> usize {
        self.fates.len()
    }
}

pub(crate) fn partitions() -> Vec<Partition> {
    let named = |name: &str, dead_letters| Partition { name: name.to_owned(), dead_letters };
    vec![
        named("plain/0", None),
        named("filtered/0", Some(LETTERS)),
        named("filtered.dlq/0", None),
        named("trimmed/0", None),
    ]
}

/// A history of about so many steps.
pub(crate) fn run(seed: u64, steps: usize) -> Run {
    let mut model = Model::new(seed);
    for _ in 0..steps {
        model.step();
    }
    model.finish()
}

struct Model {
    rng: Rng,
    run: Run,
    logs: Vec<Log>,
    /// By producer, and then by partition.
    lanes: Vec<Vec<Lane>>,
    readers: Vec<Reader>,
    /// Questions of readers that are not answered: what is asked for.
    asked: Vec<Option<u32>>,
    totals: Vec<Books>,
}

#[derive(Default)]
struct Log {
    start: u64,
    next_offset: u64,
    records: Vec<Seen>,
}

/// What one producer has under way to one partition.
#[derive(Default)]
struct Lane {
    next_number: u64,
    pending: VecDeque<Batch>,
    stored: VecDeque<usize>,
}

#[derive(Clone, Copy, Default)]
struct Reader {
    partition: u32,
    place: Option<u64>,
}

impl Model {
    fn new(seed: u64) -> Model {
        let partitions = partitions();
        let logs = partitions.iter().map(|_| Log::default()).collect();
        let lanes = || (0..partitions.len()).map(|_| Lane::default()).collect();
        Model {
            rng: Rng::new(seed),
            logs,
            lanes: (0..PRODUCERS).map(|_| lanes()).collect(),
            readers: vec![Reader::default(); READERS as usize],
            asked: vec![None; READERS as usize],
            totals: vec![Books::default(); PRODUCERS as usize],
            run: Run { history: History { partitions, events: Vec::new() }, batches: Vec::new() },
        }
    }

    fn say(&mut self, client: u32, what: What) -> usize {
        let at_us = self.run.history.events.len() as u64 * 10;
        self.run.history.events.push(Event { at_us, client, what });
        self.run.history.events.len() - 1
    }

    fn step(&mut self) {
        let producer = self.rng.below(PRODUCERS as usize) as u32;
        let partition = self.rng.pick(&[PLAIN, FILTERED, FILTERED, TRIMMED]);
        let reader = self.rng.below(READERS as usize);
        match self.rng.below(16) {
            0..=3 => self.send(producer, partition),
            4..=6 => self.commit(producer, partition),
            7..=9 => self.answer(producer, partition),
            10..=12 => self.read(reader),
            13 => self.seek(reader),
            14 => self.ask(reader),
            _ => self.trim(),
        }
    }

    fn send(&mut self, producer: u32, partition: u32) {
        if self.lanes[producer as usize][partition as usize].pending.len() > 3 {
            return;
        }
        let count = self.rng.within(1..=5) as usize;
        let first = self.lanes[producer as usize][partition as usize].next_number;
        let fates: Vec<Fate> = (0..count).map(|_| self.fate(partition)).collect();
        let (sent, sends) = if self.rng.percent(30) {
            // Handed over one by one, and gathered on the way.
            let singles = fates.iter().enumerate();
            let sent: Vec<usize> = singles
                .map(|(index, fate)| {
                    let what = What::Send { partition, first: first + index as u64, fates: vec![*fate] };
                    self.say(producer, what)
                })
                .collect();
            (sent[0], sent.len())
        } else {
            (self.say(producer, What::Send { partition, first, fates: fates.clone() }), 1)
        };
        let lane = &mut self.lanes[producer as usize][partition as usize];
        lane.next_number += count as u64;
        let (outcome, answered, base) = (Outcome::Unknown, None, None);
        lane.pending.push_back(Batch { producer, partition, first, fates, sent, sends, outcome, answered, base });
    }

    fn fate(&mut self, partition: u32) -> Fate {
        match (partition, self.rng.below(10)) {
            (FILTERED, 0..=2) => Fate::Dropped,
            (FILTERED, 3) => Fate::DeadLettered,
            (FILTERED, 4) => Fate::Rejected,
            _ => Fate::Kept,
        }
    }

    /// The broker takes the oldest batch that is on its way, or never sees it.
    fn commit(&mut self, producer: u32, partition: u32) {
        let lane = &mut self.lanes[producer as usize][partition as usize];
        let Some(mut batch) = lane.pending.pop_front() else { return };
        match self.rng.below(20) {
            0 | 1 => batch.outcome = Outcome::Unknown,
            2 => batch.outcome = Outcome::Refused,
            3 | 4 => {
                batch.outcome = Outcome::Unknown;
                batch.base = Some(self.store(&batch));
            }
            _ => {
                batch.outcome = Outcome::Acked;
                batch.base = Some(self.store(&batch));
            }
        }
        self.run.batches.push(batch);
        let index = self.run.batches.len() - 1;
        self.lanes[producer as usize][partition as usize].stored.push_back(index);
    }

    fn store(&mut self, batch: &Batch) -> u64 {
        let log = &mut self.logs[batch.partition as usize];
        let base = log.next_offset;
        log.next_offset += batch.len() as u64;
        for (index, fate) in batch.fates.iter().enumerate() {
            let record = Some(batch.id(index));
            match fate {
                Fate::Kept => {
                    let offset = base + index as u64;
                    self.logs[batch.partition as usize].records.push(Seen { offset, record });
                }
                Fate::DeadLettered => {
                    let letters = &mut self.logs[LETTERS as usize];
                    letters.records.push(Seen { offset: letters.next_offset, record });
                    letters.next_offset += 1;
                }
                Fate::Dropped | Fate::Rejected => {}
            }
        }
        base
    }

    /// The producer hears of the oldest batch that it has not heard of, or gives up.
    fn answer(&mut self, producer: u32, partition: u32) {
        let Some(index) = self.lanes[producer as usize][partition as usize].stored.pop_front() else { return };
        let batch = self.run.batches[index].clone();
        let (first, count) = (batch.first, batch.len() as u64);
        let what = match (batch.outcome, batch.base) {
            (Outcome::Acked, Some(base_offset)) => {
                let books = books(&batch.fates);
                self.totals[producer as usize].add(&books);
                What::Ack { partition, first, count, base_offset, next_offset: base_offset + count, books }
            }
            (Outcome::Refused, _) => What::Refused { partition, first, count },
            _ if self.rng.percent(50) => What::Unknown { partition, first, count },
            // Nobody waits for it any more.
            _ => return,
        };
        let answered = self.say(producer, what);
        self.run.batches[index].answered = Some(answered);
    }

    fn seek(&mut self, reader: usize) {
        let partition = self.rng.below(self.logs.len()) as u32;
        let log = &self.logs[partition as usize];
        let (start, end) = (log.start, log.next_offset);
        let to = match self.rng.below(3) {
            0 => None,
            1 => Some(start),
            _ => Some(self.rng.within(start..=end)),
        };
        self.readers[reader] = Reader { partition, place: to };
        self.say(FIRST_READER + reader as u32, What::Seek { partition, to });
    }

    fn read(&mut self, reader: usize) {
        let Reader { partition, place } = self.readers[reader];
        let log = &self.logs[partition as usize];
        let from = place.unwrap_or(log.start);
        if from < log.start || from >= log.next_offset {
            return;
        }
        let next_offset = self.rng.within(from + 1..=log.next_offset.min(from + 12));
        let records = log.records.iter().filter(|seen| (from..next_offset).contains(&seen.offset)).copied().collect();
        self.readers[reader].place = Some(next_offset);
        self.say(FIRST_READER + reader as u32, What::Read { partition, from, next_offset, records });
    }

    /// Asks, or answers what was asked before.
    fn ask(&mut self, reader: usize) {
        let client = FIRST_READER + reader as u32;
        let Some(partition) = self.asked[reader].take() else {
            let partition = self.rng.below(self.logs.len()) as u32;
            self.asked[reader] = Some(partition);
            self.say(client, What::Ask { partition });
            return;
        };
        let Log { start, next_offset, .. } = self.logs[partition as usize];
        let what = match self.rng.percent(60) {
            true => What::Watermark { partition, offset: next_offset },
            false => What::LogStart { partition, offset: start },
        };
        self.say(client, what);
    }

    fn trim(&mut self) {
        let log = &mut self.logs[TRIMMED as usize];
        if log.start + 10 < log.next_offset {
            let start = self.rng.within(log.start..=log.next_offset - 10);
            log.start = start;
            log.records.retain(|seen| seen.offset >= start);
        }
    }

    fn finish(mut self) -> Run {
        for producer in 0..PRODUCERS {
            for partition in [PLAIN, FILTERED, TRIMMED] {
                for _ in 0..1_000 {
                    self.commit(producer, partition);
                    self.answer(producer, partition);
                }
            }
        }
        for producer in 0..PRODUCERS {
            let books = self.totals[producer as usize];
            self.say(producer, What::Total { books });
        }
        for partition in 0..self.logs.len() {
            self.read_all(partition as u32);
        }
        self.run
    }

    /// The final log, in parts.
    fn read_all(&mut self, partition: u32) {
        let log = &self.logs[partition as usize];
        let (mut from, end, records) = (log.start, log.next_offset, log.records.clone());
        loop {
            let next_offset = self.rng.within(from..=end).max(from + (end - from) / 2);
            let records = records.iter().filter(|seen| (from..next_offset).contains(&seen.offset)).copied().collect();
            self.say(999, What::Final { partition, from, next_offset, records });
            from = next_offset;
            if from == end {
                break;
            }
        }
    }
}

pub(crate) fn books(fates: &[Fate]) -> Books {
    let count = |fate| fates.iter().filter(|other| **other == fate).count() as u64;
    let kept = count(Fate::Kept);
    Books {
        records_in: fates.len() as u64,
        kept,
        stored: kept,
        dropped: count(Fate::Dropped),
        dead_lettered: count(Fate::DeadLettered),
        rejected: count(Fate::Rejected),
    }
}

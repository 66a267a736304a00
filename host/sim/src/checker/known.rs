//! What is known of every record: what was to become of it, what its producer was told, and where it lies in the end.
//!
//! Owns the look-ups of all promises. Judges only whether the history can be one at all.
//!
//! Start at [`Known::of`].

use std::collections::HashMap;

use crate::checker::{
    Counts, Evidence, Findings, Kind,
    history::{Fate, History, RecordId, Seen, What},
};

/// See the module.
pub(super) struct Known<'a> {
    pub(super) history: &'a History,
    /// All records, by producer and partition in the order of their first sends, and then by number.
    streams: Vec<Stream>,
    by_producer: HashMap<(u32, u32), usize>,
    /// The final log of each partition that has one.
    logs: Vec<Option<Log>>,
}

/// The records of one producer to one partition.
struct Stream {
    producer: u32,
    partition: u32,
    records: Vec<Sent>,
}

/// A record that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// The event that sent it.
    pub(super) event: usize,
    pub(super) fate: Fate,
    pub(super) answer: Option<Answer>,
    /// Where it lies, in the partition where it belongs.
    pub(super) stored: Option<u64>,
    /// Where it lies once more.
    pub(super) stored_again: Option<u64>,
    /// Whether it lies where it does not belong.
    pub(super) astray: bool,
}

/// What a producer was told first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) event: usize,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acked { offset: u64 },
    Refused,
    Unknown,
}

/// A partition as it is in the end.
pub(super) struct Log {
    pub(super) start: u64,
    pub(super) next_offset: u64,
    pub(super) records: Vec<Seen>,
    /// Index of the first record at an offset.
    pub(super) by_offset: HashMap<u64, usize>,
    /// The event that showed the end of it.
    pub(super) event: usize,
}

impl Sent {
    /// Where its producer was told that it is.
    pub(super) fn acked_at(&self) -> Option<u64> {
        match self.answer?.outcome {
            Outcome::Acked { offset } => Some(offset),
            _ => None,
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.answer.is_some_and(|answer| answer.outcome == Outcome::Refused)
    }

    /// Whether it lies at an offset of the partition where it belongs.
    pub(super) fn lies_at(&self, offset: u64) -> bool {
        self.stored == Some(offset) || self.stored_again == Some(offset)
    }
}

impl Log {
    /// What lies at an offset.
    pub(super) fn at(&self, offset: u64) -> Option<&Seen> {
        self.by_offset.get(&offset).map(|index| &self.records[*index])
    }
}

impl<'a> Known<'a> {
    pub(super) fn of(history: &'a History, found: &mut Findings<'_>) -> Known<'a> {
        let logs = history.partitions.iter().map(|_| None).collect();
        let mut known = Known { history, streams: Vec::new(), by_producer: HashMap::new(), logs };
        for (event, happened) in history.events.iter().enumerate() {
            found.step();
            known.note(event, happened.client, &happened.what, found);
        }
        for (partition, log) in known.logs.iter().enumerate() {
            if log.is_none() {
                let evidence = Evidence { partition: partition as u32, ..Evidence::default() };
                found.add(Kind::Malformed, evidence, || "there is no final log".to_owned());
            }
        }
        known
    }

    fn note(&mut self, event: usize, client: u32, what: &What, found: &mut Findings<'_>) {
        match what {
            What::Send { partition, first, fates } => self.send(event, (client, *partition), *first, fates, found),
            What::Ack { partition, first, count, base_offset, .. } => {
                let outcome = |index| Outcome::Acked { offset: base_offset.saturating_add(index) };
                self.answer(event, (client, *partition), (*first, *count), outcome, found);
            }
            What::Refused { partition, first, count } => {
                self.answer(event, (client, *partition), (*first, *count), |_| Outcome::Refused, found);
            }
            What::Unknown { partition, first, count } => {
                self.answer(event, (client, *partition), (*first, *count), |_| Outcome::Unknown, found);
            }
            What::Final { partition, from, next_offset, records } => {
                self.lay_out(event, *partition, (*from, *next_offset), records, found);
            }
            _ => {}
        }
    }

    fn send(&mut self, event: usize, key: (u32, u32), first: u64, fates: &[Fate], found: &mut Findings<'_>) {
        let (producer, partition) = key;
        let stream = *self.by_producer.entry(key).or_insert_with(|| {
            self.streams.push(Stream { producer, partition, records: Vec::new() });
            self.streams.len() - 1
        });
        let records = &mut self.streams[stream].records;
        if records.len() as u64 != first || self.logs.len() <= partition as usize {
            let evidence = Evidence { partition, ..Evidence::default() }.event(event);
            let next = records.len();
            found.add(Kind::Malformed, evidence, || format!("client {producer} sends {first}, its next is {next}"));
            return;
        }
        for fate in fates {
            found.step();
            let sent = Sent { event, fate: *fate, answer: None, stored: None, stored_again: None, astray: false };
            records.push(sent);
        }
    }

    fn answer(
        &mut self,
        event: usize,
        key: (u32, u32),
        (first, count): (u64, u64),
        outcome: impl Fn(u64) -> Outcome,
        found: &mut Findings<'_>,
    ) {
        let (producer, partition) = key;
        for index in 0..count {
            found.step();
            let record = RecordId { producer, partition, number: first.saturating_add(index) };
            let evidence = Evidence { partition, ..Evidence::default() }.of(record).event(event);
            let Some(sent) = self.sent_mut(record) else {
                found.add(Kind::Malformed, evidence, || "an answer to what was not sent".to_owned());
                return;
            };
            match sent.answer {
                None => sent.answer = Some(Answer { event, outcome: outcome(index) }),
                Some(before) => found.add(Kind::AnsweredTwice, evidence, || {
                    format!("first {:?} (event {}), then {:?}", before.outcome, before.event, outcome(index))
                }),
            }
        }
    }

    /// Takes a part of a final log.
    fn lay_out(
        &mut self,
        event: usize,
        partition: u32,
        (from, next_offset): (u64, u64),
        records: &[Seen],
        found: &mut Findings<'_>,
    ) {
        let Some(log) = self.logs.get_mut(partition as usize) else { return };
        let log = log.get_or_insert_with(|| Log {
            start: from,
            next_offset: from,
            records: Vec::new(),
            by_offset: HashMap::new(),
            event,
        });
        if log.next_offset != from {
            let evidence = Evidence::at(partition, from).event(event);
            let end = log.next_offset;
            found.add(Kind::Malformed, evidence, || format!("the part of the final log before it ends at {end}"));
        }
        (log.next_offset, log.event) = (next_offset, event);
        for seen in records {
            found.step();
            log.by_offset.entry(seen.offset).or_insert(log.records.len());
            log.records.push(*seen);
        }
        records.iter().for_each(|seen| self.place(partition, seen));
    }

    fn place(&mut self, partition: u32, seen: &Seen) {
        let Some(record) = seen.record else { return };
        let dead_letters = self.history.dead_letters_of(record.partition);
        let Some(sent) = self.sent_mut(record) else { return };
        if home(record, sent.fate, dead_letters) != Some(partition) {
            sent.astray = true;
        } else if sent.stored.is_none() {
            sent.stored = Some(seen.offset);
        } else {
            sent.stored_again = Some(seen.offset);
        }
    }

    fn sent_mut(&mut self, record: RecordId) -> Option<&mut Sent> {
        let stream = *self.by_producer.get(&(record.producer, record.partition))?;
        self.streams[stream].records.get_mut(usize::try_from(record.number).ok()?)
    }

    /// What is known of a record; `None` when it was never sent.
    pub(super) fn sent(&self, record: RecordId) -> Option<&Sent> {
        let stream = *self.by_producer.get(&(record.producer, record.partition))?;
        self.streams[stream].records.get(usize::try_from(record.number).ok()?)
    }

    /// All records that were sent.
    pub(super) fn all_sent(&self) -> impl Iterator<Item = (RecordId, &Sent)> {
        self.streams.iter().flat_map(|stream| {
            let id = |number| RecordId { producer: stream.producer, partition: stream.partition, number };
            stream.records.iter().enumerate().map(move |(number, sent)| (id(number as u64), sent))
        })
    }

    /// The partition in which a record lies if it is stored.
    pub(super) fn home(&self, record: RecordId, fate: Fate) -> Option<u32> {
        home(record, fate, self.history.dead_letters_of(record.partition))
    }

    /// How a partition is in the end.
    pub(super) fn log(&self, partition: u32) -> Option<&Log> {
        self.logs.get(partition as usize)?.as_ref()
    }

    /// Whether what a client says of a place is so in the end, or cannot be known any more: then others can be judged
    /// by it.
    pub(super) fn is_there(&self, partition: u32, seen: &Seen) -> bool {
        self.log(partition).is_some_and(|log| seen.offset < log.start || log.at(seen.offset) == Some(seen))
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, sent) in self.all_sent() {
            counts.sent += 1;
            match sent.answer.map(|answer| answer.outcome) {
                Some(Outcome::Acked { .. }) => counts.acked += 1,
                Some(Outcome::Refused) => counts.refused += 1,
                Some(Outcome::Unknown) | None => {
                    counts.unknown += 1;
                    counts.unknown_stored += u64::from(sent.stored.is_some());
                }
            }
        }
        for event in &self.history.events {
            match &event.what {
                What::Read { records, .. } => counts.read += records.len() as u64,
                What::Final { records, .. } => counts.stored += records.len() as u64,
                What::Watermark { .. } | What::LogStart { .. } => counts.asked += 1,
                _ => {}
            }
        }
        counts
    }
}

fn home(record: RecordId, fate: Fate, dead_letters: Option<u32>) -> Option<u32> {
    match fate {
        Fate::Kept => Some(record.partition),
        Fate::DeadLettered => dead_letters,
        Fate::Dropped | Fate::Rejected => None,
    }
}

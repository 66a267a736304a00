//! What plantings do to a history: look something up in it, and change it.

use sim::{
    checker::history::{Event, Fate, History, RecordId, Seen, What},
    rng::Rng,
};

use crate::model::{Batch, FILTERED, LETTERS, Outcome, PLAIN, Run, TRIMMED};

/// A history that is being spoilt.
pub(crate) struct Plant {
    pub(crate) run: Run,
    pub(crate) rng: Rng,
}

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) record: RecordId,
    pub(crate) offset: u64,
    pub(crate) partition: u32,
}

impl Plant {
    pub(crate) fn events(&mut self) -> &mut Vec<Event> {
        &mut self.run.history.events
    }

    pub(crate) fn what(&mut self, event: usize) -> &mut What {
        &mut self.run.history.events[event].what
    }

    pub(crate) fn pick<T>(&mut self, mut of: Vec<T>) -> Option<T> {
        (!of.is_empty()).then(|| of.swap_remove(self.rng.below(of.len())))
    }

    /// Some batch for which this holds.
    pub(crate) fn batch(&mut self, holds: impl Fn(&Plant, &Batch) -> bool) -> Option<Batch> {
        let found = self.run.batches.iter().filter(|batch| holds(self, batch)).cloned().collect();
        self.pick(found)
    }

    /// Some acknowledged batch of which everything is still there.
    pub(crate) fn acked(&mut self, holds: impl Fn(&Plant, &Batch) -> bool) -> Option<Batch> {
        self.batch(|plant, batch| batch.outcome == Outcome::Acked && plant.is_kept(batch) && holds(plant, batch))
    }

    /// Some batch without an answer that is there, or not.
    pub(crate) fn unknown(&mut self, stored: bool, holds: impl Fn(&Plant, &Batch) -> bool) -> Option<Batch> {
        self.batch(|plant, batch| {
            batch.outcome == Outcome::Unknown
                && batch.base.is_some() == stored
                && (!stored || plant.is_kept(batch))
                && holds(plant, batch)
        })
    }

    /// Whether retention has left it alone.
    pub(crate) fn is_kept(&self, batch: &Batch) -> bool {
        batch.base.is_some_and(|base| base >= self.start(batch.partition))
    }

    pub(crate) fn is_kept_record(&self, place: &Place) -> bool {
        place.offset >= self.start(place.partition)
    }

    /// The records of a batch that are stored in its own partition.
    pub(crate) fn places(&self, batch: &Batch) -> Vec<Place> {
        let base = batch.base.expect("only stored batches have places");
        let kept = batch.fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Kept);
        kept.map(|(index, _)| Place {
            record: batch.id(index),
            offset: base + index as u64,
            partition: batch.partition,
        })
        .collect()
    }

    /// One of the records of a batch that are stored.
    pub(crate) fn place(&mut self, batch: &Batch) -> Option<Place> {
        let places = self.places(batch);
        self.pick(places)
    }

    /// A record of a batch that has this fate.
    pub(crate) fn with_fate(&mut self, batch: &Batch, fate: Fate) -> Option<RecordId> {
        let of_fate = (0..batch.len()).filter(|index| batch.fates[*index] == fate).map(|index| batch.id(index));
        self.pick(of_fate.collect())
    }

    pub(crate) fn has(batch: &Batch, fate: Fate) -> bool {
        batch.fates.contains(&fate)
    }

    /// A record that is not of this producer, right behind a place, also of an acknowledged batch.
    pub(crate) fn neighbours(&mut self, of_same: bool, trimmed: bool) -> Option<(Place, Place)> {
        let mut places: Vec<(Place, usize)> = Vec::new();
        for (index, batch) in self.run.batches.iter().enumerate() {
            if batch.outcome == Outcome::Acked && batch.base.is_some() {
                places.extend(self.places(batch).into_iter().map(|place| (place, index)));
            }
        }
        places.sort_by_key(|(place, _)| (place.partition, place.offset));
        let pairs = places.windows(2).filter(|pair| {
            let [(first, first_of), (second, second_of)] = pair else { return false };
            first.partition == second.partition
                && first.offset + 1 == second.offset
                && first_of != second_of
                && (first.record.producer == second.record.producer) == of_same
                && self.is_kept_record(first) != trimmed
                && self.is_kept_record(second) != trimmed
        });
        let pairs = pairs.map(|pair| (pair[0].0, pair[1].0)).collect();
        self.pick(pairs)
    }

    pub(crate) fn start(&self, partition: u32) -> u64 {
        let starts = self.run.history.events.iter().filter_map(|event| match &event.what {
            What::Final { partition: of, from, .. } if *of == partition => Some(*from),
            _ => None,
        });
        starts.min().expect("every partition has a final log")
    }

    pub(crate) fn end(&self, partition: u32) -> u64 {
        let ends = self.run.history.events.iter().filter_map(|event| match &event.what {
            What::Final { partition: of, next_offset, .. } if *of == partition => Some(*next_offset),
            _ => None,
        });
        ends.max().expect("every partition has a final log")
    }

    /// The events for which this holds.
    pub(crate) fn find(&self, holds: impl Fn(&What) -> bool) -> Vec<usize> {
        let events = self.run.history.events.iter().enumerate();
        events.filter(|(_, event)| holds(&event.what)).map(|(index, _)| index).collect()
    }

    pub(crate) fn finals(&self, partition: u32) -> Vec<usize> {
        self.find(|what| matches!(what, What::Final { partition: of, .. } if *of == partition))
    }

    /// Which partition a read is of.
    pub(crate) fn partition_of(&self, read: usize) -> u32 {
        match self.history().events[read].what {
            What::Read { partition, .. } => partition,
            _ => panic!("event {read} is no read"),
        }
    }

    pub(crate) fn reads(&self) -> Vec<usize> {
        self.find(|what| matches!(what, What::Read { .. }))
    }

    /// Changes what lies in the final log of a partition.
    pub(crate) fn in_final(&mut self, partition: u32, mut change: impl FnMut(&mut Vec<Seen>)) {
        for event in self.finals(partition) {
            let What::Final { records, .. } = self.what(event) else { unreachable!("it was looked for") };
            change(records);
        }
    }

    /// Changes what readers of a partition were shown.
    pub(crate) fn in_reads(&mut self, partition: u32, mut change: impl FnMut(&mut Vec<Seen>)) {
        for event in self.reads() {
            if let What::Read { partition: of, records, .. } = self.what(event)
                && *of == partition
            {
                change(records);
            }
        }
    }

    /// Takes a record out of the final log.
    pub(crate) fn lose(&mut self, record: RecordId, partition: u32) {
        self.in_final(partition, |records| records.retain(|seen| seen.record != Some(record)));
    }

    /// Nobody was shown it.
    pub(crate) fn hide(&mut self, record: RecordId, partition: u32) {
        self.in_reads(partition, |records| records.retain(|seen| seen.record != Some(record)));
    }

    /// Puts another record where one is, for all to see or in the end alone.
    pub(crate) fn replace(&mut self, partition: u32, offset: u64, by: Option<RecordId>, for_readers: bool) {
        let change = |records: &mut Vec<Seen>| {
            let at = records.iter_mut().filter(|seen| seen.offset == offset);
            at.for_each(|seen| seen.record = by);
        };
        self.in_final(partition, change);
        if for_readers {
            self.in_reads(partition, change);
        }
    }

    /// Puts a record behind everything else.
    pub(crate) fn append(&mut self, partition: u32, record: Option<RecordId>) -> u64 {
        let last = *self.finals(partition).last().expect("every partition has a final log");
        let What::Final { next_offset, records, .. } = self.what(last) else { unreachable!("it was looked for") };
        let offset = *next_offset;
        records.push(Seen { offset, record });
        *next_offset += 1;
        offset
    }

    /// Puts a record before what lies at an offset; everything from there on moves by one, for everybody.
    pub(crate) fn insert(&mut self, partition: u32, at: u64, record: RecordId) {
        if at == self.end(partition) {
            self.append(partition, Some(record));
            return;
        }
        let seen = Seen { offset: at, record: Some(record) };
        for event in self.events() {
            insert_into(&mut event.what, partition, seen);
        }
    }

    /// Swaps two records for everybody: what is stored, what readers saw, and what their producers were told.
    pub(crate) fn swap(&mut self, first: Place, second: Place) {
        self.swap_in_final(first, second);
        self.swap_in_reads(first, second);
    }

    pub(crate) fn swap_in_final(&mut self, first: Place, second: Place) {
        self.in_final(first.partition, |records| swap_in(records, first, second));
    }

    pub(crate) fn swap_in_reads(&mut self, first: Place, second: Place) {
        self.in_reads(first.partition, |records| swap_in(records, first, second));
    }

    /// The batch that holds a record.
    pub(crate) fn batch_of(&self, record: RecordId) -> Batch {
        let holds = |batch: &&Batch| {
            (batch.producer, batch.partition) == (record.producer, record.partition)
                && (batch.first..batch.first + batch.len() as u64).contains(&record.number)
        };
        self.run.batches.iter().find(holds).expect("it was sent").clone()
    }

    /// Whether a batch is the last of its producer's to its partition.
    pub(crate) fn is_last(&self, batch: &Batch) -> bool {
        let of_same = |other: &&Batch| (other.producer, other.partition) == (batch.producer, batch.partition);
        self.run.batches.iter().filter(of_same).all(|other| other.first <= batch.first)
    }

    /// Whether any reader was shown a record.
    pub(crate) fn was_shown(&self, record: RecordId) -> bool {
        self.run.history.events.iter().any(|event| match &event.what {
            What::Read { records, .. } => records.iter().any(|seen| seen.record == Some(record)),
            _ => false,
        })
    }

    pub(crate) fn history(&self) -> &History {
        &self.run.history
    }
}

/// All partitions that records are sent to.
pub(crate) const SENT_TO: [u32; 3] = [PLAIN, FILTERED, TRIMMED];

/// Whether a partition is one that only dead letters go to.
pub(crate) fn is_letters(partition: u32) -> bool {
    partition == LETTERS
}

fn swap_in(records: &mut [Seen], first: Place, second: Place) {
    for seen in records {
        if seen.record == Some(first.record) {
            seen.record = Some(second.record);
        } else if seen.record == Some(second.record) {
            seen.record = Some(first.record);
        }
    }
}

fn insert_into(what: &mut What, partition: u32, new: Seen) {
    let at = new.offset;
    let behind = |offset: &mut u64| *offset += u64::from(*offset > at);
    match what {
        What::Ack { partition: of, base_offset, next_offset, .. } if *of == partition => {
            *base_offset += u64::from(*base_offset >= at);
            behind(next_offset);
        }
        What::Read { partition: of, from, next_offset, records }
        | What::Final { partition: of, from, next_offset, records }
            if *of == partition =>
        {
            let is_inside = *from <= at && at < *next_offset;
            records.iter_mut().filter(|seen| seen.offset >= at).for_each(|seen| seen.offset += 1);
            if is_inside {
                let index = records.partition_point(|seen| seen.offset < at);
                records.insert(index, new);
            }
            behind(from);
            behind(next_offset);
        }
        What::Watermark { partition: of, offset } | What::LogStart { partition: of, offset } if *of == partition => {
            behind(offset);
        }
        What::Seek { partition: of, to: Some(to) } if *of == partition => behind(to),
        _ => {}
    }
}

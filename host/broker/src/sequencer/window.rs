//! What one partition remembers of one producer: enough to store a retry once and to answer it alike.
//!
//! Owns the duplicate check. Never answers anybody: it says what a batch is, the sequencer acts.
//!
//! Invariants
//! - Entries are in order of their numbers, without holes; the durable ones come first.
//! - An entry leaves only when [`IN_FLIGHT_BATCHES_MAX`] later ones, or one of a newer epoch, are *durable*: a failed
//!   commit can take back what was added, so it must not have pushed anything out.
//! - Within one epoch each entry begins at the sequence where the one before it ended.
//!
//! Start at [`Window::check`].

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use minicbor::{Decode, Encode};
use protocol::{
    Books, Epoch, Offset, PartitionId, ProduceAnswer, ProducerId, RecordError, Sequence, limits::IN_FLIGHT_BATCHES_MAX,
};

use super::BatchId;
use crate::{ProduceError, RowError, versioned};

/// What an idempotent producer writes on each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: ProducerId,
    pub(crate) epoch: Epoch,
    pub(crate) base_sequence: Sequence,
    pub(crate) record_count: u32,
}

/// What a batch is to the window.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// The next one.
    New,
    /// Already stored, and answered like this.
    Stored(Arc<ProduceAnswer>),
    /// The same as this one, which is not durable yet.
    InFlight(BatchId),
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    epoch: Epoch,
    base_sequence: Sequence,
    record_count: u32,
    state: EntryState,
}

#[derive(Debug, Clone)]
enum EntryState {
    InFlight(BatchId),
    Durable(Arc<ProduceAnswer>),
}

impl Entry {
    fn next_sequence(&self) -> Sequence {
        self.base_sequence.plus(self.record_count)
    }

    fn is_durable(&self) -> bool {
        matches!(self.state, EntryState::Durable(_))
    }
}

/// The last batches of one producer in one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    in_flight: usize,
    last_batch: Option<BatchId>,
}

impl Window {
    /// What a batch with this stamp is.
    ///
    /// # Errors
    /// When its epoch is old, or a batch between the last one and it is missing.
    pub(crate) fn check(&self, stamp: &Stamp) -> Result<Check, ProduceError> {
        let current = self.entries.back().map_or(stamp.epoch, |last| last.epoch);
        if stamp.epoch < current {
            return Err(ProduceError::ProducerFenced { epoch: stamp.epoch, current });
        }
        let same_epoch = self.entries.iter().rev().take_while(|entry| entry.epoch == stamp.epoch);
        let duplicate = same_epoch
            .clone()
            .find(|entry| entry.base_sequence == stamp.base_sequence && entry.record_count == stamp.record_count);
        if let Some(entry) = duplicate {
            return Ok(match &entry.state {
                EntryState::InFlight(batch) => Check::InFlight(*batch),
                EntryState::Durable(answer) => Check::Stored(answer.clone()),
            });
        }
        // A producer that the partition does not know, or that took a new epoch, begins at 0: were any other first
        // sequence taken, a batch that overtook its predecessor would be stored before it.
        let expected = same_epoch.into_iter().next().map_or(Sequence(0), Entry::next_sequence);
        if stamp.base_sequence != expected {
            return Err(ProduceError::OutOfOrderSequence { expected, found: stamp.base_sequence });
        }
        if self.in_flight >= IN_FLIGHT_BATCHES_MAX {
            return Err(ProduceError::TooManyInFlight);
        }
        Ok(Check::New)
    }

    /// Adds a batch that [`check`](Self::check) called new; returns its number.
    pub(crate) fn push(&mut self, stamp: &Stamp, batch: BatchId) -> u64 {
        let number = self.entries.back().map_or(0, |last| last.number + 1);
        self.entries.push_back(Entry {
            number,
            epoch: stamp.epoch,
            base_sequence: stamp.base_sequence,
            record_count: stamp.record_count,
            state: EntryState::InFlight(batch),
        });
        self.in_flight += 1;
        self.last_batch = Some(batch);
        number
    }

    /// A batch is durable: remembers its answer, forgets what is too old.
    pub(crate) fn make_durable(&mut self, number: u64, answer: Arc<ProduceAnswer>) {
        let Some(first) = self.entries.front().map(|entry| entry.number) else { return };
        let Some(entry) = number.checked_sub(first).and_then(|at| self.entries.get_mut(at as usize)) else { return };
        assert_eq!(entry.number, number, "numbers of a window have no holes");
        if !entry.is_durable() {
            self.in_flight -= 1;
        }
        entry.state = EntryState::Durable(answer);
        let epoch = entry.epoch;
        while let Some(front) = self.entries.front()
            && (front.epoch < epoch || front.number + IN_FLIGHT_BATCHES_MAX as u64 <= number)
        {
            assert!(front.is_durable(), "batches of a partition become durable in order");
            self.entries.pop_front();
        }
    }

    /// Takes back this batch and all after it; returns those after it, in order.
    pub(crate) fn take_back(&mut self, number: u64) -> Vec<BatchId> {
        let mut taken = Vec::new();
        while self.entries.back().is_some_and(|last| last.number >= number && !last.is_durable()) {
            let Some(Entry { number: taken_number, state: EntryState::InFlight(batch), .. }) = self.entries.pop_back()
            else {
                unreachable!("the entry was looked at")
            };
            self.in_flight -= 1;
            if taken_number != number {
                taken.push(batch);
            }
        }
        taken.reverse();
        taken
    }

    /// Takes back what is among these, which were not committed.
    pub(crate) fn forget(&mut self, lost: &BTreeSet<BatchId>) {
        self.entries.retain(|entry| !matches!(&entry.state, EntryState::InFlight(batch) if lost.contains(batch)));
        self.in_flight = self.entries.iter().filter(|entry| !entry.is_durable()).count();
    }

    /// Epoch and sequence after the last durable record; `None` when nothing is durable.
    pub(crate) fn durable_place(&self) -> Option<(Epoch, Sequence)> {
        self.entries.iter().rev().find(|entry| entry.is_durable()).map(|entry| (entry.epoch, entry.next_sequence()))
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_durable(&self) -> bool {
        self.in_flight == 0
    }

    /// The last batch taken in, which orders windows by use; `None` since the start.
    pub(crate) fn last_batch(&self) -> Option<BatchId> {
        self.last_batch
    }

    /// The keys of all rows that the window may have left in the store, those of older epochs included.
    pub(crate) fn row_keys(
        &self,
        partition: PartitionId,
        producer: ProducerId,
    ) -> impl Iterator<Item = [u8; PRODUCER_KEY_BYTES]> {
        let numbers = self.entries.back().map_or(0, |last| last.number + 1).min(IN_FLIGHT_BATCHES_MAX as u64);
        (0..numbers).map(move |number| ProducerRow::key(partition, producer, number))
    }

    /// Rebuilds a window from its rows, in any order. Rows of older epochs, and those whose slot was not overwritten
    /// before the window moved on, are left out.
    pub(crate) fn restore(mut rows: Vec<ProducerRow>) -> Window {
        rows.sort_by_key(|row| row.number);
        let Some(last) = rows.last() else { return Window::default() };
        let (epoch, mut next) = (last.epoch, last.number + 1);
        let mut entries = VecDeque::new();
        for row in rows.into_iter().rev() {
            if row.epoch != epoch || row.number + 1 != next || entries.len() == IN_FLIGHT_BATCHES_MAX {
                break;
            }
            next = row.number;
            entries.push_front(row.into_entry());
        }
        Window { entries, in_flight: 0, last_batch: None }
    }
}

/// One entry as it is stored, in the same commit as its batch. Flat and in order, so that it costs some 40 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ProducerRow {
    #[n(0)]
    pub(crate) number: u64,
    #[n(1)]
    pub(crate) epoch: Epoch,
    #[n(2)]
    pub(crate) base_sequence: Sequence,
    #[n(3)]
    pub(crate) record_count: u32,
    #[n(4)]
    base_offset: Offset,
    #[n(5)]
    span: u64,
    #[n(6)]
    kept: u64,
    #[n(7)]
    stored: u64,
    #[n(8)]
    dropped: u64,
    #[n(9)]
    dead_lettered: u64,
    #[n(10)]
    rejects: Vec<RecordError>,
}

/// Partition, producer, slot.
pub(crate) const PRODUCER_KEY_BYTES: usize = 4 + 8 + 1;

/// Version of [`ProducerRow`]'s layout.
const ROW_VERSION: u8 = 1;

impl ProducerRow {
    /// The row of a batch with this stamp, number and answer.
    pub(crate) fn new(number: u64, stamp: &Stamp, answer: &ProduceAnswer) -> ProducerRow {
        debug_assert_eq!(answer.books.rejected, answer.rejects.len() as u64);
        ProducerRow {
            number,
            epoch: stamp.epoch,
            base_sequence: stamp.base_sequence,
            record_count: stamp.record_count,
            base_offset: answer.base_offset,
            span: answer.next_offset.since(answer.base_offset),
            kept: answer.books.kept,
            stored: answer.books.stored,
            dropped: answer.books.dropped,
            dead_lettered: answer.books.dead_lettered,
            rejects: answer.rejects.clone(),
        }
    }

    /// The key: partition, producer, and the slot that the number falls in, so that a new row takes an old one's place.
    pub(crate) fn key(partition: PartitionId, producer: ProducerId, number: u64) -> [u8; PRODUCER_KEY_BYTES] {
        let mut key = [0; PRODUCER_KEY_BYTES];
        key[..4].copy_from_slice(&partition.0.to_be_bytes());
        key[4..12].copy_from_slice(&producer.0.to_be_bytes());
        key[12] = (number % IN_FLIGHT_BATCHES_MAX as u64) as u8;
        key
    }

    /// The value as stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        versioned::encode(ROW_VERSION, self)
    }

    /// Reads a stored row and whose it is.
    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<(ProducerId, ProducerRow), RowError> {
        let wrong_key = || RowError::Invalid(minicbor::decode::Error::message("no producer has such a key"));
        let key: &[u8; PRODUCER_KEY_BYTES] = key.try_into().map_err(|_| wrong_key())?;
        let producer = key[4..12].try_into().map_err(|_| wrong_key())?;
        Ok((ProducerId(u64::from_be_bytes(producer)), versioned::decode(ROW_VERSION, value)?))
    }

    fn into_entry(self) -> Entry {
        let books = Books {
            records_in: self.record_count.into(),
            kept: self.kept,
            stored: self.stored,
            dropped: self.dropped,
            dead_lettered: self.dead_lettered,
            rejected: self.rejects.len() as u64,
        };
        let answer = ProduceAnswer {
            base_offset: self.base_offset,
            next_offset: self.base_offset.plus(self.span),
            books,
            rejects: self.rejects,
        };
        Entry {
            number: self.number,
            epoch: self.epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
            state: EntryState::Durable(Arc::new(answer)),
        }
    }
}

// The slot is one byte of the key.
const _: () = assert!(IN_FLIGHT_BATCHES_MAX <= 256);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PARTITION: PartitionId = PartitionId(1);
    const PRODUCER: ProducerId = ProducerId(2);

    fn stamp(epoch: u16, sequence: u32) -> Stamp {
        let (epoch, base_sequence) = (Epoch(epoch), Sequence(sequence));
        Stamp { producer: PRODUCER, epoch, base_sequence, record_count: 2 }
    }

    fn answer(offset: u64) -> ProduceAnswer {
        let books = Books { records_in: 2, kept: 1, stored: 1, rejected: 1, ..Books::default() };
        let rejects = vec![RecordError { index: 1, code: 7, text: "no good".to_owned() }];
        ProduceAnswer { base_offset: Offset(offset), next_offset: Offset(offset + 2), books, rejects }
    }

    /// A window through which `batches` went, and the rows that its commits left.
    fn used(batches: u32, epoch: u16) -> (Window, BTreeMap<Vec<u8>, Vec<u8>>) {
        let (mut window, mut rows) = (Window::default(), BTreeMap::new());
        for number in 0..batches {
            store(&mut window, &mut rows, stamp(epoch, number * 2));
        }
        (window, rows)
    }

    fn store(window: &mut Window, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, stamp: Stamp) {
        let number = window.push(&stamp, BatchId(0));
        let answer = answer(stamp.base_sequence.0.into());
        let row = ProducerRow::new(number, &stamp, &answer);
        rows.insert(ProducerRow::key(PARTITION, PRODUCER, number).to_vec(), row.encode());
        window.make_durable(number, Arc::new(answer));
    }

    fn restored(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Window {
        let read = |(key, value): (&Vec<u8>, &Vec<u8>)| ProducerRow::read(key, value).unwrap();
        let rows = rows.iter().map(read).map(|(producer, row)| {
            assert_eq!(producer, PRODUCER);
            row
        });
        Window::restore(rows.collect())
    }

    #[test]
    fn a_restored_window_answers_as_the_one_before() {
        for batches in [0, 1, 127, 128, 129, 300] {
            let (window, rows) = used(batches, 3);
            let restored = restored(&rows);
            for sequence in 0..batches * 2 + 4 {
                let (before, after) = (window.check(&stamp(3, sequence)), restored.check(&stamp(3, sequence)));
                assert_eq!(format!("{before:?}"), format!("{after:?}"), "{batches} batches, sequence {sequence}");
            }
            assert_eq!(window.durable_place(), restored.durable_place());
        }
    }

    #[test]
    fn the_last_batches_are_known_and_no_others() {
        let (window, rows) = used(300, 0);
        assert_eq!(rows.len(), IN_FLIGHT_BATCHES_MAX);
        let first_known = (300 - IN_FLIGHT_BATCHES_MAX as u32) * 2;
        assert!(
            matches!(window.check(&stamp(0, first_known)), Ok(Check::Stored(found)) if *found == answer(first_known.into()))
        );
        assert!(matches!(window.check(&stamp(0, first_known - 2)), Err(ProduceError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn a_new_epoch_forgets_the_old_one_when_it_is_durable() {
        let (mut window, mut rows) = used(5, 0);
        let number = window.push(&stamp(1, 0), BatchId(9));
        window.forget(&BTreeSet::from([BatchId(9)]));
        assert!(matches!(window.check(&stamp(0, 8)), Ok(Check::Stored(_))), "the new epoch's commit failed");
        assert_eq!(window.push(&stamp(1, 0), BatchId(9)), number);
        window.forget(&BTreeSet::from([BatchId(9)]));
        store(&mut window, &mut rows, stamp(1, 0));
        for window in [&window, &restored(&rows)] {
            assert!(matches!(window.check(&stamp(0, 8)), Err(ProduceError::ProducerFenced { .. })));
            assert!(matches!(window.check(&stamp(1, 2)), Ok(Check::New)));
        }
        let keys: Vec<_> = window.row_keys(PARTITION, PRODUCER).map(|key| key.to_vec()).collect();
        assert!(rows.keys().all(|key| keys.contains(key)), "rows of the old epoch are not left behind");
    }

    #[test]
    fn what_is_in_flight_pushes_nothing_out_before_it_is_durable() {
        let (mut window, _) = used(128, 0);
        for number in 128..256 {
            window.push(&stamp(0, number * 2), BatchId(number.into()));
        }
        window.forget(&(128..256).map(BatchId).collect());
        assert!(matches!(window.check(&stamp(0, 0)), Ok(Check::Stored(_))));
        assert!(matches!(window.check(&stamp(0, 256)), Ok(Check::New)));
    }

    #[test]
    fn sequences_wrap_as_in_kafka() {
        let mut window = Window::default();
        let last = Stamp { record_count: i32::MAX as u32, ..stamp(0, 0) };
        window.push(&last, BatchId(1));
        let wrapping = Stamp { record_count: 2, ..stamp(0, i32::MAX as u32) };
        assert!(matches!(window.check(&wrapping), Ok(Check::New)));
        window.push(&wrapping, BatchId(2));
        assert!(matches!(window.check(&stamp(0, 1)), Ok(Check::New)));
    }

    #[test]
    fn a_row_costs_little_beside_its_batch() {
        let plain = ProduceAnswer {
            books: Books { kept: 1_000, stored: 1_000, ..Books::default() },
            rejects: Vec::new(),
            ..answer(1 << 40)
        };
        let row = ProducerRow::new(1 << 30, &Stamp { record_count: 1_000, ..stamp(3, 1 << 30) }, &plain);
        assert!(PRODUCER_KEY_BYTES + row.encode().len() <= 64);
    }
}

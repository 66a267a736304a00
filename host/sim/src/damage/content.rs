//! Everything that a reader can have of a store, place by place, so that what a damaged one gives can be compared with it.
//!
//! Start at [`Content`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{Offset, PartitionId, RecordBatch, Retention};
use storage::{ReadError, ReadOutcome, StateTable, Store};

use crate::invariants::Violation;

/// A read that takes all there is.
const ALL_BYTES: usize = 1 << 20;

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    log_start: u64,
    high_watermark: u64,
    retention: Retention,
}

/// What was read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log {
    place: Place,
    /// Every batch by its first offset, with the one behind its last.
    batches: BTreeMap<u64, (u64, Bytes)>,
    /// The first record of a time or later.
    times: Vec<(i64, Option<Offset>)>,
}

/// What a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    logs: BTreeMap<PartitionId, Log>,
    state: BTreeMap<(StateTable, Bytes), Bytes>,
    next_id: PartitionId,
}

/// How a damaged store differs from what it was, where that is no violation by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Offsets at which a read was refused, by partition.
    pub refused: BTreeSet<(PartitionId, u64)>,
    /// What such refusals say.
    pub says: Option<String>,
    /// Rows of what plugins keep that are gone.
    pub rows_lost: usize,
    /// Scans of the state that were refused.
    pub scans_refused: usize,
    /// Partitions whose log ends before it did.
    pub receded: usize,
}

impl Differences {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Differences::default()
    }
}

impl Content {
    /// Reads all of a store that nothing was done to.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn of(store: &Store) -> Result<Content, Violation> {
        let mut logs = BTreeMap::new();
        for (id, place) in store.partitions() {
            let place = place_of(place);
            let mut batches = BTreeMap::new();
            let mut next = place.log_start;
            while next < place.high_watermark {
                let outcome = store.read(id, Offset(next), 1).map_err(unread)?;
                batches.extend(batches_of(&outcome)?);
                next = outcome.next_offset.0;
            }
            let time = |timestamp_ms| Ok((timestamp_ms, store.offset_for_timestamp(id, timestamp_ms).map_err(unread)?));
            let times = [0, 3, 6, 9, 12, 100].into_iter().map(time).collect::<Result<_, Violation>>()?;
            logs.insert(id, Log { place, batches, times });
        }
        let mut state = BTreeMap::new();
        for table in StateTable::ALL {
            let rows = store.state_scan(table, b"").map_err(unread)?;
            state.extend(rows.into_iter().map(|(key, value)| ((table, key), value)));
        }
        Ok(Content { logs, state, next_id: store.partition_id_next() })
    }

    /// Every batch: partition, first offset, the one behind it, bytes.
    pub fn batches(&self) -> impl Iterator<Item = (PartitionId, u64, u64, &Bytes)> {
        self.logs
            .iter()
            .flat_map(|(id, log)| log.batches.iter().map(move |(start, (end, bytes))| (*id, *start, *end, bytes)))
    }

    /// Compares what a store gives that had this once: each place is as it was, or refused.
    ///
    /// # Errors
    /// Other bytes, a hole, a place that is neither.
    pub fn compare(&self, store: &Store, may_recede: bool) -> Result<Differences, Violation> {
        let mut differences = Differences::default();
        let places: BTreeMap<_, _> = store.partitions().into_iter().collect();
        if !may_recede && !places.keys().eq(self.logs.keys()) {
            return Err(Violation::new(
                "prefix",
                format!("its partitions are {:?}", places.keys().collect::<Vec<_>>()),
            ));
        }
        for (id, log) in &self.logs {
            let Some(place) = places.get(id) else {
                differences.receded += 1;
                continue;
            };
            log.compare(*id, place_of(*place), store, may_recede, &mut differences)?;
        }
        if store.partition_id_next() < self.next_id && !may_recede {
            return Err(Violation::new("prefix", format!("the next partition id is {}", store.partition_id_next())));
        }
        self.compare_state(store, may_recede, &mut differences)?;
        Ok(differences)
    }

    fn compare_state(&self, store: &Store, may_recede: bool, differences: &mut Differences) -> Result<(), Violation> {
        for table in StateTable::ALL {
            let Ok(rows) = store.state_scan(table, b"") else {
                differences.scans_refused += 1;
                continue;
            };
            let rows: BTreeMap<_, _> = rows.into_iter().collect();
            let was = self.state.iter().filter(|((of, _), _)| *of == table);
            let mut kept = 0;
            for ((_, key), value) in was {
                match rows.get(key) {
                    Some(found) if found == value => kept += 1,
                    None if table == StateTable::PluginState => differences.rows_lost += 1,
                    _ if may_recede => {}
                    found => {
                        let what = format!("{table:?} {key:?} is {found:?}, and was {value:?}");
                        return Err(Violation::new("state", what));
                    }
                }
            }
            if kept != rows.len() && !may_recede {
                return Err(Violation::new(
                    "state",
                    format!("{table:?} has {} rows, {kept} of them as they were", rows.len()),
                ));
            }
        }
        Ok(())
    }
}

impl Log {
    fn compare(
        &self,
        id: PartitionId,
        place: Place,
        store: &Store,
        may_recede: bool,
        differences: &mut Differences,
    ) -> Result<(), Violation> {
        let receded = may_recede && place.high_watermark < self.place.high_watermark;
        if place != self.place && !may_recede {
            return Err(Violation::new(
                "prefix",
                format!("partition {id} is at {place:?}, and was at {:?}", self.place),
            ));
        }
        differences.receded += usize::from(receded);
        for bytes_max in [1, ALL_BYTES] {
            self.walk(id, place, store, bytes_max, differences)?;
        }
        for (from, was) in self.times.iter().filter(|_| !may_recede) {
            match store.offset_for_timestamp(id, *from) {
                Ok(found) if found == *was => {}
                Ok(found) => {
                    let what = format!("partition {id} has time {from} at {found:?}, and had it at {was:?}");
                    return Err(Violation::new("times", what));
                }
                Err(error) => named(&error)?,
            }
        }
        Ok(())
    }

    /// Reads on as a consumer does, and steps over what is refused: every batch is as it was, and none is left out.
    fn walk(
        &self,
        id: PartitionId,
        place: Place,
        store: &Store,
        bytes_max: usize,
        differences: &mut Differences,
    ) -> Result<(), Violation> {
        let mut next = place.log_start;
        while next < place.high_watermark {
            let outcome = match store.read(id, Offset(next), bytes_max) {
                Ok(outcome) => outcome,
                Err(error) => {
                    differences.refuse(id, next, &error)?;
                    next = self.bound_behind(next);
                    continue;
                }
            };
            let end = outcome.next_offset.0;
            let found = batches_of(&outcome)?;
            // The first batch of a log may begin before it.
            let was = self.batches.iter().filter(|(start, (behind, _))| *behind > next && **start < end);
            let was: BTreeMap<u64, (u64, Bytes)> = was.map(|(start, batch)| (*start, batch.clone())).collect();
            if end <= next || found != was {
                let (found, was) = (found.keys().collect::<Vec<_>>(), was.keys().collect::<Vec<_>>());
                let what = format!(
                    "partition {id}, {next}..{end}: batches begin at {found:?}, and began at {was:?}, or differ"
                );
                return Err(Violation::new("silent", what));
            }
            next = end;
        }
        Ok(())
    }

    /// The next offset at which a batch begins or ends.
    fn bound_behind(&self, from: u64) -> u64 {
        let bounds = self.batches.iter().flat_map(|(start, (end, _))| [*start, *end]);
        bounds.filter(|bound| *bound > from).min().unwrap_or(self.place.high_watermark)
    }
}

impl Differences {
    fn refuse(&mut self, id: PartitionId, from: u64, error: &ReadError) -> Result<(), Violation> {
        named(error)?;
        self.refused.insert((id, from));
        self.says.get_or_insert_with(|| error.to_string());
        Ok(())
    }
}

/// The batches that a read gave, by first offset, with the one behind each.
fn batches_of(outcome: &ReadOutcome) -> Result<BTreeMap<u64, (u64, Bytes)>, Violation> {
    let mut batches = BTreeMap::new();
    for mut run in outcome.batches.clone() {
        while !run.is_empty() {
            let batch = RecordBatch::split_first(&mut run).ok().flatten();
            let batch = batch.ok_or_else(|| Violation::new("silent", "a read gives half a batch"))?;
            batches.insert(batch.header().base_offset.0, (batch.next_offset().0, batch.into_bytes()));
        }
    }
    Ok(batches)
}

/// A refusal says which file it is about.
fn named(error: &ReadError) -> Result<(), Violation> {
    match error {
        ReadError::Damaged { .. } | ReadError::Io { .. } => Ok(()),
        error => Err(Violation::new("named", format!("a read of damaged data says: {error}"))),
    }
}

fn unread(error: ReadError) -> Violation {
    Violation::new("damage", format!("before any damage: {error}"))
}

fn place_of(place: storage::PartitionPlace) -> Place {
    Place { log_start: place.log_start_offset.0, high_watermark: place.high_watermark.0, retention: place.retention }
}

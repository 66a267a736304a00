//! What the new store is to have: the partitions with their places, and the state.
//!
//! Made from headers, commit records and `state.redb`, before anything is written. Records are not read here.
//!
//! Start at [`Plan::make`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use protocol::{PartitionId, Retention};

use super::{StateSource, source::Source};
use crate::{
    ProbedFile, StateChange, StateTable, StoreId, StoreOptions,
    fault::Fault,
    inspect::{Head, PartitionRows, end_sequence, what},
    probe,
    record::{ChangeRow, CommitRecord, PartitionRow, StateRow},
    state_file,
};

/// Rows of the state by table and key; `None`: removed.
type Rows = BTreeMap<(StateTable, Bytes), Option<Bytes>>;

/// See the module.
pub(super) struct Plan {
    pub(super) partitions: BTreeMap<PartitionId, PartitionRow>,
    pub(super) partition_id_next: PartitionId,
    /// All of the state but what plugins keep, which may be large.
    pub(super) small_state: Rows,
    /// What plugins keep, of the commits that `state.redb` does not have yet.
    pub(super) plugin_state: Rows,
    pub(super) state_from: StateSource,
    /// Commits of which the record cannot be read.
    pub(super) commits_lost: u64,
}

/// The plan as far as segments were read.
#[derive(Default)]
struct Reading {
    rows: PartitionRows,
    deleted: BTreeSet<PartitionId>,
    /// Below this, a partition that no header has is gone; `None`: no header was read.
    known_below: Option<PartitionId>,
    next_id: u32,
    small: Rows,
    /// What was set by commits that `state.redb` does not have yet.
    behind: Rows,
    commits_lost: u64,
}

impl Plan {
    pub(super) fn make(
        options: &StoreOptions,
        state: &Path,
        heads: &[Head],
        store: StoreId,
        partitions_of: fn(&[u8], &[u8]) -> Vec<PartitionId>,
    ) -> Plan {
        let file = read_state(options, state, store);
        let applied = file.as_ref().map(|(applied, _)| *applied);
        let mut reading = Reading::default();
        for (at, head) in heads.iter().enumerate() {
            if let Some(mut source) = Source::open(options, head, store) {
                reading.segment(&mut source, end(heads, at), applied);
            }
        }
        let Reading { rows, next_id, small, behind, commits_lost, .. } = reading;
        let mut plan = Plan {
            partitions: rows.0,
            partition_id_next: PartitionId(next_id),
            small_state: small,
            plugin_state: Rows::default(),
            state_from: if heads.iter().any(|head| head.header.is_some()) {
                StateSource::Log
            } else {
                StateSource::Nothing
            },
            commits_lost,
        };
        if let Some((_, rows)) = file {
            plan.state_from = StateSource::File;
            plan.small_state = rows;
            let (plugin, small) = behind.into_iter().partition(|((table, _), _)| !table.is_small());
            plan.plugin_state = plugin;
            let small: Rows = small;
            plan.small_state.extend(small);
        }
        plan.adopt_of_catalog(partitions_of);
        plan
    }

    /// Adds what the catalog has and no header or commit that can be read: whoever reads the catalog relies on it.
    fn adopt_of_catalog(&mut self, partitions_of: fn(&[u8], &[u8]) -> Vec<PartitionId>) {
        let catalog = self.small_state.iter().filter(|((table, _), _)| *table == StateTable::Catalog);
        let wanted = catalog.filter_map(|((_, key), value)| Some(partitions_of(key, value.as_ref()?)));
        for id in wanted.flatten().collect::<Vec<_>>() {
            self.partitions.entry(id).or_insert_with(|| unknown(id, 0));
            self.partition_id_next = self.partition_id_next.max(PartitionId(id.0.saturating_add(1)));
        }
    }

    /// The rows of the catalog.
    pub(super) fn catalog(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.small_state.iter().filter(|((table, _), _)| *table == StateTable::Catalog);
        rows.filter_map(|((_, key), value)| Some((key.clone(), value.clone()?))).collect()
    }
}

/// A partition of which nothing is known but that it is there.
fn unknown(id: PartitionId, log_start: u64) -> PartitionRow {
    PartitionRow { id, retention: Retention::FOREVER, log_start, next_offset: log_start }
}

/// The small rows of `state.redb` and how far it is, if it is sound and this store's.
fn read_state(options: &StoreOptions, path: &Path, store: StoreId) -> Option<(u64, Rows)> {
    let file_system = &*options.file_system;
    let read = || {
        let applied = options.prober.probe(file_system, path, ProbedFile::State)?;
        let db = probe::open_overlay(file_system, path)?;
        let mut rows = Rows::default();
        for table in StateTable::ALL.into_iter().filter(|table| table.is_small()) {
            let found = state_file::rows_of(path, store, &db, table)?;
            rows.extend(found.into_iter().map(|(key, value)| ((table, key), Some(value))));
        }
        Ok((applied, rows))
    };
    read().map_err(|error| tracing::warn!(cause = what(error), "the state is taken from the log")).ok()
}

/// Visits what plugins keep, as `state.redb` has it. [`Plan::make`] found that file sound.
pub(super) fn visit_plugin_state<E: From<Fault>>(
    options: &StoreOptions,
    path: &Path,
    store: StoreId,
    visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    use redb::ReadableDatabase;
    let db = probe::open_overlay(&*options.file_system, path)?;
    let snapshot = db.begin_read().map_err(Fault::redb(path, "read"))?;
    state_file::visit_rows(path, store, &snapshot, StateTable::PluginState, visit)
}

impl Reading {
    fn segment(&mut self, source: &mut Source<'_>, end: End, applied: Option<u64>) {
        if let Some((header, snapshot)) = source.snapshot() {
            self.rows = PartitionRows::of_snapshot(&snapshot);
            self.known_below = Some(header.partition_id_next);
            self.next_id = self.next_id.max(header.partition_id_next.0);
            self.small = snapshot.into_iter().flat_map(|row| row.state).map(keyed).collect();
        }
        // What the index names may be of commits whose record is lost.
        for indexed in source.indexed() {
            self.reaches(indexed.partition, indexed.extent.cover_start, indexed.extent.cover_end);
        }
        for sequence in commits_of(source, end) {
            match source.commit(sequence) {
                Some((record, _)) => self.commit(sequence, record, applied),
                None => self.commits_lost += 1,
            }
        }
    }

    fn commit(&mut self, sequence: u64, record: CommitRecord, applied: Option<u64>) {
        self.rows.create(&record);
        self.next_id = record.created.iter().map(|row| row.id.0.saturating_add(1)).fold(self.next_id, u32::max);
        for row in &record.extents {
            let start = row.extent.cover_start;
            self.reaches(row.partition, start, start.saturating_add(row.extent.cover_count));
        }
        self.rows.change(&record);
        self.deleted.extend(record.changes.iter().filter_map(|change| match change {
            ChangeRow::Delete { id } => Some(*id),
            _ => None,
        }));
        for (key, value) in record.state.into_iter().map(keyed) {
            if applied.is_some_and(|applied| sequence > applied) {
                self.behind.insert(key.clone(), value.clone());
            }
            if key.0.is_small() {
                self.small.insert(key, value);
            }
        }
    }

    /// Takes note of how far a partition reaches; of one, too, that a commit made whose record is lost.
    fn reaches(&mut self, id: PartitionId, cover_start: u64, cover_end: u64) {
        let gone = self.deleted.contains(&id) || self.known_below.is_some_and(|known| id < known);
        if !gone {
            // Before the first header that can be read, nothing says where a partition begins.
            let log_start = if self.known_below.is_some() { 0 } else { cover_start };
            self.rows.0.entry(id).or_insert_with(|| unknown(id, log_start));
            self.next_id = self.next_id.max(id.0.saturating_add(1));
        }
        if let Some(row) = self.rows.0.get_mut(&id) {
            row.next_offset = row.next_offset.max(cover_end);
        }
    }
}

fn keyed(StateRow(StateChange { table, key, value }): StateRow) -> ((StateTable, Bytes), Option<Bytes>) {
    ((table, key), value)
}

/// Where a segment's commits end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    At(u64),
    /// Nothing says it, but it is not behind this.
    Before(u64),
}

/// Where a segment ends, as far as it or those after it can tell. Of the last one all commits count that are there: what
/// was not acknowledged may be stored or not.
pub(super) fn end(heads: &[Head], at: usize) -> End {
    match end_sequence(heads, at) {
        Some(until) => End::At(until),
        None => {
            let later = heads[at + 1..].iter().find_map(|head| head.header.as_ref());
            End::Before(later.map_or(u64::MAX, |header| header.first_sequence))
        }
    }
}

/// The commits that a segment has, or had: those of which there is anything, and those between them.
pub(super) fn commits_of(source: &mut Source<'_>, end: End) -> Vec<u64> {
    let listed = source.sequences();
    let last = match end {
        End::At(last) => last,
        End::Before(bound) => listed.range(..bound).next_back().copied().unwrap_or(0),
    };
    if source.head.is_rewritten() {
        return listed.range(..=last).copied().collect();
    }
    let first = source.head.header.as_ref().map(|header| header.first_sequence);
    let first = first.or_else(|| listed.first().copied()).unwrap_or(1);
    if (first..=last).any(|sequence| !listed.contains(&sequence)) {
        source.search();
    }
    (first..=last).collect()
}

//! Saves what is sound in a damaged data directory into a new one, and lists what is not.
//!
//! Owns the order of things: what the new store is to have ([`plan`]), then its records, segment by segment
//! ([`source`]), then the state, so that a directory that was not finished has no topics. Writes through
//! [`Store::commit`] alone, and never to the damaged directory.
//!
//! Invariants
//! - Partitions keep their ids, records their offsets, and batches every byte.
//! - What is lost is covered by a gap in the new store, so that readers come past it, and listed.
//!
//! Start at [`salvage`].

mod plan;
mod source;

use std::{collections::BTreeMap, ops::Range, path::Path};

use bytes::Bytes;
use protocol::{Offset, PartitionId};
use thiserror::Error;

use self::{
    plan::{End, Plan, commits_of, end, visit_plugin_state},
    source::{Source, SourceExtent, store_in},
};
use crate::{
    Append, CloseError, Commit, CommitError, OpenError, PartitionChange, StateChange, StateTable, Store, StoreId,
    StoreOptions,
    coverage::check_append,
    fault::{Fault, file_name},
    inspect::{self, Head},
    recovery::STATE_FILE,
};

/// What one commit of the new store gathers.
const COMMIT_BYTES: usize = 4 << 20;

/// Ranges that are listed one by one.
const LOST_MAX: usize = 10_000;

/// What a salvage is done with.
#[derive(Debug, Clone)]
pub struct SalvageOptions {
    /// How files are looked at, and the sizes of the new store.
    pub store: StoreOptions,
    /// The partitions that a row of the catalog needs, by key and value: those of a topic. The store knows no topics, and
    /// what the catalog relies on must be there.
    pub partitions_of: fn(&[u8], &[u8]) -> Vec<PartitionId>,
}

/// Offsets of which the records are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Whose.
    pub partition: PartitionId,
    /// Which. Some of them may have had no record.
    pub offsets: Range<Offset>,
    /// How many bytes of record batches there were, if that is known.
    pub bytes: Option<u64>,
    /// Where they were.
    pub file: String,
    /// Why they cannot be had.
    pub cause: &'static str,
}

/// Where the state of the new store is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateSource {
    /// `state.redb`, and the commits behind it.
    File,
    /// The last header that can be read, and the commits since; what plugins keep, from the commits that are left.
    Log,
    /// There is none.
    Nothing,
}

/// How far a salvage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SalvageProgress {
    /// Bytes of segments done.
    pub bytes_done: u64,
    /// Bytes of all segments.
    pub bytes_total: u64,
    /// Ranges lost so far.
    pub lost: u64,
}

/// What was saved, and what was not.
#[derive(Debug, Clone)]
pub struct SalvageReport {
    /// Partitions of the new store.
    pub partitions: usize,
    /// Bytes of record batches in it.
    pub bytes_saved: u64,
    /// What is lost, by segments; the first ten thousand ranges.
    pub lost: Vec<LostRange>,
    /// Lost ranges beyond those.
    pub lost_beyond: u64,
    /// Commits whose record cannot be read. The records they brought are listed as lost or were found by the index; what
    /// else they changed is as it was before them, unless a later header or `state.redb` has it.
    pub commits_lost: u64,
    /// Where the state is from.
    pub state: StateSource,
    /// The rows of the catalog in the new store.
    pub catalog: Vec<(Bytes, Bytes)>,
}

/// Why a salvage ended early. The new directory is of no use then, and can be removed.
#[derive(Debug, Error)]
pub enum SalvageError {
    /// The damaged directory cannot be looked at at all, or the new one not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is something in the new directory.
    #[error("`{dir}` is not empty; choose a directory that is, or that does not exist")]
    NotEmpty {
        /// The directory.
        dir: String,
    },
    /// The new store did not take a commit.
    #[error("failed to write the new store")]
    Write(#[from] CommitError),
    /// The new store could not be closed.
    #[error("failed to finish the new store")]
    Close(#[from] CloseError),
}

impl From<Fault> for SalvageError {
    fn from(fault: Fault) -> Self {
        SalvageError::Open(fault.into())
    }
}

/// Saves what is sound in the store in `dir` into a new one in `to`.
///
/// # Errors
/// See [`SalvageError`]. What is lost is no error: the report lists it.
pub fn salvage(
    dir: &Path,
    to: &Path,
    options: &SalvageOptions,
    progress: &mut dyn FnMut(SalvageProgress),
) -> Result<SalvageReport, SalvageError> {
    let store_options = &options.store;
    let _lock = inspect::lock(store_options, dir)?;
    let heads = inspect::heads(store_options, dir)?;
    refuse_filled(store_options, to)?;
    let store_id = store_id(store_options, &heads);
    let state = dir.join(STATE_FILE);
    let plan = Plan::make(store_options, &state, &heads, store_id, options.partitions_of);
    // Nobody reads the new store, and it is written as fast as it can be.
    let new_options = StoreOptions { tail_bytes_max: 0, commit_interval: Default::default(), ..store_options.clone() };
    let mut new = NewStore {
        store: Store::open(to, new_options)?,
        plan: &plan,
        next: plan.partitions.keys().map(|id| (*id, 0)).collect(),
        commit: Commit::default(),
        bytes: 0,
        report: SalvageReport {
            partitions: plan.partitions.len(),
            bytes_saved: 0,
            lost: Vec::new(),
            lost_beyond: 0,
            commits_lost: plan.commits_lost,
            state: plan.state_from,
            catalog: plan.catalog(),
        },
    };
    new.create_partitions()?;
    let bytes_total = heads.iter().map(|head| head.bytes).sum();
    let mut bytes_done = 0;
    for (at, head) in heads.iter().enumerate() {
        if let Some(mut source) = Source::open(store_options, head, store_id) {
            new.copy_segment(&mut source, end(&heads, at))?;
        }
        bytes_done += head.bytes;
        let lost = new.report.lost.len() as u64 + new.report.lost_beyond;
        progress(SalvageProgress { bytes_done, bytes_total, lost });
    }
    new.end_partitions(&dir.join("segments"))?;
    new.copy_state(store_options, &state, store_id)?;
    new.store.close()?;
    Ok(new.report)
}

fn refuse_filled(options: &StoreOptions, to: &Path) -> Result<(), SalvageError> {
    for dir in [to, &to.join("segments")] {
        let files = options.file_system.list(dir).map_err(|error| Fault::io(dir, "list", error))?;
        if !files.is_empty() {
            return Err(SalvageError::NotEmpty { dir: file_name(to) });
        }
    }
    Ok(())
}

/// Whose store it is: what a header says, or else most parts.
fn store_id(options: &StoreOptions, heads: &[Head]) -> StoreId {
    let said = heads.iter().rev().find_map(|head| head.header.as_ref()).map(|header| StoreId(header.store));
    said.or_else(|| heads.iter().rev().find_map(|head| store_in(options, head))).unwrap_or(StoreId([0; 16]))
}

/// The store that is made.
struct NewStore<'p> {
    store: Store,
    plan: &'p Plan,
    /// Where each partition ends so far.
    next: BTreeMap<PartitionId, u64>,
    /// What is not committed yet.
    commit: Commit,
    bytes: usize,
    report: SalvageReport,
}

impl NewStore<'_> {
    fn create_partitions(&mut self) -> Result<(), SalvageError> {
        let create = |(id, row): (&PartitionId, &crate::record::PartitionRow)| PartitionChange::Create {
            id: *id,
            retention: row.retention,
        };
        let mut partitions: Vec<PartitionChange> = self.plan.partitions.iter().map(create).collect();
        // Ids are never used again, also those of partitions that are gone.
        let last_used = self.plan.partition_id_next.0.checked_sub(1).map(PartitionId);
        if let Some(id) = last_used.filter(|id| self.plan.partitions.last_key_value().is_none_or(|(last, _)| last < id))
        {
            let retention = protocol::Retention::FOREVER;
            partitions.extend([PartitionChange::Create { id, retention }, PartitionChange::Delete { id }]);
        }
        self.store.commit(Commit { partitions, ..Commit::default() })?;
        Ok(())
    }

    /// Copies the records of a segment, commit by commit.
    fn copy_segment(&mut self, source: &mut Source<'_>, end: End) -> Result<(), SalvageError> {
        let sequences = commits_of(source, end);
        let indexed = source.indexed();
        for sequence in sequences {
            let extents = match source.commit(sequence) {
                Some((record, extents)) => {
                    self.plugin_state(record.state.into_iter().map(|row| row.0))?;
                    extents
                }
                // The index may know what the record said.
                None => indexed.iter().filter(|indexed| indexed.extent.sequence == sequence).cloned().collect(),
            };
            for extent in &extents {
                self.copy_extent(source, extent)?;
            }
        }
        Ok(())
    }

    fn copy_extent(&mut self, source: &mut Source<'_>, found: &SourceExtent) -> Result<(), SalvageError> {
        let (id, extent) = (found.partition, &found.extent);
        let (Some(row), Some(next)) = (self.plan.partitions.get(&id), self.next.get(&id).copied()) else {
            return Ok(());
        };
        if extent.cover_end <= row.log_start || extent.cover_start < next || extent.cover_end <= extent.cover_start {
            return Ok(());
        }
        self.leave_out(id, extent.cover_start, &source.head.path, "no commit that can be read names them")?;
        let gap = Append {
            partition: id,
            cover_start: Offset(extent.cover_start),
            cover_end: Offset(extent.cover_end),
            batches: None,
            max_timestamp_ms: extent.max_timestamp_ms,
        };
        if extent.bytes() == 0 {
            return self.append(gap);
        }
        let append = source.read(found).map(|run| Append { batches: Some(run), ..gap.clone() });
        match append.filter(|append| check_append(append).is_ok()) {
            Some(append) => self.append(append),
            None => {
                self.lost(LostRange {
                    partition: id,
                    offsets: Offset(extent.cover_start.max(row.log_start))..Offset(extent.cover_end),
                    bytes: Some(extent.bytes()),
                    file: file_name(&source.head.path),
                    cause: "their bytes have a wrong checksum",
                });
                self.append(gap)
            }
        }
    }

    /// Brings a partition to `end` without records: what lies before its log start was deleted, the rest is lost.
    fn leave_out(&mut self, id: PartitionId, end: u64, file: &Path, cause: &'static str) -> Result<(), SalvageError> {
        let log_start = self.plan.partitions.get(&id).map_or(0, |row| row.log_start);
        let next = self.next.get(&id).copied().unwrap_or(0);
        if end <= next {
            return Ok(());
        }
        if end > log_start {
            let offsets = Offset(next.max(log_start))..Offset(end);
            self.lost(LostRange { partition: id, offsets, bytes: None, file: file_name(file), cause });
        }
        let (cover_start, cover_end) = (Offset(next), Offset(end));
        self.append(Append { partition: id, cover_start, cover_end, batches: None, max_timestamp_ms: i64::MIN })
    }

    /// What continues the range before it is one with it.
    fn lost(&mut self, lost: LostRange) {
        let report = &mut self.report;
        let before = report.lost.iter_mut().rev().find(|before| before.partition == lost.partition);
        let continued = before.filter(|before| {
            let same = (&before.file, before.cause) == (&lost.file, lost.cause);
            same && before.offsets.end == lost.offsets.start
        });
        if let Some(before) = continued {
            before.offsets.end = lost.offsets.end;
            before.bytes = before.bytes.zip(lost.bytes).map(|(before, more)| before + more);
        } else if report.lost.len() < LOST_MAX {
            report.lost.push(lost);
        } else {
            report.lost_beyond += 1;
        }
    }

    fn append(&mut self, append: Append) -> Result<(), SalvageError> {
        self.next.insert(append.partition, append.cover_end.0);
        let bytes = append.batches.as_ref().map_or(0, Bytes::len);
        self.report.bytes_saved += bytes as u64;
        self.commit.appends.push(append);
        // A gap costs a row in the commit's record.
        self.grow(bytes + 64)
    }

    fn set(&mut self, change: StateChange) -> Result<(), SalvageError> {
        let bytes = change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        self.commit.state.push(change);
        self.grow(bytes)
    }

    fn grow(&mut self, bytes: usize) -> Result<(), SalvageError> {
        self.bytes += bytes;
        if self.bytes < COMMIT_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), SalvageError> {
        self.bytes = 0;
        self.store.commit(std::mem::take(&mut self.commit))?;
        Ok(())
    }

    /// Brings every partition to where it ended, and its log start to where it was.
    fn end_partitions(&mut self, segments: &Path) -> Result<(), SalvageError> {
        for (id, row) in &self.plan.partitions {
            self.leave_out(
                *id,
                row.next_offset.max(row.log_start),
                segments,
                "no segment that can be read holds them",
            )?;
        }
        self.flush()?;
        let moved = self.plan.partitions.iter().filter(|(_, row)| row.log_start > 0);
        let moved = moved.map(|(id, row)| PartitionChange::SetLogStart { id: *id, offset: Offset(row.log_start) });
        self.store.commit(Commit { partitions: moved.collect(), ..Commit::default() })?;
        Ok(())
    }

    /// What plugins keep, by the commits that are left, where `state.redb` cannot tell.
    fn plugin_state(&mut self, changes: impl Iterator<Item = StateChange>) -> Result<(), SalvageError> {
        if self.plan.state_from == StateSource::File {
            return Ok(());
        }
        let mut changes = changes.filter(|change| !change.table.is_small());
        changes.try_for_each(|change| self.set(change))
    }

    fn copy_state(&mut self, options: &StoreOptions, path: &Path, store: StoreId) -> Result<(), SalvageError> {
        let plan = self.plan;
        if plan.state_from == StateSource::File {
            visit_plugin_state::<SalvageError>(options, path, store, |key, value| {
                let (key, value) = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
                self.set(StateChange { table: StateTable::PluginState, key, value })
            })?;
        }
        for ((table, key), value) in plan.plugin_state.iter().chain(&plan.small_state) {
            self.set(StateChange { table: *table, key: key.clone(), value: value.clone() })?;
        }
        self.flush()
    }
}

//! Writes some sealed segments anew as one: what is still alive in them, partition by partition.
//!
//! Owns the way of a rewritten segment from its first byte to taking the others' place. Never decides what is rewritten,
//! and never looks into a record but to ask [`Compaction`] whether it stays.
//!
//! Invariants
//! - Offsets stay, and coverage is that of the segments replaced: what went is a gap.
//! - Until the new segment has its name, durably, nothing of the old ones is touched; from then on it stands for all of
//!   them, and what is left of them is removed, now or at the next start.
//!
//! ```text
//! a.redb b.redb c.redb --read--> a.redb.new --synced--> a.index removed, a.redb replaced, a.index put --> b, c unlinked
//! ```
//!
//! Start at [`rewrite`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{Offset, PartitionId};

use crate::{
    Append,
    compact::{CompactRule, CompactedRun, KeyMap, compact_run},
    fault::Fault,
    group::{PackedExtent, Packer, pack_appends},
    index::{Extent, MemoryIndex},
    layout::{self, Cut},
    partitions::SegmentSpan,
    record::{CommitRecord, ExtentRow, PartitionExtent, SegmentHeader},
    recovery,
    segment::{NEW_SUFFIX, Segment, Writer, remove_if_there},
    store::Shared,
};

/// Read and packed in one step; what a stop is late by.
const STEP_BYTES: usize = 1 << 20;

/// Synced at a time, so that the committer's own syncs never wait for much.
const SYNC_BYTES: usize = 4 << 20;

/// Told of every step's bytes, read and written; waits as long as is good for the disk. `false`: stop.
pub(crate) type Pace<'p> = dyn FnMut(usize) -> bool + 'p;

/// Takes some appends, and the bytes read for them; `false`: stop.
type Visit<'v> = dyn FnMut(&[Append], usize) -> Result<bool, Fault> + 'v;

/// Which records of which partitions go.
pub(crate) struct Compaction<'m> {
    pub(crate) map: &'m KeyMap,
    pub(crate) regions: BTreeMap<PartitionId, Region>,
}

/// How far a partition was compacted, and is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    /// Up to here earlier compactions left one record of a key.
    pub(crate) clean_until: u64,
    /// Up to here the map knows the keys.
    pub(crate) noted_until: u64,
    pub(crate) rule: CompactRule,
}

impl Compaction<'_> {
    /// A run of a partition's batches without what goes; `None` when nothing of the partition does.
    pub(crate) fn compact(&self, partition: PartitionId, run: &Bytes) -> Result<Option<CompactedRun>, &'static str> {
        let region = self.regions.get(&partition);
        region.map(|region| compact_run(run, partition, self.map, region.clean_until, region.rule)).transpose()
    }

    /// Whether after it a partition is compacted as far as this span.
    fn completes(&self, partition: PartitionId, span: &SegmentSpan) -> bool {
        self.regions.get(&partition).is_some_and(|region| span.span.cover_end <= region.noted_until)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
    pub(crate) records_removed: u64,
}

/// A partition's part of the segments.
struct Source {
    partition: PartitionId,
    log_start: u64,
    spans: Vec<SegmentSpan>,
}

/// Rewrites adjacent sealed segments, whose state is applied, as one. `None` when it was stopped; then nothing changed.
pub(crate) fn rewrite(
    shared: &Shared,
    run: &[Arc<Segment>],
    compaction: Option<&Compaction<'_>>,
    pace: &mut Pace<'_>,
) -> Result<Option<Rewritten>, Fault> {
    let mut stuck = BTreeSet::new();
    loop {
        let known = stuck.len();
        let rewritten = try_rewrite(shared, run, compaction, &mut stuck, pace)?;
        // The header of the first try said that a partition is compacted, and then it could not be.
        if stuck.len() == known {
            return Ok(rewritten);
        }
    }
}

/// [`rewrite`], with some partitions known not to become compacted by it. Where it finds others, it adds them, and nothing
/// else was done.
fn try_rewrite(
    shared: &Shared,
    run: &[Arc<Segment>],
    compaction: Option<&Compaction<'_>>,
    stuck: &mut BTreeSet<PartitionId>,
    pace: &mut Pace<'_>,
) -> Result<Option<Rewritten>, Fault> {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let sources = sources(shared, run);
    let mut compacted = compacted_after(&sources, compaction);
    compacted.retain(|partition| !stuck.contains(partition));
    let header = SegmentHeader {
        epoch: shared.next_epoch(),
        created_at_ms: shared.clock.now_ms(),
        snapshot_rows: 0,
        replaces_until: Some(recovery::end_id(&last.header)),
        compacted,
        ..first.header.clone()
    };
    let new_path = PathBuf::from(format!("{}{NEW_SUFFIX}", first.path.display()));
    let writer = shared.segment_dir.begin_file(&new_path, &header, &[])?;
    let known = stuck.len();
    let last_sequence = last.last_sequence();
    let mut work = Work { shared, header: &header, last_sequence, compaction, removed: 0, stuck };
    let written = work.write(&writer, &sources, pace);
    let records_removed = work.removed;
    match written {
        Ok(Some(index)) if stuck.len() == known => {
            let bytes_before = run.iter().map(|segment| segment.disk_bytes()).sum();
            let new = take_place(shared, run, header, writer, index, &new_path)?;
            Ok(Some(Rewritten { bytes_before, bytes_after: new.disk_bytes(), records_removed }))
        }
        not_done => {
            drop(writer);
            // What cannot be removed now is at the next start.
            let _ = remove_if_there(&*shared.segment_dir.file_system, &new_path);
            not_done.map(|_| None)
        }
    }
}

fn sources(shared: &Shared, run: &[Arc<Segment>]) -> Vec<Source> {
    let source = |partition: Arc<crate::partitions::Partition>| {
        partition.with(|state| {
            let of_run = |span: &&SegmentSpan| run.iter().any(|segment| Arc::ptr_eq(segment, &span.segment));
            let spans: Vec<SegmentSpan> = state.spans.iter().filter(of_run).cloned().collect();
            (!spans.is_empty()).then_some(Source { partition: partition.id, log_start: state.log_start, spans })
        })
    };
    shared.partitions.all().into_iter().filter_map(source).collect()
}

/// The partitions that are compacted in the new segment.
fn compacted_after(sources: &[Source], compaction: Option<&Compaction<'_>>) -> Vec<PartitionId> {
    let is_compacted = |source: &&Source| {
        source.spans.iter().all(|span| {
            span.segment.header.compacted.binary_search(&source.partition).is_ok()
                || compaction.is_some_and(|compaction| compaction.completes(source.partition, span))
        })
    };
    sources.iter().filter(is_compacted).map(|source| source.partition).collect()
}

struct Work<'w> {
    shared: &'w Shared,
    header: &'w SegmentHeader,
    last_sequence: u64,
    compaction: Option<&'w Compaction<'w>>,
    removed: u64,
    /// Partitions that keep what is superseded, because a batch would be too large without it.
    stuck: &'w mut BTreeSet<PartitionId>,
}

impl Work<'_> {
    /// Fills the new file, in one transaction; its index. `None` when it was stopped.
    fn write(
        &mut self,
        writer: &Writer,
        sources: &[Source],
        pace: &mut Pace<'_>,
    ) -> Result<Option<MemoryIndex>, Fault> {
        let segment_dir = &self.shared.segment_dir;
        let path = segment_dir.path(self.header.segment);
        let sequence = self.last_sequence;
        assert!(sequence > 0, "sequence 0 is the header's");
        let transaction = writer.db.begin_write().map_err(Fault::redb(&path, "rewrite"))?;
        let mut extents = Vec::new();
        {
            let mut log = transaction.open_table(layout::LOG_TABLE).map_err(Fault::redb(&path, "rewrite"))?;
            let place = |part| layout::PartPlace {
                store: segment_dir.store,
                segment: self.header.segment,
                epoch: self.header.epoch,
                sequence,
                part,
            };
            let put = |part: u16, bytes: &mut [u8], body_crc: u32| {
                place(part).write_header(bytes, body_crc);
                log.insert((sequence, part), &*bytes).map(|_| ()).map_err(Fault::redb(&path, "rewrite"))
            };
            let mut scratch = Vec::new();
            let mut packer = Packer::new(Cut::endless(), &mut scratch, put);
            let mut unsynced = 0;
            for source in sources {
                let mut visit = |appends: &[Append], bytes: usize| {
                    pack_appends(sequence, appends, &mut packer, &mut extents)?;
                    unsynced += bytes;
                    if unsynced >= SYNC_BYTES {
                        unsynced = 0;
                        writer.file.sync_data().map_err(|error| Fault::io(&path, "sync", error))?;
                    }
                    Ok(pace(bytes))
                };
                if !self.read(source, &mut visit)? {
                    return Ok(None);
                }
            }
            let parts = packer.parts();
            let inline_base = packer.finish(&self.record(parts, &extents))?;
            extents.iter_mut().for_each(|packed| packed.extent.move_inline(inline_base));
        }
        transaction.commit().map_err(Fault::redb(&path, "rewrite"))?;
        let mut index = MemoryIndex::default();
        for PackedExtent { partition, extent, .. } in extents {
            assert!(index.push(partition, extent), "a rewritten partition is as whole as it was");
        }
        Ok(Some(index))
    }

    fn record(&self, parts: u16, extents: &[PackedExtent]) -> CommitRecord {
        let rows = extents.iter().map(|packed| PartitionExtent {
            partition: packed.partition,
            extent: ExtentRow::of_record(&packed.extent),
        });
        CommitRecord {
            committed_at_ms: self.header.created_at_ms,
            parts,
            created: Vec::new(),
            extents: rows.collect(),
            changes: Vec::new(),
            state: Vec::new(),
        }
    }

    /// Reads what is alive of a partition, a step at a time; `false` as soon as `visit` says so.
    fn read(&mut self, source: &Source, visit: &mut Visit<'_>) -> Result<bool, Fault> {
        for SegmentSpan { segment, span } in &source.spans {
            let mut from = span.cover_start.max(source.log_start);
            while from < span.cover_end {
                let extents = segment.extents_from(source.partition, from, STEP_BYTES)?;
                let Some(end) = extents.last().map(|last| last.cover_end) else {
                    return Err(segment.damaged(format!("its index ends before offset {from}")));
                };
                let runs = segment.read_extents(&extents)?;
                let bytes = runs.iter().map(Bytes::len).sum();
                let appends = extents.iter().zip(runs).map(|(extent, run)| self.append(source.partition, extent, run));
                let appends: Result<Vec<Append>, _> = appends.collect();
                if !visit(&appends.map_err(|what| segment.damaged(what))?, bytes)? {
                    return Ok(false);
                }
                from = end;
            }
        }
        Ok(true)
    }

    fn append(&mut self, partition: PartitionId, extent: &Extent, run: Bytes) -> Result<Append, &'static str> {
        let compacted = self.compaction.map(|compaction| compaction.compact(partition, &run)).transpose()?.flatten();
        let (batches, max_timestamp_ms) = match compacted {
            None => (run, extent.max_timestamp_ms),
            Some(compacted) => {
                self.removed += compacted.records_removed;
                if compacted.stuck_at.is_some() && self.header.compacted.contains(&partition) {
                    self.stuck.insert(partition);
                }
                (compacted.bytes, compacted.max_timestamp_ms)
            }
        };
        Ok(Append {
            partition,
            cover_start: Offset(extent.cover_start),
            cover_end: Offset(extent.cover_end),
            batches: (!batches.is_empty()).then_some(batches),
            max_timestamp_ms,
        })
    }
}

/// Gives the new segment its name, readers, and the old ones' place.
fn take_place(
    shared: &Shared,
    run: &[Arc<Segment>],
    header: SegmentHeader,
    writer: Writer,
    index: MemoryIndex,
    new_path: &std::path::Path,
) -> Result<Arc<Segment>, Fault> {
    let dir = &shared.segment_dir;
    let last_sequence = run[run.len() - 1].last_sequence();
    let _alone = shared.files.write();
    for segment in run {
        segment.pin_files()?;
    }
    // The index first: one that does not belong to its file would be believed, none is made anew.
    remove_if_there(&*dir.file_system, &dir.index_path(header.segment))?;
    dir.file_system.sync_dir(&dir.dir).map_err(|error| Fault::io(&dir.dir, "sync", error))?;
    dir.name_file(new_path, &dir.path(header.segment))?;
    let new = Arc::new(Segment::rewritten(dir, header, writer, index, last_sequence));
    let sealed = new.seal();
    let spans: BTreeMap<_, _> = new.take_spans_found().into_iter().collect();
    shared.segments.write().insert(new.id, new.clone());
    for partition in shared.partitions.all() {
        let span = spans.get(&partition.id).map(|span| SegmentSpan { segment: new.clone(), span: *span });
        partition.with(|state| state.replace_spans(run, span));
    }
    for segment in &run[1..] {
        shared.segments.write().remove(&segment.id);
        segment.unlink()?;
    }
    sealed.map(|()| new)
}

//! Decides which segments are written anew: those in which more is dead than alive, many small ones, and those with
//! records that compaction by key has superseded.
//!
//! Owns the plan of a round; `retention` has unlinked before it what is dead as a whole, and `rewrite` does the work.
//! Runs on the caller's thread, a step at a time, at the pace the caller gives; the committer never waits for it.
//!
//! Invariant: a segment is rewritten only when the state in it is applied; rewriting loses its commits' records.
//!
//! Start at [`clean`].

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use protocol::PartitionId;
use thiserror::Error;

use crate::{
    compact::{CompactRule, KeyMap, NoteOutcome, note_keys},
    fault::Fault,
    partitions::{Partition, SegmentSpan},
    retention::{RetentionReport, remove_dead_segments},
    rewrite::{Compaction, Pace, Region, Rewritten, rewrite},
    segment::Segment,
    store::Shared,
};

/// So many small neighbours become one segment: every start begins a segment, and each costs a few files and handles. A
/// byte is rewritten once for each time its segment grows eightfold.
const SMALL_RUN: usize = 8;

/// Read at a time while keys are noted.
const STEP_BYTES: usize = 1 << 20;

/// What one round of cleaning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Segments that were replaced.
    pub segments_rewritten: usize,
    /// Bytes of their files, and of those written in their stead.
    pub bytes_before: u64,
    /// Bytes of the files written in their stead.
    pub bytes_after: u64,
    /// Records that compaction by key removed.
    pub records_compacted: u64,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
}

/// Why a round of cleaning ended early. What it did until then stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CleanError {
    /// `state.redb` could not be brought up to date, so no segment may be rewritten.
    #[error("failed to apply the state: {cause}")]
    State {
        /// What was said.
        cause: String,
    },
    /// A segment could not be written anew; it stays as it is.
    #[error("failed to rewrite a segment: {cause}")]
    Rewrite {
        /// What was said.
        cause: String,
    },
}

impl From<Fault> for CleanError {
    fn from(fault: Fault) -> Self {
        CleanError::Rewrite { cause: fault.text() }
    }
}

/// A sealed segment as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct View {
    /// What of it a reader can still ask for. Bytes of record batches.
    live_bytes: u64,
    /// What its files take of the disk.
    disk_bytes: u64,
}

/// Adjacent segments that are worth one new one; `segment_bytes` is how large that may be.
fn plan(segments: &[View], segment_bytes: u64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < segments.len() {
        let mut end = start;
        let mut live = 0;
        while end < segments.len() && is_sparse(&segments[end], segment_bytes) {
            live += segments[end].live_bytes;
            if live > segment_bytes / 2 && end > start {
                break;
            }
            end += 1;
        }
        let run = start..end;
        if is_worthwhile(&segments[run.clone()], segment_bytes) {
            runs.push(run);
        }
        start = end.max(start + 1);
    }
    runs
}

/// Whether a segment may be joined with its neighbours.
fn is_sparse(view: &View, segment_bytes: u64) -> bool {
    view.live_bytes < view.disk_bytes / 2 || view.disk_bytes < segment_bytes / 8
}

fn is_worthwhile(run: &[View], segment_bytes: u64) -> bool {
    let live: u64 = run.iter().map(|view| view.live_bytes).sum();
    let disk: u64 = run.iter().map(|view| view.disk_bytes).sum();
    // What a file takes beside its records; there is nothing to gain from a nearly empty one.
    let overhead = segment_bytes / 256;
    run.len() >= SMALL_RUN || live + overhead < disk / 2
}

/// One round over everything that is sealed.
pub(crate) fn clean(shared: &Shared, now_ms: i64, pace: &mut Pace<'_>) -> Result<CleanReport, CleanError> {
    let _one_at_a_time = shared.retention.lock();
    let mut report = CleanReport::default();
    seal_what_is_left(shared)?;
    remove_dead_segments(shared, &mut RetentionReport::default())
        .map_err(|error| CleanError::Rewrite { cause: error.to_string() })?;
    free_space(shared, &mut report, pace)?;
    if !report.stopped {
        compact(shared, now_ms, &mut report, pace)?;
    }
    Ok(report)
}

/// A segment whose index file could not be written when it was rewritten.
fn seal_what_is_left(shared: &Shared) -> Result<(), Fault> {
    let active = shared.active_id();
    let left: Vec<_> = shared.segments.read().range(..active).map(|(_, segment)| segment.clone()).collect();
    left.iter().try_for_each(|segment| segment.seal())
}

/// The sealed segments, oldest first, with the state in them applied.
fn sealed(shared: &Shared) -> Result<Vec<Arc<Segment>>, CleanError> {
    let active = shared.active_id();
    let segments: Vec<_> = shared.segments.read().range(..active).map(|(_, segment)| segment.clone()).collect();
    let sealed = segments.into_iter().take_while(|segment| segment.is_sealed());
    // One without commits is nobody's: it is removed, not rewritten.
    let sealed: Vec<_> = sealed.filter(|segment| !segment.is_empty()).collect();
    if sealed.last().is_some_and(|last| last.last_sequence() > shared.state.applied()) {
        shared.state.flush().map_err(|cause| CleanError::State { cause })?;
    }
    Ok(sealed)
}

fn free_space(shared: &Shared, report: &mut CleanReport, pace: &mut Pace<'_>) -> Result<(), CleanError> {
    let segments = sealed(shared)?;
    let live = live_bytes(shared);
    let view = |segment: &Arc<Segment>| match segment.is_spoilt() {
        // As if all of it were alive: it stays as it is, and is joined with nobody.
        true => View { live_bytes: u64::MAX / 4, disk_bytes: u64::MAX / 4 },
        false => View { live_bytes: live.get(&segment.id).copied().unwrap_or(0), disk_bytes: segment.disk_bytes() },
    };
    let views: Vec<View> = segments.iter().map(view).collect();
    for run in plan(&views, shared.options.segment_bytes_max) {
        let live_bytes = views[run.clone()].iter().map(|view| view.live_bytes).sum();
        if !has_room(shared, live_bytes) {
            continue;
        }
        if !replace(shared, &segments[run], None, report, pace)? {
            break;
        }
    }
    Ok(())
}

/// Bytes that readers can still ask for, by segment.
fn live_bytes(shared: &Shared) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for partition in shared.partitions.all() {
        partition.with(|state| {
            for SegmentSpan { segment, span } in &state.spans {
                let (start, end) = (span.cover_start.max(state.log_start), span.cover_end);
                let covered = u128::from(span.cover_end - span.cover_start).max(1);
                let bytes = u128::from(span.bytes) * u128::from(end.saturating_sub(start)) / covered;
                *live.entry(segment.id).or_default() += bytes as u64;
            }
        });
    }
    live
}

/// Whether the disk has room for a new segment beside the ones it replaces: within the budget, or in the place of the
/// reserve.
fn has_room(shared: &Shared, live_bytes: u64) -> bool {
    let options = &shared.options;
    let Ok(space) = options.file_system.space(&shared.segment_dir.dir) else { return true };
    let within_budget = shared.disk_bytes() + live_bytes <= options.budget.limit_bytes(space);
    let on_disk = live_bytes + live_bytes / 16 + options.preallocate_bytes <= space.available_bytes;
    on_disk && (within_budget || live_bytes <= options.reserve_bytes)
}

/// Rewrites a run; `false` when the round is over.
fn replace(
    shared: &Shared,
    run: &[Arc<Segment>],
    compaction: Option<&Compaction<'_>>,
    report: &mut CleanReport,
    pace: &mut Pace<'_>,
) -> Result<bool, CleanError> {
    let rewritten = match rewrite(shared, run, compaction, pace) {
        Err(Fault::Damaged { file, what }) => {
            leave(run, &file, &what);
            return Ok(true);
        }
        result => result?,
    };
    let Some(Rewritten { bytes_before, bytes_after, records_removed }) = rewritten else {
        report.stopped = true;
        return Ok(false);
    };
    report.segments_rewritten += run.len();
    report.bytes_before += bytes_before;
    report.bytes_after += bytes_after;
    report.records_compacted += records_removed;
    Ok(true)
}

/// Leaves the damaged segment of some as it is from now on: what can be read of it still is, from where it lies. The others
/// have their turn in the next round.
fn leave(segments: &[Arc<Segment>], file: &str, what: &str) {
    tracing::error!(file, what, "a damaged segment is not rewritten");
    let is_damaged = |segment: &&Arc<Segment>| segment.has_file(file);
    match segments.iter().find(is_damaged) {
        Some(damaged) => damaged.set_spoilt(),
        None => segments.iter().for_each(|segment| segment.set_spoilt()),
    }
}

/// A partition that has enough to compact.
struct Dirty {
    partition: Arc<Partition>,
    /// What is sealed of it, in order.
    spans: Vec<SegmentSpan>,
    clean_until: u64,
    rule: CompactRule,
}

fn compact(shared: &Shared, now_ms: i64, report: &mut CleanReport, pace: &mut Pace<'_>) -> Result<(), CleanError> {
    let segments = sealed(shared)?;
    let dirty: Vec<Dirty> = shared.partitions.all().into_iter().filter_map(|p| dirty(p, &segments, now_ms)).collect();
    if dirty.is_empty() {
        return Ok(());
    }
    let mut map = KeyMap::new(shared.options.compaction_bytes, seeds(shared));
    let Some(regions) = note(&mut map, &dirty, pace)? else {
        report.stopped = true;
        return Ok(());
    };
    let compaction = Compaction { map: &map, regions };
    let mut affected = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.is_spoilt()) {
        match is_affected(segment, &dirty, &compaction) {
            Ok(true) => affected.push(segment.clone()),
            Ok(false) => {}
            Err(Fault::Damaged { file, what }) => leave(std::slice::from_ref(segment), &file, &what),
            Err(fault) => return Err(fault.into()),
        }
    }
    for run in affected.chunks(1) {
        if !has_room(shared, run[0].disk_bytes()) {
            continue;
        }
        if !replace(shared, run, Some(&compaction), report, pace)? {
            break;
        }
    }
    Ok(())
}

/// Keys of the map's hash: random, so that no producer can choose keys that collide.
fn seeds(shared: &Shared) -> [u64; 4] {
    let half = || {
        let id = shared.clock.random_id();
        let (low, high) = id.split_at(8);
        [low, high].map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let ([a, b], [c, d]) = (half(), half());
    [a, b, c, d]
}

/// What there is to compact of a partition, if it compacts and half of what is sealed is new since the last time.
fn dirty(partition: Arc<Partition>, segments: &[Arc<Segment>], now_ms: i64) -> Option<Dirty> {
    let (retention, spans) = partition.with(|state| (state.retention, state.spans.clone()));
    if !retention.compacts() {
        return None;
    }
    let is_sealed = |span: &SegmentSpan| segments.iter().any(|segment| Arc::ptr_eq(segment, &span.segment));
    let spans: Vec<SegmentSpan> = spans.into_iter().take_while(is_sealed).collect();
    let is_clean = |span: &&SegmentSpan| span.segment.header.compacted.binary_search(&partition.id).is_ok();
    let clean = spans.iter().take_while(is_clean).count();
    let bytes = |spans: &[SegmentSpan]| spans.iter().map(|span| span.span.bytes).sum::<u64>();
    let (clean_bytes, dirty_bytes) = (bytes(&spans[..clean]), bytes(&spans[clean..]));
    if dirty_bytes == 0 || dirty_bytes < clean_bytes {
        return None;
    }
    let clean_until = spans[..clean].last().map_or(0, |span| span.span.cover_end);
    let kept_ms = i64::try_from(retention.delete_retention_ms).unwrap_or(i64::MAX);
    let rule = CompactRule { tombstones_before_ms: now_ms.saturating_sub(kept_ms) };
    Some(Dirty { partition, spans, clean_until, rule })
}

/// Notes the keys of what is dirty, as many as the map takes; how far. `None` when it was stopped.
fn note(
    map: &mut KeyMap,
    dirty: &[Dirty],
    pace: &mut Pace<'_>,
) -> Result<Option<BTreeMap<PartitionId, Region>>, CleanError> {
    let mut regions = BTreeMap::new();
    for Dirty { partition, spans, clean_until, rule } in dirty {
        let noted_until = match note_partition(map, partition.id, spans, *clean_until, pace) {
            Err(Fault::Damaged { file, what }) => {
                // Without all keys nobody knows what is superseded; the other partitions do not suffer for it.
                tracing::error!(file, what, partition = partition.id.0, "a damaged partition is not compacted");
                continue;
            }
            noted => noted?,
        };
        let Some(noted_until) = noted_until else { return Ok(None) };
        regions.insert(partition.id, Region { clean_until: *clean_until, noted_until, rule: *rule });
    }
    Ok(Some(regions))
}

fn note_partition(
    map: &mut KeyMap,
    partition: PartitionId,
    spans: &[SegmentSpan],
    clean_until: u64,
    pace: &mut Pace<'_>,
) -> Result<Option<u64>, Fault> {
    let mut noted_until = clean_until;
    for SegmentSpan { segment, span } in spans.iter().filter(|span| span.span.cover_end > clean_until) {
        while noted_until < span.cover_end {
            let from = noted_until.max(span.cover_start);
            let extents = segment.extents_from(partition, from, STEP_BYTES)?;
            for (extent, run) in extents.iter().zip(segment.read_extents(&extents)?) {
                match note_keys(map, partition, &run, clean_until).map_err(|what| segment.damaged(what))? {
                    NoteOutcome::All => noted_until = extent.cover_end,
                    NoteOutcome::FullAt(offset) => return Ok(Some(offset)),
                }
            }
            if extents.is_empty() {
                return Err(segment.damaged(format!("its index ends before offset {from}")));
            }
            if !pace(extents.iter().map(|extent| extent.bytes() as usize).sum()) {
                return Ok(None);
            }
        }
    }
    Ok(Some(noted_until))
}

/// Whether anything in a segment goes, or it was not compacted before.
fn is_affected(segment: &Arc<Segment>, dirty: &[Dirty], compaction: &Compaction<'_>) -> Result<bool, Fault> {
    for Dirty { partition, spans, .. } in dirty {
        let Some(span) = spans.iter().find(|span| Arc::ptr_eq(&span.segment, segment)) else { continue };
        let noted_until = compaction.regions.get(&partition.id).map_or(0, |region| region.noted_until);
        if span.span.cover_start >= noted_until {
            continue;
        }
        if segment.header.compacted.binary_search(&partition.id).is_err()
            || has_superseded(span, partition, compaction)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_superseded(span: &SegmentSpan, partition: &Partition, compaction: &Compaction<'_>) -> Result<bool, Fault> {
    let SegmentSpan { segment, span } = span;
    let mut from = span.cover_start.max(partition.with(|state| state.log_start));
    while from < span.cover_end {
        let extents = segment.extents_from(partition.id, from, STEP_BYTES)?;
        let Some(last) = extents.last() else { return Ok(false) };
        from = last.cover_end;
        for run in segment.read_extents(&extents)? {
            let compacted = compaction.compact(partition.id, &run).map_err(|what| segment.damaged(what))?;
            if compacted.is_some_and(|compacted| compacted.records_removed > 0) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn runs(segments: &[(u64, u64)]) -> Vec<(usize, usize)> {
        let view = |&(live, disk): &(u64, u64)| View { live_bytes: live * MIB, disk_bytes: disk * MIB };
        let runs = plan(&segments.iter().map(view).collect::<Vec<_>>(), 256 * MIB);
        runs.into_iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn what_is_more_than_half_dead_is_rewritten_and_nothing_else() {
        assert_eq!(runs(&[(250, 256), (200, 256), (130, 256)]), []);
        assert_eq!(runs(&[(250, 256), (100, 256), (256, 256)]), [(1, 2)]);
        assert_eq!(runs(&[(0, 0)]), []);
    }

    #[test]
    fn neighbours_are_joined_as_long_as_they_fit() {
        assert_eq!(runs(&[(10, 256), (20, 256), (30, 256), (256, 256)]), [(0, 3)]);
        assert_eq!(runs(&[(100, 256), (100, 256), (100, 256)]), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(runs(&[(120, 256), (3, 4), (120, 256)]), [(0, 2), (2, 3)]);
    }

    #[test]
    fn small_ones_wait_until_they_are_many() {
        assert_eq!(runs(&[(3, 4); 7]), []);
        assert_eq!(runs(&[(3, 4); 20]), [(0, 20)]);
    }
}

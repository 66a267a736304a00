//! Deletes what has expired, by age and by size: moves log starts, then unlinks sealed segments in which nothing lives.
//!
//! Decides on plain values ([`plan`]), then does: log starts move through a commit like every change, and a file goes
//! only when no partition reaches into it any more, and the state in it is applied.
//!
//! Start at [`run`].

use protocol::{Offset, PartitionId, Retention};
use thiserror::Error;

use crate::{Commit, CommitError, PartitionChange, fault::file_name, index::PartitionSpan, store::Shared};

/// What one round of retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Partitions whose log start moved.
    pub partitions_trimmed: usize,
    /// Segments unlinked.
    pub segments_removed: usize,
    /// Bytes of the files unlinked.
    pub bytes_removed: u64,
}

/// Why a round of retention ended early. What it did until then stands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RetentionError {
    /// The log starts could not be moved.
    #[error("failed to move the log starts")]
    Commit(#[source] CommitError),
    /// `state.redb` could not be brought up to date, so no segment may go.
    #[error("failed to apply the state: {cause}")]
    State {
        /// What was said.
        cause: String,
    },
    /// A dead segment could not be unlinked.
    #[error("failed to unlink `{file}`: {cause}")]
    Unlink {
        /// The file.
        file: String,
        /// What the system said.
        cause: String,
    },
}

/// A partition as the plan sees it.
#[derive(Debug, Clone)]
struct View {
    id: PartitionId,
    retention: Retention,
    log_start: u64,
    /// What each segment holds of it, oldest first; the last may be the active one's.
    spans: Vec<PartitionSpan>,
    last_is_active: bool,
}

/// Where log starts have to move.
fn plan(now_ms: i64, partitions: &[View]) -> Vec<PartitionChange> {
    let moved = partitions.iter().filter_map(|view| {
        let start = expired_by_age(now_ms, view).max(expired_by_bytes(view));
        (start > view.log_start).then_some(PartitionChange::SetLogStart { id: view.id, offset: Offset(start) })
    });
    moved.collect()
}

/// End of the oldest segments in which every record is too old. The active one too: a topic that fell silent expires.
fn expired_by_age(now_ms: i64, view: &View) -> u64 {
    let Some(age_ms) = view.retention.expires_age_ms() else { return 0 };
    let oldest_kept = now_ms.saturating_sub_unsigned(age_ms);
    let expired = view.spans.iter().take_while(|span| span.max_timestamp_ms < oldest_kept);
    expired.last().map_or(0, |span| span.cover_end)
}

/// End of the oldest sealed segments without which the partition still holds as much as it should.
fn expired_by_bytes(view: &View) -> u64 {
    let Some(limit) = view.retention.expires_bytes() else { return 0 };
    let mut held: u64 = view.spans.iter().map(|span| span.bytes).sum();
    let sealed = view.spans.len() - usize::from(view.last_is_active);
    let mut end = 0;
    for span in &view.spans[..sealed] {
        if held - span.bytes < limit {
            break;
        }
        held -= span.bytes;
        end = span.cover_end;
    }
    end
}

/// One round. `commit` makes a commit and waits for it; `roll` leaves the active segment.
pub(crate) fn run(
    shared: &Shared,
    now_ms: i64,
    commit: impl Fn(Commit) -> Result<(), CommitError>,
    roll: impl Fn() -> Result<(), CommitError>,
) -> Result<RetentionReport, RetentionError> {
    let _one_at_a_time = shared.retention.lock();
    let mut report = RetentionReport { partitions_trimmed: trim(shared, now_ms, commit)?, ..Default::default() };
    if active_is_dead(shared) {
        roll().map_err(RetentionError::Commit)?;
    }
    remove_dead_segments(shared, &mut report)?;
    Ok(report)
}

/// Moves the log starts; how many.
fn trim(
    shared: &Shared,
    now_ms: i64,
    commit: impl Fn(Commit) -> Result<(), CommitError>,
) -> Result<usize, RetentionError> {
    loop {
        let partitions = plan(now_ms, &views(shared));
        let count = partitions.len();
        if count == 0 {
            return Ok(0);
        }
        match commit(Commit { partitions, ..Commit::default() }) {
            Ok(()) => return Ok(count),
            // Deleted since the plan was made; the next plan does without it.
            Err(CommitError::UnknownPartition { .. }) => {}
            Err(error) => return Err(RetentionError::Commit(error)),
        }
    }
}

fn views(shared: &Shared) -> Vec<View> {
    let active = shared.active_id();
    let view = |partition: std::sync::Arc<crate::partitions::Partition>| {
        partition.with(|state| View {
            id: partition.id,
            retention: state.retention,
            log_start: state.log_start,
            spans: state.spans.iter().map(|span| span.span).collect(),
            last_is_active: state.spans.last().is_some_and(|span| span.segment.id == active),
        })
    };
    shared.partitions.all().into_iter().map(view).collect()
}

/// Whether the active segment held records and nobody can ask for any of them.
fn active_is_dead(shared: &Shared) -> bool {
    let active = shared.active_id();
    let held_records = shared.segments.read().get(&active).is_some_and(|segment| segment.held_records());
    held_records && !shared.partitions.living_segments().contains(&active)
}

pub(crate) fn remove_dead_segments(shared: &Shared, report: &mut RetentionReport) -> Result<(), RetentionError> {
    let active = shared.active_id();
    let living = shared.partitions.living_segments();
    let candidates: Vec<_> = shared.segments.read().range(..active).map(|(_, segment)| segment.clone()).collect();
    let dead: Vec<_> =
        candidates.into_iter().filter(|segment| !living.contains(&segment.id) && segment.is_sealed()).collect();
    let Some(last) = dead.last() else { return Ok(()) };
    if shared.state.applied() < last.last_sequence() {
        shared.state.flush().map_err(|cause| RetentionError::State { cause })?;
    }
    let _alone = shared.files.write();
    for segment in dead {
        let bytes = segment.disk_bytes();
        segment
            .unlink()
            .map_err(|fault| RetentionError::Unlink { file: file_name(&segment.path), cause: fault.text() })?;
        shared.segments.write().remove(&segment.id);
        report.segments_removed += 1;
        report.bytes_removed += bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::CleanupPolicy;

    use super::*;

    fn view(retention: Retention, spans: &[(u64, u64, i64)]) -> View {
        let span = |&(cover_end, bytes, max_timestamp_ms): &(u64, u64, i64)| PartitionSpan {
            cover_start: 0,
            cover_end,
            bytes,
            max_timestamp_ms,
        };
        let spans = spans.iter().map(span).collect();
        View { id: PartitionId(1), retention, log_start: 5, spans, last_is_active: true }
    }

    fn start(now_ms: i64, view: View) -> Option<u64> {
        plan(now_ms, &[view]).first().map(|change| match change {
            PartitionChange::SetLogStart { offset, .. } => offset.0,
            other => panic!("planned {other:?}"),
        })
    }

    #[test]
    fn segments_expire_by_age_oldest_first() {
        let by_age = Retention { age_ms: Some(100), ..Retention::FOREVER };
        let spans = [(10, 1, 50), (20, 1, 300), (30, 1, 60)];
        assert_eq!(start(150, view(by_age, &spans)), None);
        assert_eq!(start(151, view(by_age, &spans)), Some(10));
        assert_eq!(start(401, view(by_age, &spans)), Some(30));
    }

    #[test]
    fn size_keeps_the_active_segment_and_at_least_the_limit() {
        let by_bytes = |bytes| Retention { bytes: Some(bytes), ..Retention::FOREVER };
        let spans = [(10, 100, 0), (20, 100, 0), (30, 100, 0)];
        assert_eq!(start(0, view(by_bytes(300), &spans)), None);
        assert_eq!(start(0, view(by_bytes(201), &spans)), None);
        assert_eq!(start(0, view(by_bytes(200), &spans)), Some(10));
        assert_eq!(start(0, view(by_bytes(0), &spans)), Some(20));
    }

    #[test]
    fn nothing_moves_back_and_no_rule_deletes_nothing() {
        assert_eq!(start(i64::MAX, view(Retention::FOREVER, &[(10, 1, 0)])), None);
        let by_age = Retention { age_ms: Some(1), ..Retention::FOREVER };
        assert_eq!(start(i64::MAX, view(by_age, &[(5, 1, 0)])), None);
    }

    #[test]
    fn what_only_compacts_never_expires() {
        let bounded = |policy| Retention { age_ms: Some(1), bytes: Some(1), policy, ..Retention::FOREVER };
        let spans = [(10, 100, 0), (20, 100, 0), (30, 100, 0)];
        assert_eq!(start(i64::MAX, view(bounded(CleanupPolicy::Compact), &spans)), None);
        assert_eq!(start(i64::MAX, view(bounded(CleanupPolicy::CompactAndDelete), &spans)), Some(30));
    }
}

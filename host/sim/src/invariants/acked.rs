//! Acknowledged survives: once a commit was answered, the last commit is never before it, and its batches are there, byte
//! for byte, until they are deleted.

use crate::{
    history::{Expected, Fate, Submitted},
    invariants::Violation,
    model::{Model, Written, marker},
    observed::Observed,
};

fn acked(expected: &Expected) -> impl Iterator<Item = &Submitted> {
    expected.commits.iter().filter(|(_, fate)| *fate == Fate::Acked).map(|(submitted, _)| &**submitted)
}

/// Whether the last commit that is there is not before the last that was acknowledged.
pub(super) fn check_last(expected: &Expected, observed: &Observed) -> Result<(), Violation> {
    let last = acked(expected).map(|submitted| submitted.number).max().or_else(|| expected.base.marker());
    let found = marker(&observed.state);
    match found < last {
        true => {
            let what = format!("commit {last:?} was acknowledged, but the last one is {found:?}");
            Err(Violation::new("acked", what))
        }
        false => Ok(()),
    }
}

pub(super) fn check(expected: &Expected, model: &Model, observed: &Observed) -> Result<(), Violation> {
    for Submitted { number, written, .. } in acked(expected) {
        for Written { partition, batch } in written {
            // Whether it may be deleted is `torn`'s matter; what compaction may take, `compacted`'s.
            let Some(log) = observed.partitions.get(partition) else { continue };
            if batch.end <= log.log_start || model.partitions.get(partition).is_none_or(|log| log.compacts) {
                continue;
            }
            let at = log.batches.binary_search_by_key(&batch.start, |(start, _)| *start);
            if !at.is_ok_and(|at| log.batches[at].1 == batch.bytes) {
                let what = format!("commit {number}: partition {partition} lacks its batch at {}", batch.start);
                return Err(Violation::new("acked", what));
            }
        }
    }
    Ok(())
}

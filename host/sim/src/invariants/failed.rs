//! A commit that failed does not come back once a later one was acknowledged.

use std::collections::BTreeSet;

use protocol::PartitionId;

use crate::{
    history::{Expected, Fate, Submitted},
    invariants::Violation,
    observed::Observed,
};

/// A batch and its place.
type Placed<'a> = (PartitionId, u64, &'a [u8]);

fn placed(submitted: &Submitted) -> impl Iterator<Item = Placed<'_>> {
    submitted.written.iter().map(|written| (written.partition, written.batch.start, &written.batch.bytes[..]))
}

pub(super) fn check(expected: &Expected, observed: &Observed) -> Result<(), Violation> {
    let last_acked = expected.commits.iter().rposition(|(_, fate)| *fate == Fate::Acked).unwrap_or(0);
    let is_failed = |(_, fate): &&(_, Fate)| *fate == Fate::Failed;
    if !expected.commits[..last_acked].iter().any(|commit| is_failed(&commit)) {
        return Ok(());
    }
    let found: BTreeSet<Placed<'_>> = observed
        .partitions
        .iter()
        .flat_map(|(id, log)| log.batches.iter().map(|(start, bytes)| (*id, *start, &bytes[..])))
        .collect();
    // What was sent again after it had failed may have come to the same place.
    let others: BTreeSet<Placed<'_>> = expected
        .commits
        .iter()
        .filter(|commit| !is_failed(commit))
        .flat_map(|(submitted, _)| placed(submitted))
        .collect();
    for (submitted, _) in expected.commits[..last_acked].iter().filter(is_failed) {
        if placed(submitted).any(|batch| found.contains(&batch) && !others.contains(&batch)) {
            let what = format!("commit {} failed, a later one was acknowledged, and now it is there", submitted.number);
            return Err(Violation::new("failed", what));
        }
    }
    Ok(())
}

//! A commit that failed does not come back once a later one was acknowledged, and one that was refused never comes.

use std::collections::BTreeSet;

use crate::{
    history::{Expected, Fate},
    invariants::Violation,
    observed::Observed,
};

pub(super) fn check(expected: &Expected, observed: &Observed) -> Result<(), Violation> {
    let last_acked = expected.commits.iter().rposition(|(_, fate)| *fate == Fate::Acked).unwrap_or(0);
    let found: BTreeSet<_> =
        observed.partitions.values().flat_map(|log| &log.batches).map(|(start, bytes)| (*start, bytes)).collect();
    let failed = expected.commits[..last_acked].iter().filter(|(_, fate)| *fate == Fate::Failed);
    for (submitted, _) in failed {
        if submitted.batches.iter().any(|batch| found.contains(&(batch.start, &batch.bytes))) {
            let what = format!("commit {} failed, a later one was acknowledged, and now it is there", submitted.number);
            return Err(Violation::new("failed", what));
        }
    }
    Ok(())
}

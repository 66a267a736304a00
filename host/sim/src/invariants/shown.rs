//! What a reader was given stays: whoever asks for the same offsets later gets the same batches, until they are deleted.

use crate::{history::Expected, invariants::Violation, model::Model, observed::Observed};

pub(super) fn check(expected: &Expected, model: &Model, observed: &Observed) -> Result<(), Violation> {
    for read in &expected.read {
        let (Some(log), Some(kept)) = (observed.partitions.get(&read.id), model.partitions.get(&read.id)) else {
            continue;
        };
        if kept.compacts || read.start < log.log_start {
            continue;
        }
        let at = log.batches.binary_search_by_key(&read.start, |(start, _)| *start);
        if !at.is_ok_and(|at| log.batches[at].1 == read.bytes) {
            let what = format!("a reader was given another batch at {} of partition {}", read.start, read.id);
            return Err(Violation::new("shown", what));
        }
    }
    Ok(())
}

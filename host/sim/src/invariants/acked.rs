//! What was acknowledged is there, byte for byte.

use crate::{
    history::{Expected, Fate},
    invariants::Violation,
    model::marker,
    observed::Observed,
};

pub(super) fn check(expected: &Expected, observed: &Observed) -> Result<(), Violation> {
    let acked = expected.commits.iter().filter(|(_, fate)| *fate == Fate::Acked).map(|(submitted, _)| submitted);
    let last = acked.clone().map(|submitted| submitted.number).max().or_else(|| expected.base.marker());
    let found = marker(&observed.state);
    if found < last {
        return Err(Violation::new(
            "acked",
            format!("commit {last:?} was acknowledged, but the last one is {found:?}"),
        ));
    }
    let numbered = acked.flat_map(|submitted| std::iter::repeat(submitted.number).zip(&submitted.batches));
    let mut batches = numbered.zip(append_partitions(expected));
    batches.try_for_each(|((number, batch), partition)| {
        // Whether it may be deleted is `prefix`'s matter.
        let Some(log) = observed.partitions.get(&partition) else { return Ok(()) };
        let at = log.batches.binary_search_by_key(&batch.start, |(start, _)| *start);
        match at.map(|at| &log.batches[at].1) {
            Ok(bytes) if *bytes == batch.bytes => Ok(()),
            Err(_) if batch.end <= log.log_start => Ok(()),
            Ok(_) => Err(Violation::new(
                "acked",
                format!("commit {number}: partition {partition} has other bytes at {}", batch.start),
            )),
            Err(_) => {
                Err(Violation::new("acked", format!("commit {number}: partition {partition} lacks {}", batch.start)))
            }
        }
    })
}

/// The partition of each acknowledged batch, in order.
fn append_partitions(expected: &Expected) -> impl Iterator<Item = protocol::PartitionId> {
    let acked = expected.commits.iter().filter(|(_, fate)| *fate == Fate::Acked);
    let appends = acked.flat_map(|(submitted, _)| &submitted.commit.appends);
    appends.filter(|append| append.batches.is_some()).map(|append| append.partition)
}

//! Nothing is torn: what is there was submitted, in whole commits, in the order of the submits, up to some point.

use crate::{
    history::{Expected, Fate},
    invariants::{Violation, compacted},
    model::{Model, marker},
    observed::{Observed, SeenLog},
};

/// Which commits are there. The last one says so itself; a run of failed ones at the end may begin with any of its groups.
pub(super) fn settle(expected: &Expected, observed: &Observed) -> Result<Model, Violation> {
    let last = marker(&observed.state);
    if last == expected.base.marker() {
        return Ok(expected.base.clone());
    }
    let end = expected.commits.iter().position(|(submitted, _)| Some(submitted.number) == last);
    let Some(end) = end else {
        let possible: Vec<_> = expected.commits.iter().map(|(submitted, fate)| (submitted.number, fate)).collect();
        let possible = &possible[possible.len().saturating_sub(8)..];
        return Err(Violation::new("torn", format!("commit {last:?} cannot be there; these can: {possible:?}")));
    };
    let (_, fate) = expected.commits[end];
    if fate != Fate::Failed {
        return Ok(replay(expected, end + 1, end + 1..end + 1));
    }
    let run = expected.commits[..=end].iter().rposition(|(_, fate)| *fate != Fate::Failed).map_or(0, |at| at + 1);
    let candidates: Vec<Model> = (run..=end).filter_map(|begin| possible(expected, begin..end + 1)).collect();
    let matching = candidates.iter().find(|model| check(model, observed).is_ok());
    matching.or_else(|| candidates.first()).cloned().ok_or_else(|| Violation::new("torn", "no such commits"))
}

/// The commits that went well before `end`, and some that failed.
fn replay(expected: &Expected, end: usize, failed: std::ops::Range<usize>) -> Model {
    let mut model = expected.base.clone();
    let fine = expected.commits[..end].iter().filter(|(_, fate)| *fate != Fate::Failed);
    for (submitted, _) in fine.chain(&expected.commits[failed]) {
        model.apply(&submitted.commit, &submitted.written);
    }
    model
}

/// Of failed commits only those that follow on each other can be of one group.
fn possible(expected: &Expected, failed: std::ops::Range<usize>) -> Option<Model> {
    let model = replay(expected, failed.start, failed.start..failed.start);
    let mut next: std::collections::BTreeMap<_, _> =
        model.partitions.iter().map(|(id, log)| (*id, log.next_offset)).collect();
    for (submitted, _) in &expected.commits[failed.clone()] {
        for change in &submitted.commit.partitions {
            if let storage::PartitionChange::Create { id, .. } = change
                && next.insert(*id, 0).is_some()
            {
                return None;
            }
        }
        for append in &submitted.commit.appends {
            if next.insert(append.partition, append.cover_end.0) != Some(append.cover_start.0) {
                return None;
            }
        }
        for change in &submitted.commit.partitions {
            match change {
                storage::PartitionChange::Create { .. } => {}
                storage::PartitionChange::Delete { id } => drop(next.remove(id)?),
                storage::PartitionChange::SetRetention { id, .. }
                | storage::PartitionChange::SetLogStart { id, .. } => {
                    next.get(id)?;
                }
            }
        }
    }
    Some(replay(expected, failed.start, failed))
}

/// Whether exactly the model's partitions and batches are there, but for what was trimmed.
pub(super) fn check(model: &Model, observed: &Observed) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new("torn", format!("after commit {:?}: {what}", model.marker())));
    if !model.partitions.keys().eq(observed.partitions.keys()) {
        let (expected, found) = (model.partitions.keys(), observed.partitions.keys());
        return broken(format!(
            "partitions are {:?}, not {:?}",
            found.collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        ));
    }
    if observed.next_id < model.next_id {
        return broken(format!("the next partition id is {}, not {}", observed.next_id, model.next_id));
    }
    for (id, log) in &model.partitions {
        let SeenLog { log_start, high_watermark, retention, batches, .. } = &observed.partitions[id];
        if *high_watermark != log.next_offset {
            return broken(format!("partition {id} ends at {high_watermark}, not {}", log.next_offset));
        }
        if *retention != log.retention {
            return broken(format!("partition {id} has {retention:?}, not {:?}", log.retention));
        }
        if log.compacts {
            compacted::check(*id, log, &observed.partitions[id])?;
            continue;
        }
        let alive = log.batches.iter().filter(|batch| batch.end > *log_start);
        let expected = alive.clone().map(|batch| (batch.start, &batch.bytes));
        if !expected.eq(batches.iter().map(|(start, bytes)| (*start, bytes))) {
            let expected: Vec<_> = alive.map(|batch| (batch.start, batch.bytes.len())).collect();
            let found: Vec<_> = batches.iter().map(|(start, bytes)| (*start, bytes.len())).collect();
            return broken(format!("partition {id} from {log_start} on has batches {found:?}, not {expected:?}"));
        }
    }
    Ok(())
}

//! Log, state and producer table agree on one commit: the state is as of exactly the last commit that is there; the
//! producers' answers point at batches, and none is missing; every batch is of the version that its topic had.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PartitionId, RecordBatch};
use storage::StateTable;

use crate::{
    history::Expected,
    invariants::Violation,
    model::Model,
    observed::{Observed, SeenLog},
    records::version_of,
    rows::{ProducerRow, TopicRow},
};

pub(super) fn check(expected: &Expected, model: &Model, observed: &Observed) -> Result<(), Violation> {
    check_state(expected, model, observed)?;
    check_producers(model, observed)?;
    check_topics(observed)
}

fn broken<T>(what: String) -> Result<T, Violation> {
    Err(Violation::new("agree", what))
}

fn check_state(expected: &Expected, model: &Model, observed: &Observed) -> Result<(), Violation> {
    // What plugins keep is only in segments, and those that were cleaned have it no more.
    let is_compared = |table: StateTable| table.is_small() || !expected.state_lost;
    for (key, value) in model.state.iter().filter(|((table, _), _)| is_compared(*table)) {
        if observed.state.get(key) != Some(value) {
            return broken(format!("{key:?} is not what commit {:?} left", model.marker()));
        }
    }
    match observed.state.keys().find(|key| is_compared(key.0) && !model.state.contains_key(key)) {
        Some(key) => broken(format!("{key:?} is there after commit {:?}", model.marker())),
        None => Ok(()),
    }
}

fn check_producers(model: &Model, observed: &Observed) -> Result<(), Violation> {
    let mut last = BTreeMap::<(PartitionId, u64), ProducerRow>::new();
    for ((_, key), value) in observed.state.iter().filter(|((table, _), _)| *table == StateTable::Producers) {
        let (Some(whose), Some(row)) = (ProducerRow::whose(key), ProducerRow::decode(value)) else { continue };
        let newest = last.entry(whose).or_insert(row);
        if row.number > newest.number {
            *newest = row;
        }
    }
    let exact = |id: &PartitionId| model.partitions.get(id).is_some_and(|log| !log.compacts);
    let found = observed.partitions.iter().filter(|(id, _)| exact(id));
    let mut in_log = BTreeMap::<(PartitionId, u64), (u32, u64)>::new();
    for (id, log) in found {
        for (start, bytes) in &log.batches {
            let batch = RecordBatch::decode(bytes.clone()).expect("`retried` has decoded it");
            let Some(producer) = batch.header().producer() else { continue };
            in_log.insert((*id, producer.id.0), (producer.base_sequence.0, *start));
        }
    }
    for (whose, (sequence, start)) in &in_log {
        if last.get(whose).is_none_or(|row| (row.sequence, row.base_offset) != (*sequence, *start)) {
            let row = last.get(whose);
            return broken(format!("the last batch of {whose:?} is {sequence} at {start}, its answer {row:?}"));
        }
    }
    for (whose, row) in &last {
        let Some(log) = observed.partitions.get(&whose.0) else {
            return broken(format!("{whose:?} has an answer, and no partition"));
        };
        if exact(&whose.0) && row.base_offset >= log.log_start && !in_log.contains_key(whose) {
            return broken(format!("{whose:?} has the answer {row:?}, and no batch"));
        }
    }
    Ok(())
}

fn check_topics(observed: &Observed) -> Result<(), Violation> {
    let mut named = BTreeSet::new();
    for ((_, key), value) in observed.state.iter().filter(|((table, _), _)| *table == StateTable::Catalog) {
        let (Some(name), Some(topic)) = (TopicRow::name(key), TopicRow::decode(value)) else { continue };
        for (id, begins_at) in &topic.partitions {
            let Some(log) = observed.partitions.get(id) else {
                return broken(format!("topic {name} has partition {id}, which is not there"));
            };
            if !named.insert(*id) {
                return broken(format!("partition {id} is of two topics"));
            }
            check_versions(*id, log, topic.version, *begins_at)?;
        }
    }
    match observed.partitions.keys().find(|id| !named.contains(id)) {
        Some(id) => broken(format!("partition {id} is of no topic")),
        None => Ok(()),
    }
}

/// Whether the batches of the version in force, and only they, lie behind where it begins.
fn check_versions(id: PartitionId, log: &SeenLog, version: u32, begins_at: u64) -> Result<(), Violation> {
    if begins_at > log.high_watermark {
        return broken(format!("version {version} of partition {id} begins at {begins_at} of {}", log.high_watermark));
    }
    for (start, bytes) in &log.batches {
        let Some(found) = version_of(bytes) else { continue };
        let fits = if *start < begins_at { found < version } else { found == version };
        if !fits {
            return broken(format!(
                "partition {id} has a batch of version {found} at {start}, where version {version} begins at {begins_at}"
            ));
        }
    }
    Ok(())
}

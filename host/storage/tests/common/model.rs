//! A store as a plain map would have it: operations on both, and a comparison of everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{Offset, PartitionId, Retention};
use storage::{Commit, PartitionChange, ReadError, StateChange, StateTable, Store};

use super::{FOREVER, append, change, create, gap, plain, read_all};

/// What a partition should look like.
#[derive(Debug, Default, Clone)]
pub struct Model {
    partitions: BTreeMap<PartitionId, ModelPartition>,
    state: BTreeMap<(StateTable, String), String>,
}

#[derive(Debug, Default, Clone)]
pub struct ModelPartition {
    log_start: u64,
    next_offset: u64,
    batches: Vec<(u64, u64, Bytes)>,
}

#[derive(Debug, Clone)]
pub enum Operation {
    Create,
    Delete(usize),
    Append(Vec<ModelAppend>),
    Trim(usize, u64),
    Limit(usize, u64),
    State(StateTable, u8, Option<u16>),
    Roll,
    Retain,
    /// Cleans for so many steps.
    Clean(usize),
    Reopen,
}

#[derive(Debug, Clone)]
pub struct ModelAppend {
    partition: usize,
    count: u32,
    bytes: usize,
    gap: u32,
    dropped: bool,
}

fn model_append() -> impl Strategy<Value = ModelAppend> {
    let bytes = prop_oneof![4 => 0_usize..300, 2 => 300_usize..20_000, 1 => 20_000_usize..150_000];
    (0_usize..5, 1_u32..6, bytes, 0_u32..3, prop::bool::weighted(0.2))
        .prop_map(|(partition, count, bytes, gap, dropped)| ModelAppend { partition, count, bytes, gap, dropped })
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let table = prop::sample::select(StateTable::ALL.to_vec());
    prop_oneof![
        2 => Just(Operation::Create),
        1 => (0_usize..5).prop_map(Operation::Delete),
        12 => prop::collection::vec(model_append(), 1..6).prop_map(Operation::Append),
        1 => (0_usize..5, 0_u64..100).prop_map(|(partition, percent)| Operation::Trim(partition, percent)),
        1 => (0_usize..5, 0_u64..500_000).prop_map(|(partition, bytes)| Operation::Limit(partition, bytes)),
        3 => (table, 0_u8..6, prop::option::weighted(0.8, any::<u16>()))
            .prop_map(|(table, key, value)| Operation::State(table, key, value)),
        4 => Just(Operation::Roll),
        1 => Just(Operation::Retain),
        2 => prop_oneof![Just(usize::MAX), 0_usize..6].prop_map(Operation::Clean),
        2 => Just(Operation::Reopen),
    ]
}

impl Model {
    fn pick(&self, number: usize) -> Option<PartitionId> {
        self.partitions.keys().nth(number % self.partitions.len().max(1)).copied()
    }

    /// Does one operation on both.
    pub fn run(&mut self, store: &Store, operation: &Operation) {
        match operation {
            Operation::Create => {
                let id = store.partition_id_next();
                store.commit(create(id, FOREVER)).unwrap();
                self.partitions.insert(id, ModelPartition::default());
            }
            Operation::Delete(number) => {
                let Some(id) = self.pick(*number) else { return };
                store.commit(change(PartitionChange::Delete { id })).unwrap();
                self.partitions.remove(&id);
            }
            Operation::Append(steps) => self.append(store, steps),
            Operation::Trim(number, percent) => {
                let Some(id) = self.pick(*number) else { return };
                let partition = self.partitions.get_mut(&id).unwrap();
                let offset = partition.next_offset * percent / 100;
                store.commit(change(PartitionChange::SetLogStart { id, offset: Offset(offset) })).unwrap();
                partition.log_start = partition.log_start.max(offset);
            }
            Operation::Limit(number, bytes) => {
                let Some(id) = self.pick(*number) else { return };
                let retention = Retention { bytes: Some(*bytes), ..Retention::FOREVER };
                store.commit(change(PartitionChange::SetRetention { id, retention })).unwrap();
            }
            Operation::State(table, key, value) => {
                let key = format!("key {key}");
                let value = value.map(|value| value.to_string());
                let row = StateChange { table: *table, key: key.clone().into(), value: value.clone().map(Bytes::from) };
                store.commit(Commit { state: vec![row], ..Commit::default() }).unwrap();
                match value {
                    Some(value) => self.state.insert((*table, key), value),
                    None => self.state.remove(&(*table, key)),
                };
            }
            Operation::Roll => store.roll().unwrap(),
            Operation::Retain => {
                store.run_retention(0).unwrap();
                // How far it trims is the plan's matter, tested there; here it must trim what it says, and no more.
                for (id, partition) in &mut self.partitions {
                    let log_start = store.partition(*id).unwrap().log_start_offset.0;
                    assert!(log_start >= partition.log_start);
                    partition.log_start = log_start;
                }
            }
            Operation::Clean(steps) => {
                let mut left = *steps;
                let mut pace = |_| {
                    left = left.saturating_sub(1);
                    left > 0
                };
                store.clean(0, &mut pace).unwrap();
            }
            Operation::Reopen => unreachable!("done by the caller"),
        }
    }

    fn append(&mut self, store: &Store, steps: &[ModelAppend]) {
        let mut commit = Commit::default();
        for step in steps {
            let Some(id) = self.pick(step.partition) else { return };
            let partition = self.partitions.get_mut(&id).unwrap();
            let start = partition.next_offset;
            let end = start + u64::from(step.count + step.gap);
            partition.next_offset = end;
            if step.dropped {
                commit.appends.push(gap(id, start, end));
                continue;
            }
            let mut append = append(id, start, step.count, step.bytes, start as i64);
            append.cover_end = Offset(end);
            partition.batches.push((start, start + u64::from(step.count), append.batches.clone().unwrap()));
            commit.appends.push(append);
        }
        store.commit(commit).unwrap();
    }

    /// Compares everything.
    pub fn check(&self, store: &Store) {
        assert_eq!(store.partitions().len(), self.partitions.len());
        for (id, partition) in &self.partitions {
            let place = store.partition(*id).unwrap();
            let expected = (Offset(partition.log_start), Offset(partition.next_offset));
            assert_eq!((place.log_start_offset, place.high_watermark), expected);
            let alive = partition.batches.iter().filter(|(_, end, _)| *end > partition.log_start);
            let alive: Vec<_> = alive.map(|(start, _, bytes)| (*start, bytes.clone())).collect();
            for max_bytes in [1, 40_000, 1 << 22] {
                assert_eq!(plain(&read_all(store, *id, partition.log_start, max_bytes)), alive);
            }
            if partition.log_start > 0 {
                let before = store.read(*id, Offset(partition.log_start - 1), 1);
                assert!(matches!(before, Err(ReadError::OutOfRange { .. })));
            }
        }
        for table in StateTable::ALL {
            let rows = store.state_scan(table, b"").unwrap();
            let rows: Vec<_> = rows.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            let expected = self.state.iter().filter(|((of, _), _)| *of == table);
            let expected: Vec<_> =
                expected.map(|((_, key), value)| (key.clone().into_bytes(), value.clone().into_bytes())).collect();
            assert_eq!(rows, expected);
        }
    }
}

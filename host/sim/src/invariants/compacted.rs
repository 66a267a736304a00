//! Compaction loses only what is superseded: the newest record of each key stays, a tombstone at least as long as what it
//! deletes; a record without a key stays; and nothing is there that was not written, in another order, or with another
//! value.

use std::collections::BTreeMap;

use protocol::PartitionId;

use crate::{
    invariants::Violation,
    model::Log,
    observed::SeenLog,
    records::{Placed, records_of},
};

pub(super) fn check(id: PartitionId, log: &Log, seen: &SeenLog) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new("compacted", format!("partition {id}: {what}")));
    let alive = log.batches.iter().filter(|batch| batch.end > seen.log_start);
    let Some(written) = all(alive.map(|batch| &batch.bytes)) else {
        return broken("what was written is no batch".into());
    };
    let Some(found) = all(seen.batches.iter().map(|(_, bytes)| bytes)) else {
        return broken("a batch cannot be read".into());
    };
    if !found.is_sorted_by(|a, b| a.offset < b.offset) {
        return broken("records are not in order".into());
    }
    let by_offset: BTreeMap<u64, &Placed> = written.iter().map(|record| (record.offset, record)).collect();
    if let Some(foreign) = found.iter().find(|record| by_offset.get(&record.offset) != Some(record)) {
        return broken(format!("the record at {} is not the one that was written", foreign.offset));
    }
    let found: BTreeMap<u64, &Placed> = found.iter().map(|record| (record.offset, record)).collect();
    let mut newest = BTreeMap::new();
    for record in written.iter().filter(|record| record.offset >= seen.log_start) {
        match &record.key {
            Some(key) => drop(newest.insert(key, record)),
            None if found.contains_key(&record.offset) => {}
            None => return broken(format!("the record at {}, without a key, is gone", record.offset)),
        }
    }
    for (key, record) in newest.into_iter().filter(|(_, record)| !found.contains_key(&record.offset)) {
        if record.value.is_some() {
            return broken(format!("the newest record of {key:?}, at {}, is gone", record.offset));
        }
        let is_older = |(offset, found): (&u64, &&Placed)| *offset >= seen.log_start && found.key.as_ref() == Some(key);
        if let Some((offset, _)) = found.iter().find(|of| is_older(*of)) {
            return broken(format!("the tombstone of {key:?} at {} is gone, and {offset} is there", record.offset));
        }
    }
    Ok(())
}

fn all<'a>(batches: impl Iterator<Item = &'a bytes::Bytes>) -> Option<Vec<Placed>> {
    let records: Option<Vec<Vec<Placed>>> = batches.map(records_of).collect();
    Some(records?.into_iter().flatten().collect())
}

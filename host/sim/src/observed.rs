//! What a store shows, all of it, through its public face.
//!
//! Start at [`Observed::of`].

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Offset, PartitionId, RecordBatch, Retention};
use storage::{StateTable, Store};

use crate::{invariants::Violation, rng::Rng};

/// A partition as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLog {
    /// First offset kept.
    pub log_start: u64,
    /// Where reading ends.
    pub high_watermark: u64,
    /// When its records may go.
    pub retention: Retention,
    /// Offset and bytes of each batch, in the order of reading.
    pub batches: Vec<(u64, Bytes)>,
    /// From where to where each read went.
    pub steps: Vec<(u64, u64)>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The partitions.
    pub partitions: BTreeMap<PartitionId, SeenLog>,
    /// The rows of the state.
    pub state: BTreeMap<(StateTable, Bytes), Bytes>,
    /// The lowest partition id never used.
    pub next_id: u32,
}

impl Observed {
    /// Reads everything, in steps of some size.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn of(store: &Store, rng: &mut Rng) -> Result<Observed, Violation> {
        let mut partitions = BTreeMap::new();
        for (id, _) in store.partitions() {
            let bytes_max = rng.pick(&[1, 40_000, 1 << 22]);
            partitions.insert(id, read_log(store, id, bytes_max)?);
        }
        let mut state = BTreeMap::new();
        for table in StateTable::ALL {
            let rows = store.state_scan(table, b"");
            let rows = rows.map_err(|error| Violation::new("state", format!("a scan of {table:?}: {error}")))?;
            for (key, value) in rows {
                let got = store.state_get(table, &key);
                if got.as_ref().ok() != Some(&Some(value.clone())) {
                    return Err(Violation::new(
                        "state",
                        format!("{table:?} {key:?} is {value:?} to a scan, {got:?} to a get"),
                    ));
                }
                state.insert((table, key), value);
            }
        }
        Ok(Observed { partitions, state, next_id: store.partition_id_next().0 })
    }
}

/// Reads a piece of a partition: the offset and bytes of each batch.
pub(crate) fn read_from(
    store: &Store,
    id: PartitionId,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<(u64, Bytes)>, Violation> {
    let unreadable = |error| Violation::new("coverage", format!("partition {id} cannot be read at {from}: {error}"));
    let mut batches = Vec::new();
    split(id, store.read(id, from, bytes_max).map_err(unreadable)?.batches, &mut batches)?;
    Ok(batches)
}

/// Takes runs of batches apart.
fn split(id: PartitionId, runs: Vec<Bytes>, batches: &mut Vec<(u64, Bytes)>) -> Result<(), Violation> {
    for mut run in runs {
        while !run.is_empty() {
            let Ok(Some(batch)) = RecordBatch::split_first(&mut run) else {
                return Err(Violation::new("torn", format!("partition {id} has half a batch after {}", batches.len())));
            };
            batches.push((batch.header().base_offset.0, batch.bytes().clone()));
        }
    }
    Ok(())
}

fn read_log(store: &Store, id: PartitionId, bytes_max: usize) -> Result<SeenLog, Violation> {
    let place = store.partition(id).ok_or_else(|| Violation::new("coverage", format!("partition {id} went away")))?;
    let mut next = place.log_start_offset;
    let (mut batches, mut steps) = (Vec::new(), Vec::new());
    while next < place.high_watermark {
        let outcome = store.read(id, next, bytes_max);
        let outcome = outcome
            .map_err(|error| Violation::new("coverage", format!("partition {id} cannot be read at {next}: {error}")))?;
        split(id, outcome.batches, &mut batches)?;
        steps.push((next.0, outcome.next_offset.0));
        if outcome.next_offset <= next {
            break;
        }
        next = outcome.next_offset;
    }
    let Offset(log_start) = place.log_start_offset;
    let Offset(high_watermark) = place.high_watermark;
    Ok(SeenLog { log_start, high_watermark, retention: place.retention, batches, steps })
}

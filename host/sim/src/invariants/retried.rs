//! A retry is stored once: of each producer a log has every sequence once, in order.

use std::collections::BTreeMap;

use protocol::RecordBatch;

use crate::{invariants::Violation, observed::Observed};

pub(super) fn check(observed: &Observed) -> Result<(), Violation> {
    for (id, log) in &observed.partitions {
        let mut last = BTreeMap::new();
        for (start, bytes) in &log.batches {
            let batch = RecordBatch::decode(bytes.clone());
            let batch = batch.map_err(|error| Violation::new("torn", format!("partition {id} at {start}: {error}")))?;
            let Some(producer) = batch.header().producer() else { continue };
            let sequence = producer.base_sequence.0;
            let before = last.insert(producer.id, sequence);
            if before.is_some_and(|before| before >= sequence) {
                let what =
                    format!("partition {id} at {start}: {:?} has sequence {sequence} after {before:?}", producer.id);
                return Err(Violation::new("retried", what));
            }
        }
    }
    Ok(())
}

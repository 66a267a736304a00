//! A partition's offsets have no holes: reading steps from the log start to the high watermark, over gaps, in order.

use crate::{invariants::Violation, observed::Observed};

pub(super) fn check(observed: &Observed) -> Result<(), Violation> {
    for (id, log) in &observed.partitions {
        let broken = |what: String| Err(Violation::new("coverage", format!("partition {id}: {what}")));
        if log.log_start > log.high_watermark {
            return broken(format!("log start {} behind high watermark {}", log.log_start, log.high_watermark));
        }
        let mut next = log.log_start;
        for (from, to) in &log.steps {
            if *from != next || to <= from || *to > log.high_watermark {
                return broken(format!("a read from {from} went to {to} of {}", log.high_watermark));
            }
            next = *to;
        }
        if next != log.high_watermark {
            return broken(format!("reads end at {next} of {}", log.high_watermark));
        }
        if !log.batches.is_sorted_by(|(a, _), (b, _)| a < b) {
            return broken("batches are not in order".into());
        }
    }
    Ok(())
}

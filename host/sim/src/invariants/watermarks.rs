//! Log start and high watermark never fall below what was acknowledged or shown; only retention moves a log start
//! beyond what commits say.

use crate::{history::Expected, invariants::Violation, model::Model, observed::Observed};

pub(super) fn check(expected: &Expected, model: &Model, observed: &Observed) -> Result<(), Violation> {
    for (id, log) in &model.partitions {
        let Some(seen) = observed.partitions.get(id) else { continue };
        let shown = expected.shown.get(id);
        let log_start_min = shown.map_or(0, |shown| shown.log_start).max(log.log_start);
        let high_watermark_min = shown.map_or(0, |shown| shown.high_watermark);
        let by_retention = expected.rounds.iter().map(|round| round.log_start_max(*id)).max().unwrap_or(0);
        let log_start_max = by_retention.max(log_start_min);
        if seen.log_start < log_start_min || seen.log_start > log_start_max {
            let range = format!("[{log_start_min}, {log_start_max}]");
            return Err(Violation::new(
                "watermarks",
                format!("log start of partition {id} is {}, not in {range}", seen.log_start),
            ));
        }
        if seen.high_watermark < high_watermark_min {
            let what =
                format!("high watermark of partition {id} is {}, {high_watermark_min} was shown", seen.high_watermark);
            return Err(Violation::new("watermarks", what));
        }
    }
    Ok(())
}

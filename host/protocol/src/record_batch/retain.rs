//! Makes a batch of some of another one's records, as compaction does.
//!
//! Owns the rule of what stays: everything that names the batch and places its records. Kept records move as runs of
//! bytes and are never encoded anew.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use super::builder::{BatchBuilder, RecordRun};
use crate::{BatchError, RecordBatch, RecordView, records};

/// What [`RecordBatch::retain`] left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// Every record: the batch stays as it is.
    Whole,
    /// Some of its records, encoded anew.
    Part(RecordBatch),
    /// No record.
    Nothing,
}

/// Kept records that lie side by side, by their place in the section.
struct Run {
    start: usize,
    end: usize,
    record_count: u32,
    last_offset_delta: u32,
}

impl RecordBatch {
    /// Keeps the records that `keep` says, by index and view, as Kafka's cleaner does: each kept record has the offset
    /// and timestamp it had, and the batch covers the offsets it covered. Codec, flags, base timestamp and the
    /// producer's fields stay; only the maximum timestamp is that of the kept records. (Where it is the time of arrival,
    /// it stands for all records and stays too.)
    ///
    /// A batch without records has nothing to keep: [`Retained::Nothing`].
    ///
    /// # Errors
    /// When the section is damaged or unfolds to more than `budget`, or when a codec that compressed better than ours
    /// let the batch fit and what is left of it does not. `keep` is asked about sound batches only.
    pub fn retain(
        &self,
        mut keep: impl FnMut(u32, &RecordView<'_>) -> bool,
        budget: usize,
    ) -> Result<Retained, BatchError> {
        let section = self.records_section(budget)?;
        self.validate_records(&section, usize::MAX)?;
        let mut runs: Vec<Run> = Vec::new();
        let (mut end, mut kept_count, mut max_timestamp) = (0, 0, i64::MIN);
        for (index, record) in (0..).zip(records(&section)) {
            let record = record?;
            let start = end;
            end += record.raw.len();
            if !keep(index, &record) {
                continue;
            }
            kept_count += 1;
            max_timestamp = max_timestamp.max(self.header().timestamp(record.timestamp_delta));
            let last_offset_delta = record.offset_delta;
            match runs.last_mut().filter(|run| run.end == start) {
                Some(run) => {
                    *run = Run { start: run.start, end, record_count: run.record_count + 1, last_offset_delta }
                }
                None => runs.push(Run { start, end, record_count: 1, last_offset_delta }),
            }
        }
        match kept_count {
            0 => Ok(Retained::Nothing),
            all if all == self.header().record_count => Ok(Retained::Whole),
            _ => self.of_runs(&section, &runs, max_timestamp).map(Retained::Part),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the runs are places of records of this section")]
    fn of_runs(&self, section: &[u8], runs: &[Run], max_timestamp: i64) -> Result<RecordBatch, BatchError> {
        let header = self.header();
        let kept_bytes = runs.iter().map(|run| run.end - run.start).sum();
        let mut builder = BatchBuilder::replacing(header, kept_bytes);
        builder.timestamps(header.base_timestamp, max_timestamp);
        for run in runs {
            let Run { record_count, last_offset_delta, .. } = *run;
            builder.append_run(RecordRun { encoded: &section[run.start..run.end], record_count, last_offset_delta })?;
        }
        builder.finish(header.base_offset)
    }
}

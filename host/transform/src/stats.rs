//! What a transform has done, counted where many workers run it at once.

use parking_lot::Mutex;
use protocol::TransformStats;

/// Counters of one transform: a batch is entered whole, or not yet.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    total: Mutex<TransformStats>,
}

impl Counters {
    /// Adds what one batch came to.
    pub(crate) fn add(&self, batch: &TransformStats) {
        let mut total = self.total.lock();
        total.batches += batch.batches;
        total.records_in += batch.records_in;
        total.kept += batch.kept;
        total.records_out += batch.records_out;
        total.dropped += batch.dropped;
        total.failed += batch.failed;
        total.traps += batch.traps;
        total.ns += batch.ns;
        total.deadline_hits += batch.deadline_hits;
        total.bytes_in += batch.bytes_in;
        total.bytes_out += batch.bytes_out;
        total.cpu_ns += batch.cpu_ns;
        total.trips += batch.trips;
        total.bypassed += batch.bypassed;
    }

    /// All batches so far.
    pub(crate) fn read(&self) -> TransformStats {
        *self.total.lock()
    }
}

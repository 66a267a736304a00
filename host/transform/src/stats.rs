//! What a transform has done, counted where many workers run it at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use protocol::TransformStats;

/// Counters of one transform. Each is exact; together they are a snapshot of no single moment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    records_in: AtomicU64,
    kept: AtomicU64,
    records_out: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    traps: AtomicU64,
    ns: AtomicU64,
}

impl Counters {
    /// Adds what one batch came to.
    pub(crate) fn add(&self, batch: &TransformStats) {
        let counters = [
            (&self.batches, batch.batches),
            (&self.records_in, batch.records_in),
            (&self.kept, batch.kept),
            (&self.records_out, batch.records_out),
            (&self.dropped, batch.dropped),
            (&self.failed, batch.failed),
            (&self.traps, batch.traps),
            (&self.ns, batch.ns),
        ];
        for (counter, more) in counters {
            // Most batches have no failures and no drops: a shared cache line is left alone.
            if more > 0 {
                counter.fetch_add(more, Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> TransformStats {
        TransformStats {
            batches: self.batches.load(Relaxed),
            records_in: self.records_in.load(Relaxed),
            kept: self.kept.load(Relaxed),
            records_out: self.records_out.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed: self.failed.load(Relaxed),
            traps: self.traps.load(Relaxed),
            ns: self.ns.load(Relaxed),
        }
    }
}

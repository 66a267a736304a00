//! The thread that looks after the store now and then: expired records, segments that are mostly dead, compaction.
//!
//! Owns the interval and the pace. What is expired or dead, and how it goes, is the store's.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use storage::{CleanReport, RetentionReport, Store};

use crate::clock;

/// How fast the cleaner reads and writes: a part of what a small host's disk can do, so that producers hardly notice.
const CLEAN_BYTES_PER_SECOND: u64 = 32 << 20;

/// Runs until the other end of `stop` is dropped.
pub(crate) fn run(store: &Store, interval: Duration, stop: &Receiver<()>) {
    while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        delete_expired(store);
        clean(store, stop);
    }
}

fn delete_expired(store: &Store) {
    match store.run_retention(clock::now_ms()) {
        Ok(RetentionReport { partitions_trimmed: 0, segments_removed: 0, .. }) => {}
        Ok(report) => tracing::info!(?report, "deleted expired records"),
        // What is not deleted now is still expired the next time.
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to delete expired records"),
    }
}

fn clean(store: &Store, stop: &Receiver<()>) {
    let mut pace = |bytes: usize| {
        let wait = Duration::from_nanos(bytes as u64 * 1_000_000_000 / CLEAN_BYTES_PER_SECOND);
        stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
    };
    match store.clean(clock::now_ms(), &mut pace) {
        Ok(CleanReport { segments_rewritten: 0, .. }) => {}
        Ok(report) => tracing::info!(?report, "rewrote segments"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to clean the log"),
    }
}

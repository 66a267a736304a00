//! The thread that looks for expired records now and then.
//!
//! Owns the interval. What is expired, and how it goes, is the store's.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use storage::{RetentionReport, Store};

use crate::clock;

/// Runs until the other end of `stop` is dropped.
pub(crate) fn run(store: &Store, interval: Duration, stop: &Receiver<()>) {
    while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        match store.run_retention(clock::now_ms()) {
            Ok(RetentionReport { partitions_trimmed: 0, segments_removed: 0, .. }) => {}
            Ok(report) => tracing::info!(?report, "deleted expired records"),
            // What is not deleted now is still expired the next time.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to delete expired records"),
        }
    }
}

//! Instances that wait for the next batch of their transform.
//!
//! Owns which instance serves next: the one that served last, so that few are kept and those are warm. An instance
//! belongs to one transform for ever, and to one batch at a time. One that nobody needed for a while is given up, and
//! when there is no room for another, the one that waited longest is: idle transforms hold nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{clock, instance::PluginInstance};

/// See the module.
#[derive(Default)]
pub(crate) struct Idle {
    /// By transform, the one that served last at the end.
    kept: Mutex<BTreeMap<u64, Vec<Kept>>>,
}

/// In a box, because it goes from hand to hand with every batch.
struct Kept {
    instance: Box<PluginInstance>,
    since: Instant,
}

impl Idle {
    /// The instance of this transform that served last.
    pub(crate) fn take(&self, transform: u64) -> Option<Box<PluginInstance>> {
        let mut kept = self.kept.lock();
        // An empty list stays: the instance most often comes back within the millisecond.
        Some(kept.get_mut(&transform)?.pop()?.instance)
    }

    /// Keeps an instance that served well.
    pub(crate) fn give(&self, transform: u64, instance: Box<PluginInstance>, now: Instant) {
        self.kept.lock().entry(transform).or_default().push(Kept { instance, since: now });
    }

    /// Gives up those of a transform that is gone.
    pub(crate) fn forget(&self, transform: u64) {
        // What is given up is dropped when the lock is free again: unmapping its memory takes a while.
        let _gone = self.kept.lock().remove(&transform);
    }

    /// Gives up all.
    pub(crate) fn clear(&self) {
        let _gone = std::mem::take(&mut *self.kept.lock());
    }

    /// Gives up the one that waited longest; `false` when there is none.
    pub(crate) fn give_up_one(&self) -> bool {
        let given_up = {
            let mut kept = self.kept.lock();
            let firsts = kept.iter().filter_map(|(transform, kept)| Some((*transform, kept.first()?.since)));
            let longest = firsts.min_by_key(|(_, since)| *since);
            longest.and_then(|(transform, _)| Some(kept.get_mut(&transform)?.remove(0)))
        };
        given_up.is_some()
    }

    /// Gives up those that waited so long.
    pub(crate) fn trim(&self, longer_than: Duration) {
        let now = clock::wall();
        let mut gone = Vec::new();
        self.kept.lock().retain(|_, kept| {
            let still = |kept: &Kept| now.saturating_duration_since(kept.since) < longer_than;
            let first_still = kept.iter().position(still).unwrap_or(kept.len());
            gone.extend(kept.drain(..first_still));
            !kept.is_empty()
        });
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.kept.lock().values().map(Vec::len).sum()
    }
}

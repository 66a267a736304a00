//! The newest batches of all partitions, in memory, under one budget: what a reader that keeps up is served from.
//!
//! Owns the order in which they are forgotten. What it holds are the very `Bytes` that were appended; handing them out
//! copies nothing. A slice keeps its whole buffer alive, so callers append buffers of their own size.
//!
//! Invariant: a partition's tail tiles `[some offset, next offset)`, so that an answer from it has no holes.
//!
//! Start at [`Tail`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::{batches, partitions::Partition};

/// What an extent costs beside its bytes.
const OVERHEAD_BYTES: usize = 128;

/// One appended piece of a partition.
#[derive(Debug, Clone)]
pub(crate) struct TailExtent {
    pub(crate) cover_start: u64,
    pub(crate) cover_end: u64,
    pub(crate) batches: Option<Bytes>,
}

impl TailExtent {
    fn cost(&self) -> usize {
        // Allocators round up, by an eighth or so.
        OVERHEAD_BYTES + self.batches.as_ref().map_or(0, |batches| batches.len() + batches.len() / 8)
    }
}

/// A partition's part of it: extents in order of offsets.
pub(crate) type PartitionTail = VecDeque<TailExtent>;

/// First in, first out over all partitions; only the committer has one.
#[derive(Debug)]
pub(crate) struct Tail {
    budget: usize,
    order: VecDeque<(Arc<Partition>, u64, usize)>,
    bytes: Arc<AtomicUsize>,
}

impl Tail {
    pub(crate) fn new(budget: usize, bytes: Arc<AtomicUsize>) -> Self {
        Tail { budget, order: VecDeque::new(), bytes }
    }

    /// Notes an extent that was put into the partition's tail, and forgets the oldest ones beyond the budget.
    pub(crate) fn note(&mut self, partition: &Arc<Partition>, extent: &TailExtent) {
        self.order.push_back((partition.clone(), extent.cover_end, extent.cost()));
        self.bytes.fetch_add(extent.cost(), Ordering::Relaxed);
    }

    /// Forgets the oldest extents until the budget is kept.
    pub(crate) fn shrink(&mut self) {
        while self.bytes.load(Ordering::Relaxed) > self.budget {
            let Some((partition, cover_end, cost)) = self.order.pop_front() else { return };
            partition.forget_tail(cover_end);
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
        }
    }
}

/// What a tail has from an offset on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TailRead {
    pub(crate) batches: Vec<Bytes>,
    pub(crate) next_offset: u64,
}

/// Reads from one partition's tail; `None` when it does not reach back to `from`.
pub(crate) fn read(tail: &PartitionTail, from: u64, max_bytes: usize) -> Option<TailRead> {
    if tail.front().is_none_or(|first| from < first.cover_start) {
        return None;
    }
    let mut answer = TailRead { batches: Vec::new(), next_offset: from };
    let mut left = max_bytes;
    for extent in tail.range(tail.partition_point(|extent| extent.cover_end <= from)..) {
        let Some(run) = &extent.batches else {
            answer.next_offset = extent.cover_end;
            continue;
        };
        // What is in memory was walked when it was appended, so an error cannot come up; the disk would tell.
        let taken = batches::take(run, from, left, answer.batches.is_empty()).ok()?;
        left = left.saturating_sub(taken.batches.len());
        if !taken.batches.is_empty() {
            answer.batches.push(taken.batches);
        }
        answer.next_offset = taken.stopped_at.unwrap_or(extent.cover_end);
        if taken.stopped_at.is_some() || left == 0 {
            break;
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::tests::batch;

    fn tail() -> PartitionTail {
        let batches = Some(Bytes::from(batch(10, 5, 0, 100)));
        let later = Some(Bytes::from([batch(20, 5, 0, 100), batch(25, 5, 0, 100)].concat()));
        [
            TailExtent { cover_start: 10, cover_end: 15, batches },
            TailExtent { cover_start: 15, cover_end: 20, batches: None },
            TailExtent { cover_start: 20, cover_end: 32, batches: later },
        ]
        .into()
    }

    #[test]
    fn reads_step_over_gaps_and_stop_at_the_budget() {
        let sizes = |from, max| {
            let answer = read(&tail(), from, max)?;
            Some((answer.batches.iter().map(Bytes::len).collect::<Vec<_>>(), answer.next_offset))
        };
        assert_eq!(sizes(9, 1000), None);
        assert_eq!(sizes(10, 1000), Some((vec![100, 200], 32)));
        assert_eq!(sizes(12, 1), Some((vec![100], 15)));
        assert_eq!(sizes(12, 200), Some((vec![100, 100], 25)));
        assert_eq!(sizes(16, 1), Some((vec![100], 25)));
        assert_eq!(sizes(30, 1), Some((vec![], 32)));
        assert_eq!(sizes(32, 1), Some((vec![], 32)));
    }
}

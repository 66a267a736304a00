//! How many bytes wait for pipelines, in all partitions and in each.
//!
//! Owns the rule that keeps one partition's slow pipeline from using up what all share: a partition may hold as much as
//! is still free, and always one batch. So one alone gets half, two a third each, and there is always room for another,
//! as large as what each of the others has.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What may wait in all, and what does.
#[derive(Debug, Clone)]
pub(crate) struct Queues {
    bytes_max: usize,
    bytes: Arc<AtomicUsize>,
}

/// What waits in one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queued {
    bytes: Arc<AtomicUsize>,
}

/// A place in a queue, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: [Arc<AtomicUsize>; 2],
    bytes: usize,
}

/// There is no room for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull {
    /// What waits in the partition.
    pub(crate) queued_bytes: usize,
}

impl Queues {
    /// Nothing waits.
    pub(crate) fn new(bytes_max: usize) -> Queues {
        Queues { bytes_max, bytes: Arc::default() }
    }

    /// A place for a batch. Called under one lock, so that what is free stays so.
    pub(crate) fn enter(&self, queue: &Queued, bytes: usize) -> Result<Place, QueueFull> {
        let (queued_bytes, all_bytes) = (queue.bytes.load(Relaxed), self.bytes.load(Relaxed));
        let free_bytes = self.bytes_max.saturating_sub(all_bytes);
        if queued_bytes > 0 && queued_bytes + bytes > free_bytes {
            return Err(QueueFull { queued_bytes });
        }
        let of = [queue.bytes.clone(), self.bytes.clone()];
        of.iter().for_each(|sum| _ = sum.fetch_add(bytes, Relaxed));
        Ok(Place { of, bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.iter().for_each(|sum| _ = sum.fetch_sub(self.bytes, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a queue with batches of this size; returns their places.
    fn fill(queues: &Queues, queue: &Queued, bytes: usize) -> Vec<Place> {
        std::iter::from_fn(|| queues.enter(queue, bytes).ok()).collect()
    }

    #[test]
    fn what_one_leaves_another_may_have() {
        let (queues, queue) = (Queues::new(120), [(); 3].map(|()| Queued::default()));
        let first = fill(&queues, &queue[0], 1);
        assert_eq!(first.len(), 60, "one alone gets half");
        let second = fill(&queues, &queue[1], 1);
        assert_eq!(second.len(), 30);
        assert_eq!(queues.enter(&queue[0], 1).unwrap_err(), QueueFull { queued_bytes: 60 });
        drop(first);
        let second_more = fill(&queues, &queue[1], 1);
        assert_eq!(second.len() + second_more.len(), 60);
        drop((second, second_more));
        assert_eq!(queues.bytes.load(Relaxed), 0);
    }

    #[test]
    fn one_batch_always_has_room() {
        let (queues, queue) = (Queues::new(10), Queued::default());
        let large = queues.enter(&queue, 1_000).unwrap();
        assert!(queues.enter(&queue, 1).is_err());
        assert!(queues.enter(&Queued::default(), 500).is_ok());
        drop(large);
        assert!(queues.enter(&queue, 5).is_ok());
    }
}

//! The partitions as readers and the committer see them: watermarks, the segments they lie in, their tails.
//!
//! Owns this in memory; it is rebuilt from headers, summaries and commit records at start. Only the committer changes
//! watermarks and spans (and recovery, before there is one).
//!
//! Locks, in this order: the map, one partition. None is held while a file is touched.
//!
//! Start at [`Partitions`].

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use protocol::{Offset, PartitionId, Retention};

use crate::{
    PartitionPlace,
    ids::IdMap,
    index::PartitionSpan,
    record::PartitionRow,
    segment::Segment,
    sync::{Mutex, RwLock},
    tail::{PartitionTail, TailExtent},
};

/// Every partition of the store.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    map: RwLock<IdMap<Arc<Partition>>>,
    next_id: AtomicU32,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    state: Mutex<PartitionState>,
}

#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) retention: Retention,
    pub(crate) log_start: u64,
    /// Also the high watermark: it moves when a commit is synced.
    pub(crate) next_offset: u64,
    /// In order of offsets; those wholly before the log start are gone.
    pub(crate) spans: Vec<SegmentSpan>,
    pub(crate) tail: PartitionTail,
}

/// What one segment holds of the partition.
#[derive(Debug, Clone)]
pub(crate) struct SegmentSpan {
    pub(crate) segment: Arc<Segment>,
    pub(crate) span: PartitionSpan,
}

impl Partitions {
    pub(crate) fn get(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.map.read().get(&id).cloned()
    }

    /// Every one, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        let mut all: Vec<_> = self.map.read().values().cloned().collect();
        all.sort_unstable_by_key(|partition| partition.id);
        all
    }

    pub(crate) fn next_id(&self) -> PartitionId {
        PartitionId(self.next_id.load(Ordering::Acquire))
    }

    pub(crate) fn set_next_id(&self, next: PartitionId) {
        self.next_id.fetch_max(next.0, Ordering::AcqRel);
    }

    /// Adds a partition as a snapshot or a creation says it is.
    pub(crate) fn insert(&self, row: PartitionRow) {
        let state = PartitionState {
            retention: row.retention,
            log_start: row.log_start,
            next_offset: row.next_offset,
            spans: Vec::new(),
            tail: PartitionTail::new(),
        };
        self.map.write().insert(row.id, Arc::new(Partition { id: row.id, state: Mutex::new(state) }));
        self.set_next_id(PartitionId(row.id.0.saturating_add(1)));
    }

    pub(crate) fn remove(&self, id: PartitionId) {
        self.map.write().remove(&id);
    }

    /// For a header's snapshot.
    pub(crate) fn rows(&self) -> Vec<PartitionRow> {
        let row = |partition: Arc<Partition>| {
            let state = partition.state.lock();
            let PartitionState { retention, log_start, next_offset, .. } = *state;
            PartitionRow { id: partition.id, retention, log_start, next_offset }
        };
        self.all().into_iter().map(row).collect()
    }

    /// Segments that hold something a reader can still ask for.
    pub(crate) fn living_segments(&self) -> BTreeSet<u64> {
        let mut living = BTreeSet::new();
        for partition in self.all() {
            living.extend(partition.state.lock().spans.iter().map(|span| span.segment.id));
        }
        living
    }
}

impl Partition {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut PartitionState) -> R) -> R {
        f(&mut self.state.lock())
    }

    pub(crate) fn place(&self) -> PartitionPlace {
        let state = self.state.lock();
        PartitionPlace {
            log_start_offset: Offset(state.log_start),
            high_watermark: Offset(state.next_offset),
            bytes: state.spans.iter().map(|span| span.span.bytes).sum(),
            retention: state.retention,
        }
    }

    /// Drops the oldest extent of the tail, if it is still there.
    pub(crate) fn forget_tail(&self, cover_end: u64) {
        let mut state = self.state.lock();
        if state.tail.front().is_some_and(|first| first.cover_end <= cover_end) {
            state.tail.pop_front();
        }
    }
}

impl PartitionState {
    /// The span of the segment that covers `offset`.
    pub(crate) fn span_at(&self, offset: u64) -> Option<&SegmentSpan> {
        let at = self.spans.partition_point(|span| span.span.cover_end <= offset);
        self.spans.get(at).filter(|span| span.span.cover_start <= offset)
    }

    /// Extends the partition by what a commit put into the active segment.
    pub(crate) fn extend(&mut self, segment: &Arc<Segment>, step: PartitionSpan, tail: Vec<TailExtent>) {
        self.tail.extend(tail);
        self.next_offset = step.cover_end;
        match self.spans.last_mut().filter(|last| last.segment.id == segment.id) {
            Some(last) => {
                last.span.cover_end = step.cover_end;
                last.span.bytes += step.bytes;
                last.span.max_timestamp_ms = last.span.max_timestamp_ms.max(step.max_timestamp_ms);
            }
            None => self.spans.push(SegmentSpan { segment: segment.clone(), span: step }),
        }
    }

    /// Puts what one segment holds in the place of what others held.
    pub(crate) fn replace_spans(&mut self, old: &[Arc<Segment>], new: Option<SegmentSpan>) {
        let is_old = |span: &SegmentSpan| old.iter().any(|segment| Arc::ptr_eq(segment, &span.segment));
        let Some(at) = self.spans.iter().position(is_old) else { return };
        self.spans.retain(|span| !is_old(span));
        let log_start = self.log_start;
        self.spans.splice(at..at, new.filter(|new| new.span.cover_end > log_start));
    }

    /// Moves the log start, forgetting what lies wholly before it.
    pub(crate) fn set_log_start(&mut self, offset: u64) {
        self.log_start = self.log_start.max(offset);
        let start = self.log_start;
        self.spans.retain(|span| span.span.cover_end > start);
    }
}

//! Reads sealed segments in the background, a step at a time, and checks what nobody may have asked for in years: a disk
//! that forgets is found out while there is a backup yet.
//!
//! Owns where it is, and what it found. Never decides how fast it goes: whoever drives it waits between the steps, and
//! neither readers nor the committer wait for it. Nothing is mended: what is damaged is refused to readers anyway.
//!
//! Start at [`Scrub::step`].

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    vec,
};

use crate::{
    fault::Fault,
    parts::PartAt,
    segment::Segment,
    store::{Counters, Shared},
};

/// What one step of the scrub did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Bytes that were read.
    pub bytes: u64,
    /// Places that were found damaged, and were not known to be.
    pub damages: usize,
    /// Whether every sealed segment has been read since the last time that this was so.
    pub wrapped: bool,
}

/// Where the scrub is, and what it found.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    cursor: Option<Cursor>,
    /// The last segment that was begun.
    segment: u64,
    found: BTreeSet<Finding>,
}

/// A place that is damaged. The epoch tells a segment from one that was written in its stead.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    segment: u64,
    epoch: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// What the index says of its nth partition.
    Index(usize),
    /// The list of parts in it.
    PartList,
    Part(u64, u16),
}

/// What is left of a segment.
#[derive(Debug)]
struct Cursor {
    segment: Arc<Segment>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// The index from its nth partition on, and then the parts.
    Index(usize),
    Parts(vec::IntoIter<((u64, u16), PartAt)>),
}

impl Scrub {
    /// Reads on, about `bytes_max`, and at least one part if there is any.
    pub(crate) fn step(&mut self, shared: &Shared, bytes_max: usize) -> ScrubProgress {
        let mut progress = ScrubProgress::default();
        while progress.bytes < bytes_max as u64 && !progress.wrapped {
            let Some(mut cursor) = self.cursor.take().filter(|cursor| is_there(shared, &cursor.segment)) else {
                self.begin_next(shared, &mut progress);
                continue;
            };
            if let Some(Checked { place, bytes, result }) = cursor.check_next() {
                progress.bytes += bytes;
                let new = self.note(shared, &cursor.segment, place, result);
                progress.damages += usize::from(new);
                self.cursor = Some(cursor);
            }
        }
        self.count(&shared.counters, progress.bytes);
        progress
    }

    /// Begins the next sealed segment, or says that this was the last one.
    fn begin_next(&mut self, shared: &Shared, progress: &mut ScrubProgress) {
        let segments = shared.segments.read();
        match segments.range(self.segment + 1..).find(|(_, segment)| segment.is_sealed()) {
            Some((id, segment)) => {
                self.segment = *id;
                self.cursor = Some(Cursor { segment: segment.clone(), rest: Rest::Index(0) });
            }
            None => {
                self.segment = 0;
                progress.wrapped = true;
                // Damage goes with its segment.
                self.found.retain(|finding| {
                    segments.get(&finding.segment).is_some_and(|segment| segment.header.epoch == finding.epoch)
                });
            }
        }
    }

    /// Remembers what came of a check; whether it is damage that was not known.
    fn note(&mut self, shared: &Shared, segment: &Arc<Segment>, place: Place, result: Result<(), Fault>) -> bool {
        let finding = Finding { segment: segment.id, epoch: segment.header.epoch, place };
        let Err(fault) = result else {
            self.found.remove(&finding);
            return false;
        };
        // One that was unlinked meanwhile is not damaged.
        let new = is_there(shared, segment) && self.found.insert(finding);
        if new {
            tracing::error!(
                cause = fault.text(),
                ?place,
                "damage was found: what it harms is refused to readers; `weir verify` names it, with the broker stopped"
            );
        }
        new
    }

    fn count(&self, counters: &Counters, bytes: u64) {
        counters.scrubbed_bytes.fetch_add(bytes, Ordering::Relaxed);
        counters.damages.store(self.found.len(), Ordering::Relaxed);
    }
}

/// Whether a segment is still the store's.
fn is_there(shared: &Shared, segment: &Arc<Segment>) -> bool {
    shared.segments.read().get(&segment.id).is_some_and(|there| Arc::ptr_eq(there, segment))
}

/// What came of one place.
struct Checked {
    place: Place,
    bytes: u64,
    result: Result<(), Fault>,
}

impl Cursor {
    /// Checks the next place; `None` at the end.
    fn check_next(&mut self) -> Option<Checked> {
        match &mut self.rest {
            Rest::Index(nth) => {
                let place = Place::Index(*nth);
                *nth += 1;
                match self.segment.check_index(*nth - 1) {
                    Ok(Some(bytes)) => Some(Checked { place, bytes, result: Ok(()) }),
                    Ok(None) => Some(self.list_parts()),
                    Err(fault) => Some(Checked { place, bytes: 0, result: Err(fault) }),
                }
            }
            Rest::Parts(parts) => {
                let ((sequence, part), at) = parts.next()?;
                let result = self.segment.check_part(sequence, part, at);
                Some(Checked { place: Place::Part(sequence, part), bytes: at.bytes.into(), result })
            }
        }
    }

    fn list_parts(&mut self) -> Checked {
        let (parts, result) = match self.segment.parts() {
            Ok(parts) => (parts.into_iter().collect(), Ok(())),
            Err(fault) => (Vec::new(), Err(fault)),
        };
        self.rest = Rest::Parts(parts.into_iter());
        Checked { place: Place::PartList, bytes: 0, result }
    }
}

//! The unanswered batches of one partition, in order: what to send next, and what an answer or a lost stream means.
//!
//! A value without I/O and without a clock: the sender tells it what happened and asks what to do.
//!
//! ```text
//!  push                                              acked / refused for good
//!    |   +----------------- entries, in order ----------------+   ^
//!    +-->| no sequence yet | sequence, not on this stream | on this stream |
//!        +----------------------------------------------------+
//!
//!            attach                  refused                   all answered
//!  Detached ---------> Open --------------------> Draining --------------------> Open (renumbered)
//!      ^                ^                             |  |                       Resting --resume--> Open
//!      |                +-----------------------------+  +---------------------> Forgotten --restart--> Detached
//!      +---- detach, from everywhere
//! ```
//! Invariants
//! - Batches are sent in the order they were pushed, with sequences that follow one another, and again after a refusal
//!   that is not for good or a lost stream: nothing is sent past a batch whose turn it is.
//! - A sequence is changed only when it is certain that no batch from it on is stored: the broker stores a producer's
//!   batches in order, so a batch that was refused proves it for all behind it.
//!
//! Start at [`Window`].

use std::collections::VecDeque;

use protocol::{Sequence, limits::IN_FLIGHT_BATCHES_MAX};

/// See the module.
#[derive(Debug)]
pub(super) struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// What the next batch that has none gets.
    next_sequence: Sequence,
    phase: Phase,
    /// Number of the next frame on this stream.
    next_frame: u64,
    /// Sizes of the frames that are not answered, oldest first.
    frames: VecDeque<usize>,
    in_flight_bytes: usize,
    in_flight_bytes_max: usize,
    /// Entries that are on this stream; the first ones, except while draining.
    sent: usize,
}

#[derive(Debug)]
struct Entry<T> {
    batch: T,
    bytes: usize,
    records: u32,
    sequence: Option<Sequence>,
    frame: Option<u64>,
    /// Sent once without a definite answer: it may be stored.
    in_doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not bound on a stream.
    Detached,
    /// Sending.
    Open,
    /// A batch was refused; what was sent behind it is answered first.
    Draining(After),
    /// Waits before it sends again.
    Resting,
    /// The broker does not know this producer's place any more; it needs a new identity.
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Rest,
    Renumber(Sequence),
    Forgotten,
}

/// What a refusal means for the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Send it again later; `in_doubt` when it may be stored all the same.
    Retry { in_doubt: bool },
    /// It is not stored and never will be.
    Final,
    /// Its sequence is not the one the broker waits for.
    OutOfOrder,
}

/// A frame to send.
#[derive(Debug)]
pub(super) struct Outgoing<'a, T> {
    pub(super) batch: &'a mut T,
    pub(super) sequence: Sequence,
    pub(super) frame: u64,
}

/// A batch that was given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired<T> {
    pub(super) batch: T,
    /// Whether it may be stored.
    pub(super) in_doubt: bool,
}

/// An answer to something that was not asked: the broker breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame {frame} was answered out of place")]
pub(super) struct OutOfPlace {
    frame: u64,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Window {
            entries: VecDeque::new(),
            next_sequence: Sequence(0),
            phase: Phase::Detached,
            next_frame: 0,
            frames: VecDeque::new(),
            in_flight_bytes: 0,
            in_flight_bytes_max: 0,
            sent: 0,
        }
    }
}

impl<T> Window<T> {
    /// Takes a batch in.
    pub(super) fn push(&mut self, batch: T, bytes: usize, records: u32) {
        self.entries.push_back(Entry { batch, bytes, records, sequence: None, frame: None, in_doubt: false });
    }

    /// The partition is bound on a new stream: everything unanswered is sent from the beginning.
    pub(super) fn attach(&mut self, in_flight_bytes_max: usize) {
        assert_eq!(self.phase, Phase::Detached, "a stream binds a partition once");
        self.in_flight_bytes_max = in_flight_bytes_max;
        self.next_frame = 0;
        self.phase = Phase::Open;
    }

    /// The stream is gone: what was on it has no answer.
    pub(super) fn detach(&mut self) {
        for entry in &mut self.entries {
            entry.in_doubt |= entry.frame.take().is_some();
        }
        self.frames.clear();
        (self.sent, self.in_flight_bytes) = (0, 0);
        if let Phase::Draining(After::Renumber(from)) = self.phase {
            self.renumber(from);
        }
        self.phase = Phase::Detached;
    }

    /// The next batch to send, if the window has room; it counts as sent.
    pub(super) fn next(&mut self) -> Option<Outgoing<'_, T>> {
        let has_room = self.frames.len() < IN_FLIGHT_BATCHES_MAX
            && (self.in_flight_bytes < self.in_flight_bytes_max || self.frames.is_empty());
        if self.phase != Phase::Open || !has_room {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        assert!(entry.frame.is_none(), "what was sent comes before what was not");
        let sequence = *entry.sequence.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = sequence.plus(entry.records);
            sequence
        });
        let frame = self.next_frame;
        entry.frame = Some(frame);
        self.next_frame += 1;
        self.frames.push_back(entry.bytes);
        self.in_flight_bytes += entry.bytes;
        self.sent += 1;
        Some(Outgoing { batch: &mut entry.batch, sequence, frame })
    }

    /// The frame's batch is durable. `None` when it was given up before, or one before it is to be sent again: answers
    /// keep the order, so it is sent again as well, and answered alike.
    pub(super) fn acked(&mut self, frame: u64) -> Result<Option<T>, OutOfPlace> {
        let batch = match self.answered(frame)? {
            Some(0) => self.take(0),
            Some(at) => {
                self.entries[at].in_doubt = true;
                self.take_back(at);
                None
            }
            None => None,
        };
        self.settle();
        Ok(batch)
    }

    /// The frame's batch was refused. Returns it when that is for good.
    pub(super) fn refused(&mut self, frame: u64, refusal: Refusal) -> Result<Option<T>, OutOfPlace> {
        let Some(at) = self.answered(frame)? else {
            self.settle();
            return Ok(None);
        };
        let entry = &mut self.entries[at];
        let sequence = entry.sequence.expect("what was sent has a sequence");
        entry.in_doubt |= refusal == Refusal::Retry { in_doubt: true };
        let gone = match (self.phase, refusal) {
            (Phase::Open, Refusal::Final) => {
                self.phase = Phase::Draining(After::Renumber(sequence));
                true
            }
            (Phase::Open, Refusal::Retry { .. }) => {
                self.phase = Phase::Draining(After::Rest);
                false
            }
            (Phase::Open, Refusal::OutOfOrder) => {
                self.phase = Phase::Draining(After::Forgotten);
                false
            }
            (Phase::Draining(After::Renumber(_)), Refusal::Final) => true,
            // A consequence of the first refusal; it gets its own answer when it is sent again.
            _ => false,
        };
        let batch = if gone {
            self.take(at)
        } else {
            self.take_back(at);
            None
        };
        self.settle();
        Ok(batch)
    }

    /// The wait is over.
    pub(super) fn resume(&mut self) {
        if self.phase == Phase::Resting {
            self.phase = Phase::Open;
        }
    }

    /// Gives up the oldest batches, as long as `is_over` says so.
    pub(super) fn expire(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<Expired<T>> {
        let mut expired = Vec::new();
        while self.entries.front().is_some_and(|entry| is_over(&entry.batch)) {
            let entry = self.entries.pop_front().expect("it was looked at");
            let on_stream = entry.frame.is_some();
            self.sent -= usize::from(on_stream);
            let in_doubt = entry.in_doubt || on_stream;
            if let (Some(from), false, true) = (entry.sequence, in_doubt, self.frames.is_empty()) {
                self.renumber(from);
            }
            expired.push(Expired { batch: entry.batch, in_doubt });
        }
        expired
    }

    /// Begins anew for a producer of a new identity. Returns what may be stored under the old one: sending it again
    /// might store it twice.
    pub(super) fn restart(&mut self) -> Vec<T> {
        self.detach();
        // Behind a batch that is certainly not stored, none is.
        let in_doubt = self.entries.iter().take_while(|entry| entry.in_doubt).count();
        let in_doubt = self.entries.drain(..in_doubt).map(|entry| entry.batch).collect();
        self.renumber(Sequence(0));
        in_doubt
    }

    /// Gives everything up.
    pub(super) fn clear(&mut self) -> Vec<Expired<T>> {
        self.expire(|_| true)
    }

    /// Whether nothing is unanswered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it waits for [`Window::resume`].
    pub(super) fn is_resting(&self) -> bool {
        self.phase == Phase::Resting
    }

    /// Whether the producer needs a new identity.
    pub(super) fn is_forgotten(&self) -> bool {
        self.phase == Phase::Forgotten
    }

    /// Whether no frame of this stream waits for its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.frames.is_empty()
    }

    /// The oldest unanswered batch.
    pub(super) fn oldest(&self) -> Option<&T> {
        self.entries.front().map(|entry| &entry.batch)
    }

    /// The sequence a batch pushed now will most likely get.
    pub(super) fn sequence_ahead(&self) -> Sequence {
        let unnumbered = self.entries.iter().rev().take_while(|entry| entry.sequence.is_none());
        unnumbered.fold(self.next_sequence, |sequence, entry| sequence.plus(entry.records))
    }

    /// Takes note of an answer, which must be for the oldest frame. Returns the place of its entry, if it still has one.
    fn answered(&mut self, frame: u64) -> Result<Option<usize>, OutOfPlace> {
        let oldest = self.next_frame - self.frames.len() as u64;
        if frame != oldest {
            return Err(OutOfPlace { frame });
        }
        let bytes = self.frames.pop_front().ok_or(OutOfPlace { frame })?;
        self.in_flight_bytes -= bytes;
        Ok(self.entries.iter().position(|entry| entry.frame == Some(frame)))
    }

    fn take(&mut self, at: usize) -> Option<T> {
        self.sent -= 1;
        self.entries.remove(at).map(|entry| entry.batch)
    }

    /// It is not on the stream any more, and will be sent again.
    fn take_back(&mut self, at: usize) {
        self.entries[at].frame = None;
        self.sent -= 1;
    }

    /// Ends draining when everything sent is answered.
    fn settle(&mut self) {
        let Phase::Draining(after) = self.phase else { return };
        if !self.frames.is_empty() {
            return;
        }
        self.phase = match after {
            After::Rest => Phase::Resting,
            After::Forgotten => Phase::Forgotten,
            After::Renumber(from) => {
                self.renumber(from);
                Phase::Open
            }
        };
    }

    /// Takes the sequences of all entries back; the first one gets `from`.
    fn renumber(&mut self, from: Sequence) {
        assert!(self.frames.is_empty(), "a batch on its way keeps its sequence");
        self.next_sequence = from;
        for entry in &mut self.entries {
            entry.sequence = None;
            entry.in_doubt = false;
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;

//! The unanswered batches of one partition, as the client keeps them: what to send next, and what an answer or a lost
//! connection means.
//!
//! Owns the client's rules (`client/src/producer/window.rs`): in order, the same sequences again after a lost connection,
//! new ones only when it is certain that nothing from there on is stored. Besides, a frame may be sent twice.
//!
//! Start at [`Window`].

use std::collections::VecDeque;

use protocol::{ErrorCode, Sequence};

use super::ledger::BatchId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    next_sequence: Sequence,
    phase: Phase,
    /// What is on the connection and has no answer, oldest first.
    frames: VecDeque<Frame>,
}

#[derive(Debug)]
struct Entry {
    batch: BatchId,
    records: u32,
    sequence: Option<Sequence>,
    is_sent: bool,
    /// Sent once without a definite answer: it may be stored.
    in_doubt: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    batch: BatchId,
    /// It was sent before on the same connection, and that answer counts.
    is_double: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// A batch was refused; what was sent behind it is answered first.
    Draining(After),
    Resting,
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Rest,
    Renumber(Sequence),
    Forgotten,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Acked,
    /// Send it again later; `in_doubt` when it may be stored all the same.
    Retry {
        in_doubt: bool,
    },
    /// It is not stored and never will be.
    Final,
    /// Its sequence is not the one the broker waits for.
    OutOfOrder,
}

impl Reply {
    /// What a client makes of an error.
    pub(super) fn of(code: ErrorCode) -> Reply {
        match code {
            ErrorCode::OutOfOrderSequence => Reply::OutOfOrder,
            ErrorCode::CommitUnknown | ErrorCode::Internal => Reply::Retry { in_doubt: true },
            code if code.is_retryable() => Reply::Retry { in_doubt: false },
            _ => Reply::Final,
        }
    }
}

/// A batch to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) batch: BatchId,
    pub(super) sequence: Sequence,
    /// It was on a connection before.
    pub(super) is_retry: bool,
}

/// What an answer settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Nothing,
    Acked(BatchId),
    Refused(BatchId),
}

impl Window {
    /// Takes a batch in.
    pub(super) fn push(&mut self, batch: BatchId, records: u32) {
        self.entries.push_back(Entry { batch, records, sequence: None, is_sent: false, in_doubt: false });
    }

    /// The next batch to send, if fewer than so many are unanswered.
    pub(super) fn next(&mut self, in_flight_max: usize) -> Option<Outgoing> {
        if self.phase != Phase::Open || self.frames.len() >= in_flight_max {
            return None;
        }
        let entry = self.entries.iter_mut().find(|entry| !entry.is_sent)?;
        let sequence = *entry.sequence.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = sequence.plus(entry.records);
            sequence
        });
        entry.is_sent = true;
        self.frames.push_back(Frame { batch: entry.batch, is_double: false });
        Some(Outgoing { batch: entry.batch, sequence, is_retry: entry.in_doubt })
    }

    /// The batch sent last, once more.
    pub(super) fn double(&mut self) -> Option<Outgoing> {
        let last = self.frames.back().filter(|frame| !frame.is_double && self.phase == Phase::Open)?.batch;
        let entry = self.entries.iter().find(|entry| entry.batch == last)?;
        let outgoing = Outgoing { batch: last, sequence: entry.sequence?, is_retry: true };
        self.frames.push_back(Frame { batch: last, is_double: true });
        Some(outgoing)
    }

    /// The oldest frame is answered.
    pub(super) fn answered(&mut self, reply: Reply) -> Settled {
        let frame = self.frames.pop_front().expect("only what was sent is answered");
        let at = self.entries.iter().position(|entry| entry.batch == frame.batch && entry.is_sent);
        let settled = match at {
            Some(at) if !frame.is_double => self.take_answer(at, reply),
            _ => Settled::Nothing,
        };
        self.settle();
        settled
    }

    fn take_answer(&mut self, at: usize, reply: Reply) -> Settled {
        let batch = self.entries[at].batch;
        let sequence = self.entries[at].sequence.expect("what was sent has a sequence");
        self.entries[at].in_doubt |= reply == (Reply::Retry { in_doubt: true });
        let is_gone = match (self.phase, reply) {
            (_, Reply::Acked) => {
                // One before it is to be sent again: so is this one, and answered alike.
                self.entries[at].in_doubt |= at > 0;
                at == 0
            }
            (Phase::Open, Reply::Final) => {
                self.phase = Phase::Draining(After::Renumber(sequence));
                true
            }
            (Phase::Open, Reply::Retry { .. }) => {
                self.phase = Phase::Draining(After::Rest);
                false
            }
            (Phase::Open, Reply::OutOfOrder) => {
                self.phase = Phase::Draining(After::Forgotten);
                false
            }
            (Phase::Draining(After::Renumber(_)), Reply::Final) => true,
            _ => false,
        };
        if !is_gone {
            self.entries[at].is_sent = false;
            return Settled::Nothing;
        }
        self.entries.remove(at);
        if reply == Reply::Acked { Settled::Acked(batch) } else { Settled::Refused(batch) }
    }

    /// The connection is gone: what was on it has no answer.
    pub(super) fn detach(&mut self) {
        self.frames.clear();
        for entry in &mut self.entries {
            entry.in_doubt |= std::mem::take(&mut entry.is_sent);
        }
        if let Phase::Draining(After::Renumber(from)) = self.phase {
            self.renumber(from);
        }
        self.phase = Phase::Open;
    }

    /// The wait is over.
    pub(super) fn resume(&mut self) {
        if self.phase == Phase::Resting {
            self.phase = Phase::Open;
        }
    }

    /// Begins anew for a producer of a new identity; what may be stored under the old one is given up.
    pub(super) fn restart(&mut self) -> Vec<BatchId> {
        self.detach();
        // Behind a batch that is certainly not stored, none is.
        let in_doubt = self.entries.iter().take_while(|entry| entry.in_doubt).count();
        let in_doubt = self.entries.drain(..in_doubt).map(|entry| entry.batch).collect();
        self.renumber(Sequence(0));
        self.phase = Phase::Open;
        in_doubt
    }

    /// A sequence that the broker cannot be waiting for.
    pub(super) fn sequence_far_ahead(&self) -> Sequence {
        self.next_sequence.plus(1_000_000)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.frames.is_empty()
    }

    pub(super) fn is_resting(&self) -> bool {
        self.phase == Phase::Resting
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.phase == Phase::Forgotten
    }

    pub(super) fn is_answered(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether batches are unanswered, sent or not.
    pub(super) fn has_batches(&self) -> bool {
        !self.entries.is_empty()
    }

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

    fn renumber(&mut self, from: Sequence) {
        assert!(self.frames.is_empty(), "a batch on its way keeps its sequence");
        self.next_sequence = from;
        for entry in &mut self.entries {
            entry.sequence = None;
            entry.in_doubt = false;
        }
    }
}

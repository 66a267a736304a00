//! One partition of a producer on its stream: its window, its binding, its rest after a refusal.
//!
//! Owns the encoding of BIND and PRODUCE. Decides nothing about batches: the window does.
//!
//! Start at [`Part::queue_next`].

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    BatchProducer, Epoch, ErrorCode, ProducerId, RecordBatch, Sequence, TopicPartition, WireError, control,
    frame::{FrameKind, Prefix},
};

use super::{
    accumulator::BatchTicket,
    window::{Refusal, Window},
};
use crate::{
    clock::{self, Backoff, Instant},
    wire,
};

/// Who a producer is to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: Epoch,
}

/// One partition; its index is its handle on the stream.
pub(super) struct Part {
    pub(super) partition: TopicPartition,
    pub(super) window: Window<Queued>,
    pub(super) binding: Binding,
    pub(super) backoff: Backoff,
    /// When it may be bound or sent again after a refusal.
    pub(super) rest_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    Unbound,
    Asked,
    Bound,
}

/// An encoded batch that waits for its answer.
pub(super) struct Queued {
    pub(super) batch: RecordBatch,
    pub(super) ticket: BatchTicket,
}

impl Part {
    pub(super) fn new(partition: TopicPartition, backoff: Backoff) -> Part {
        Part { partition, window: Window::default(), binding: Binding::Unbound, backoff, rest_until: None }
    }

    /// Waits before the next try: as long as the broker says, and ever longer.
    pub(super) fn rest(&mut self, error: &WireError) {
        let asked = Duration::from_millis(error.retry_after_ms.into());
        self.rest_until = Some(clock::now() + self.backoff.wait().max(asked));
    }

    /// Queues its next frame, if it may send one.
    pub(super) fn queue_next(&mut self, handle: u32, identity: Identity, now: Instant, pending: &mut Vec<Bytes>) {
        if self.rest_until.is_some_and(|until| until > now) {
            return;
        }
        self.rest_until = None;
        self.window.resume();
        match self.binding {
            Binding::Unbound if !self.window.is_empty() => {
                let body = control::encode(&self.partition);
                let prefix = Prefix { handle, ..Prefix::new(FrameKind::Bind, b"", &body) };
                pending.push(wire::encode(prefix, b"", &body));
                self.binding = Binding::Asked;
            }
            Binding::Bound => {
                let Some(outgoing) = self.window.next() else { return };
                let batch = outgoing.batch.stamped(identity.at(outgoing.sequence));
                let prefix = Prefix { handle, sequence: outgoing.frame, ..Prefix::new(FrameKind::Produce, b"", batch) };
                pending.push(Bytes::copy_from_slice(&prefix.encode()));
                pending.push(batch.clone());
            }
            _ => {}
        }
    }
}

impl Queued {
    /// The batch with this producer and sequence, which it mostly has already.
    fn stamped(&mut self, producer: BatchProducer) -> &Bytes {
        if self.batch.header().producer() != Some(producer) {
            self.batch = self.batch.clone().with_producer(producer);
        }
        self.batch.bytes()
    }
}

impl Identity {
    pub(super) fn at(self, base_sequence: Sequence) -> BatchProducer {
        BatchProducer { id: self.id, epoch: self.epoch, base_sequence }
    }
}

impl Refusal {
    pub(super) fn of(error: &WireError) -> Refusal {
        match error.code {
            ErrorCode::OutOfOrderSequence => Refusal::OutOfOrder,
            // The broker is broken in a way it does not know, or does not know what its disk did.
            ErrorCode::CommitUnknown | ErrorCode::Internal => Refusal::Retry { in_doubt: true },
            code if code.is_retryable() => Refusal::Retry { in_doubt: false },
            _ => Refusal::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_no_writes_is_waited_for_as_long_as_the_broker_says() {
        for code in [ErrorCode::DiskFull, ErrorCode::ReadOnly] {
            let error = WireError { retry_after_ms: 60_000, ..WireError::new(code, "the disk is full") };
            assert_eq!(Refusal::of(&error), Refusal::Retry { in_doubt: false }, "nothing was written");
            let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
            let partition = TopicPartition { topic: "clicks".parse().unwrap(), partition: 0 };
            let mut part = Part::new(partition, backoff);
            let before = clock::now();
            part.rest(&error);
            assert!(part.rest_until.unwrap() >= before + Duration::from_secs(60));
        }
    }
}

//! A producer's connection: what is on its way to the broker, what the broker has, and the answers on their way back.
//!
//! Owns no rule. Requests are offered in order when they are due, and everything is forgotten with it.
//!
//! Start at [`Link`].

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::broker::{Broker, Partition, ProduceTicket};
use protocol::{PartitionId, ProduceAnswer, RecordBatch, TopicPartition, WireError};

use super::{ledger::BatchId, world::Life, world::now};

/// A connection.
pub(super) struct Link {
    pub(super) life: u64,
    pub(super) broker: Broker,
    pub(super) partitions: Vec<Option<Arc<Partition>>>,
    pub(super) outbox: VecDeque<Request>,
    /// By partition, oldest first.
    pub(super) in_broker: Vec<VecDeque<Offered>>,
    pub(super) strays: Vec<Offered>,
    pub(super) stalled_until: Duration,
}

/// A batch on its way to the broker.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) lane: usize,
    pub(super) batch: BatchId,
    pub(super) encoded: RecordBatch,
    pub(super) due: Duration,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Numbered {
        is_retry: bool,
        is_double: bool,
    },
    /// It must be refused, for this reason.
    Bad(&'static str),
    /// It has no producer, and is sent once.
    Loose,
}

/// A batch that the broker has.
pub(super) struct Offered {
    pub(super) batch: BatchId,
    pub(super) partition: Option<PartitionId>,
    pub(super) kind: Kind,
    pub(super) offered_at: Duration,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    Waited(ProduceTicket),
    /// On its way back until then.
    Given(Result<ProduceAnswer, WireError>, Duration),
}

/// Why a batch must be refused.
pub(super) const GAP: &str = "a gap in the sequences";
pub(super) const UNREADABLE: &str = "records that cannot be read";

impl Link {
    /// A connection to a broker, for so many partitions.
    pub(super) fn new(life: Life, partitions: usize) -> Link {
        Link {
            life: life.number,
            broker: life.broker,
            partitions: vec![None; partitions],
            outbox: VecDeque::new(),
            in_broker: (0..partitions).map(|_| VecDeque::new()).collect(),
            strays: Vec::new(),
            stalled_until: Duration::ZERO,
        }
    }

    /// The partition of a number, which is looked up once.
    pub(super) fn partition(&mut self, number: usize, place: &TopicPartition) -> Result<Arc<Partition>, WireError> {
        if let Some(partition) = &self.partitions[number] {
            return Ok(partition.clone());
        }
        let partition = self.broker.partition(place)?;
        self.partitions[number] = Some(partition.clone());
        Ok(partition)
    }

    /// The next request that has arrived.
    pub(super) fn arrived(&mut self) -> Option<Request> {
        let at = now();
        let is_due = self.outbox.front().is_some_and(|request| request.due <= at && self.stalled_until <= at);
        if is_due { self.outbox.pop_front() } else { None }
    }

    /// The next answer of a partition that has arrived.
    pub(super) fn answered(&mut self, number: usize) -> Option<Offered> {
        let at = now();
        let is_there = |offered: &Offered| matches!(offered.answer, Answer::Given(_, given) if given <= at);
        let is_next = self.stalled_until <= at && self.in_broker[number].front().is_some_and(is_there);
        if is_next { self.in_broker[number].pop_front() } else { None }
    }

    /// The strays that are answered.
    pub(super) fn answered_strays(&mut self) -> Vec<Offered> {
        let is_answered = |stray: &Offered| matches!(stray.answer, Answer::Given(..));
        let (answered, waiting) = std::mem::take(&mut self.strays).into_iter().partition(is_answered);
        self.strays = waiting;
        answered
    }

    /// How many requests are lost with it, how many answers, and how many batches have none.
    pub(super) fn at_stake(&self) -> (usize, usize, usize) {
        let is_answered = |offered: &&Offered| matches!(offered.answer, Answer::Given(..));
        let all = || self.in_broker.iter().flatten();
        (self.outbox.len(), all().filter(is_answered).count(), all().count())
    }
}

impl Offered {
    /// Looks whether the broker has answered; the answer is on its way for so long. `true` if it was given just now.
    pub(super) fn look(&mut self, delay: Duration) -> bool {
        let Answer::Waited(ticket) = &mut self.answer else { return false };
        match Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                self.answer = Answer::Given(outcome.map_err(WireError::from), now() + delay);
                true
            }
            Poll::Pending => false,
        }
    }

    /// Since when it waits for the broker, if it does.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        matches!(self.answer, Answer::Waited(_)).then_some(self.offered_at)
    }
}

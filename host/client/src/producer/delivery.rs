//! What became of a record: the handle a program waits on, and the answer.
//!
//! One cell per batch holds the answer and everybody who waits for it, so a record costs no allocation of its own.
//!
//! Start at [`DeliveryHandle`] and [`BatchHandle`].

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use protocol::{Books, Offset, RecordError, TopicPartition};

use crate::error::ProduceError;

/// The answer to one batch: it is durable, and this became of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchDelivery {
    /// Where it went.
    pub partition: TopicPartition,
    /// First offset the batch covers: the identity of its first record.
    pub base_offset: Offset,
    /// First offset after those it covers.
    pub next_offset: Offset,
    /// What became of its records.
    pub books: Books,
    /// The records a transform refused, by index.
    pub rejects: Vec<RecordError>,
}

/// The answer to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    batch: Arc<BatchDelivery>,
    index: u32,
}

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The broker took it over durably: it is stored, or the topic's pipeline dropped or dead-lettered it. The
    /// [books](BatchDelivery::books) of its batch count which.
    Accepted,
    /// A transform refused it; it is not stored.
    Rejected(&'a RecordError),
}

impl Delivery {
    /// Where the record went.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.batch.partition
    }

    /// Its offset: where it is stored when no transform changed its place, and what dead letters and logs call it by.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.batch.base_offset.0.saturating_add(self.index.into()).min(Offset::MAX.0))
    }

    /// Its index in the batch it travelled in.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The answer to the whole batch.
    #[must_use]
    pub fn batch(&self) -> &BatchDelivery {
        &self.batch
    }

    /// What became of the record.
    #[must_use]
    pub fn outcome(&self) -> Outcome<'_> {
        match self.batch.rejects.iter().find(|reject| reject.index == self.index) {
            Some(reject) => Outcome::Rejected(reject),
            None => Outcome::Accepted,
        }
    }
}

/// Ready when the record's batch is answered. Dropping it does not take the record back.
#[must_use = "a record may be refused or time out; wait for it, or call `flush`"]
pub struct DeliveryHandle {
    ticket: Ticket,
    index: u32,
}

/// Ready when the batch is answered. Dropping it does not take the batch back.
#[must_use = "a batch may be refused or time out; wait for it, or call `flush`"]
pub struct BatchHandle {
    ticket: Ticket,
}

impl DeliveryHandle {
    pub(super) fn new(cell: Arc<Cell>, index: u32) -> DeliveryHandle {
        DeliveryHandle { ticket: Ticket { cell, slot: None }, index }
    }
}

impl BatchHandle {
    pub(super) fn new(cell: Arc<Cell>) -> BatchHandle {
        BatchHandle { ticket: Ticket { cell, slot: None } }
    }
}

impl Future for DeliveryHandle {
    type Output = Result<Delivery, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index;
        self.ticket.poll(cx).map_ok(|batch| Delivery { batch, index })
    }
}

impl Future for BatchHandle {
    type Output = Result<Arc<BatchDelivery>, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ticket.poll(cx)
    }
}

impl fmt::Debug for DeliveryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryHandle").field("index", &self.index).finish_non_exhaustive()
    }
}

impl fmt::Debug for BatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchHandle").finish_non_exhaustive()
    }
}

type Answer = Result<Arc<BatchDelivery>, ProduceError>;

/// A batch's answer, once there is one, and who waits for it.
#[derive(Default)]
pub(super) struct Cell {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    waiting: Vec<Option<Waker>>,
}

impl Cell {
    /// Gives the answer; the first one counts.
    pub(super) fn complete(&self, answer: Answer) {
        let waiting = {
            let mut state = self.state.lock();
            state.answer.get_or_insert(answer);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

/// One waiter's place at a cell.
struct Ticket {
    cell: Arc<Cell>,
    slot: Option<usize>,
}

impl Ticket {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.cell.state.lock();
        if let Some(answer) = &state.answer {
            return Poll::Ready(answer.clone());
        }
        let slot = *self.slot.get_or_insert_with(|| {
            state.waiting.push(None);
            state.waiting.len() - 1
        });
        match &mut state.waiting[slot] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && let Some(waiting) = self.cell.state.lock().waiting.get_mut(slot)
        {
            *waiting = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(rejects: Vec<RecordError>) -> BatchDelivery {
        let partition = TopicPartition { topic: "t".parse().unwrap(), partition: 0 };
        let books = Books { records_in: 3, kept: 2, stored: 2, rejected: 1, ..Books::default() };
        BatchDelivery { partition, base_offset: Offset(7), next_offset: Offset(10), books, rejects }
    }

    #[tokio::test]
    async fn all_who_wait_get_the_answer_and_those_who_left_are_forgotten() {
        let cell = Arc::new(Cell::default());
        let mut handles: Vec<_> = (0..3).map(|index| DeliveryHandle::new(Arc::clone(&cell), index)).collect();
        let mut left = handles.remove(0);
        tokio::select! {
            biased;
            _ = &mut left => panic!("there is no answer yet"),
            () = std::future::ready(()) => drop(left),
        }
        let reject = RecordError { index: 1, code: 9, text: "no".into() };
        let waiting: Vec<_> = handles.into_iter().map(tokio::spawn).collect();
        tokio::task::yield_now().await;
        cell.complete(Ok(Arc::new(delivery(vec![reject.clone()]))));
        let mut offsets = Vec::new();
        for task in waiting {
            let delivery = task.await.unwrap().unwrap();
            let rejected = delivery.outcome() == Outcome::Rejected(&reject);
            assert_eq!(rejected, delivery.index() == 1);
            offsets.push(delivery.offset());
        }
        assert_eq!(offsets, [Offset(8), Offset(9)]);
    }
}

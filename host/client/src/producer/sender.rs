//! The producer's background task: one stream at a time, every partition's window on it.
//!
//! Owns the producer's identity, the windows and the stream. Decides nothing about order or retries of batches: the
//! windows do ([`super::window`]).
//!
//! Invariant: every batch taken from the accumulator is answered exactly once, at the latest when the task ends.
//!
//! Start at [`Sender::run`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    ErrorCode, Offset, TopicPartition, WireError,
    control::{self, Request, Response},
    frame::{Ack, Bound, FrameKind, ProducerOpen},
};

use super::{
    accumulator::{ClosedBatch, Shared},
    delivery::BatchDelivery,
    part::{Binding, Identity, Part, Queued},
    window::{OutOfPlace, Refusal},
};
use crate::{
    clock::{self, Instant},
    error::ProduceError,
    link::Link,
    request::LastTry,
    session::{RequestError, Session},
    wire::{self, Frame, FrameReader, StreamError},
};

/// How much is queued for the stream at once: enough to keep it busy, little enough that a new batch is soon on its way.
const PENDING_BYTES: usize = 1 << 20;

/// When nothing is due.
const LONG: Duration = Duration::from_secs(3_600);

pub(super) struct Sender {
    link: Link,
    shared: Arc<Shared>,
    identity: Option<Identity>,
    parts: Vec<Part>,
    /// The partition whose turn it is.
    turn: usize,
    /// What the last try ended with, for a timeout.
    last: LastTry,
}

/// A producer stream that was opened.
struct Live {
    session: Arc<Session>,
    identity: Identity,
    send: quinn::SendStream,
    receive: FrameReader,
    pending: Vec<Bytes>,
}

/// Why a stream was left.
enum Leave {
    /// Everything is answered and nothing will follow.
    Finished,
    /// It broke; everything unanswered goes on the next one.
    Lost(String),
    /// The broker does not remember this producer: a new identity is needed.
    Forgotten,
    /// Nothing can be sent any more.
    Stopped(ProduceError),
}

impl From<StreamError> for Leave {
    fn from(error: StreamError) -> Self {
        Leave::Lost(error.to_string())
    }
}

impl From<OutOfPlace> for Leave {
    fn from(error: OutOfPlace) -> Self {
        Leave::Lost(error.to_string())
    }
}

impl Sender {
    pub(super) fn new(link: Link, shared: Arc<Shared>) -> Sender {
        let last = LastTry::without_code("nothing was tried");
        Sender { link, shared, identity: None, parts: Vec::new(), turn: 0, last }
    }

    /// Works until the producer is closed and everything is answered.
    pub(super) async fn run(mut self) {
        let mut backoff = self.link.backoff();
        loop {
            let live = match self.connect().await {
                Ok(live) => live,
                Err(leave) => match self.leave(leave) {
                    Some(()) => {
                        self.rest(backoff.wait()).await;
                        continue;
                    }
                    None => return,
                },
            };
            self.identity = Some(live.identity);
            let opened = clock::now();
            let leave = self.serve(live).await;
            if self.leave(leave).is_none() {
                return;
            }
            // A stream that held for a while was a good one; one that breaks at once is waited for ever longer.
            if clock::now() - opened > self.link.config().retry_wait_max {
                backoff.reset();
            }
            self.rest(backoff.wait()).await;
        }
    }

    /// Draws the consequences; `None` when the task is over.
    fn leave(&mut self, leave: Leave) -> Option<()> {
        for part in &mut self.parts {
            part.window.detach();
            part.binding = Binding::Unbound;
        }
        match leave {
            Leave::Finished => None,
            Leave::Lost(reason) => {
                tracing::debug!(reason, "producer stream lost");
                self.last = LastTry::without_code(reason);
                Some(())
            }
            Leave::Forgotten => {
                tracing::warn!("the broker does not remember this producer; it gets a new identity");
                self.identity = None;
                for part in &mut self.parts {
                    let error = ProduceError::OutcomeUnknown { partition: part.partition.clone() };
                    for queued in part.window.restart() {
                        self.shared.answer(&queued.ticket, Err(error.clone()));
                    }
                }
                Some(())
            }
            Leave::Stopped(error) => {
                self.stop(&error);
                None
            }
        }
    }

    /// Fails everything and takes nothing more.
    fn stop(&mut self, error: &ProduceError) {
        for (_, closed) in self.shared.stop(error.clone()) {
            self.shared.answer(&closed.ticket, Err(error.clone()));
        }
        for part in &mut self.parts {
            for expired in part.window.clear() {
                self.shared.answer(&expired.batch.ticket, Err(error.clone()));
            }
        }
    }

    /// Waits for work, then for a stream; meanwhile batches age.
    async fn connect(&mut self) -> Result<Live, Leave> {
        while !self.shared.has_work() {
            if self.shared.is_finished() {
                return Err(Leave::Finished);
            }
            self.shared.work.notified().await;
        }
        let opening = open(self.link.clone(), self.identity);
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                () = self.tend() => {}
            }
            if self.shared.is_finished() {
                return Err(Leave::Finished);
            }
        }
    }

    async fn rest(&mut self, wait: Duration) {
        let until = clock::now() + wait;
        while clock::now() < until && !self.shared.is_finished() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.tend() => {}
            }
        }
    }

    /// What goes on without a stream: closes and collects batches, gives up those that are too old. Returns when
    /// something may have changed. Cancellation safe.
    async fn tend(&mut self) {
        self.collect();
        self.expire();
        tokio::select! {
            () = tokio::time::sleep_until(self.next_due()) => {}
            () = self.shared.work.notified() => {}
        }
        self.collect();
        self.expire();
    }

    /// Takes closed batches from the accumulator into the windows, encoded.
    fn collect(&mut self) {
        for (part, closed) in self.shared.take_closed(clock::now()) {
            while self.parts.len() <= part {
                let partition = self.shared.partition(self.parts.len());
                self.parts.push(Part::new(partition, self.link.backoff()));
            }
            let window = &mut self.parts[part].window;
            let ClosedBatch { content, ticket } = closed;
            // Right unless something goes wrong; then the batch is stamped again when it is sent.
            let producer = self.identity.map(|identity| identity.at(window.sequence_ahead()));
            match content.seal(producer) {
                Ok(batch) => {
                    let (bytes, records) = (batch.bytes().len(), batch.header().record_count);
                    window.push(Queued { batch, ticket }, bytes, records);
                }
                Err(error) => self.shared.answer(&ticket, Err(error.into())),
            }
        }
    }

    /// Gives up batches whose time is over.
    fn expire(&mut self) {
        let now = clock::now();
        let waited = self.shared.config.delivery_timeout;
        for part in &mut self.parts {
            for expired in part.window.expire(|queued| queued.ticket.deadline <= now) {
                let trouble = self.link.trouble().map(LastTry::without_code);
                let LastTry { text: last, code } = trouble.unwrap_or_else(|| self.last.clone());
                let error = ProduceError::TimedOut { waited, sent: expired.in_doubt, last, code };
                self.shared.answer(&expired.batch.ticket, Err(error));
            }
        }
    }

    /// When time alone changes something: a batch is old enough to close, too old to keep, or may be sent again.
    fn next_due(&self) -> Instant {
        let of_parts = self.parts.iter().filter(|part| !part.window.is_empty()).flat_map(|part| {
            let deadline = part.window.oldest().map(|queued| queued.ticket.deadline);
            deadline.into_iter().chain(part.rest_until)
        });
        of_parts.chain(self.shared.next_linger()).min().unwrap_or_else(|| clock::now() + LONG)
    }

    /// Sends and takes answers until the stream has to be left.
    async fn serve(&mut self, mut live: Live) -> Leave {
        let link = self.link.clone();
        let session = Arc::clone(&live.session);
        let replaced = link.replaced(&session);
        tokio::pin!(replaced);
        let timer = tokio::time::sleep(LONG);
        tokio::pin!(timer);
        loop {
            self.collect();
            self.expire();
            if let Some(leave) = self.fill(&mut live) {
                if matches!(leave, Leave::Finished) {
                    let _ = live.send.finish();
                }
                return leave;
            }
            let due = self.next_due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let step = tokio::select! {
                frame = live.receive.next() => self.take_frames(frame, &mut live.receive),
                written = live.send.write_chunks(&mut live.pending), if !live.pending.is_empty() => match written {
                    Ok(written) => {
                        live.pending.drain(..written.chunks);
                        Ok(())
                    }
                    Err(error) => Err(Leave::Lost(error.to_string())),
                },
                () = self.shared.work.notified() => Ok(()),
                () = &mut timer => Ok(()),
                () = &mut replaced => Err(Leave::Lost("another connection took over".to_owned())),
            };
            if let Err(leave) = step {
                return leave;
            }
        }
    }

    /// Queues what may be sent now, a batch of each partition in turn.
    fn fill(&mut self, live: &mut Live) -> Option<Leave> {
        if self.shared.is_finished() {
            return Some(Leave::Finished);
        }
        if self.parts.iter().any(|part| part.window.is_forgotten()) {
            // What is on its way is answered first: only then is it certain what the old identity has stored.
            return self.parts.iter().all(|part| part.window.is_answered()).then_some(Leave::Forgotten);
        }
        let now = clock::now();
        let mut pending_bytes: usize = live.pending.iter().map(Bytes::len).sum();
        let mut idle = 0;
        while idle < self.parts.len() && pending_bytes < PENDING_BYTES {
            let handle = self.turn % self.parts.len();
            self.turn = handle + 1;
            let before = live.pending.len();
            self.parts[handle].queue_next(handle as u32, live.identity, now, &mut live.pending);
            let queued: usize = live.pending[before..].iter().map(Bytes::len).sum();
            pending_bytes += queued;
            idle = if queued == 0 { idle + 1 } else { 0 };
        }
        None
    }

    /// Takes a frame, and those that arrived with it.
    fn take_frames(&mut self, first: Result<Frame, StreamError>, receive: &mut FrameReader) -> Result<(), Leave> {
        self.take_frame(&first?)?;
        while let Some(frame) = receive.buffered()? {
            self.take_frame(&frame)?;
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame) -> Result<(), Leave> {
        let out_of_place = || Leave::Lost(format!("the broker sent {:?} out of place", frame.prefix.kind));
        let part = self.parts.get_mut(frame.prefix.handle as usize).ok_or_else(out_of_place)?;
        match frame.prefix.kind {
            FrameKind::Bound if part.binding == Binding::Asked => {
                let bound = Bound::decode(&frame.header);
                part.binding = Binding::Bound;
                part.window.attach(bound.in_flight_bytes as usize);
                Ok(())
            }
            FrameKind::Ack => {
                let rejects = match frame.body.is_empty() {
                    true => Vec::new(),
                    false => control::decode(&frame.body).map_err(|error| Leave::Lost(error.to_string()))?,
                };
                let ack = Ack::decode(&frame.header);
                if ack.base_offset > ack.next_offset || ack.next_offset > Offset::MAX.0 {
                    return Err(Leave::Lost("the broker gave an offset that is none".to_owned()));
                }
                let acked = part.window.acked(frame.prefix.sequence)?;
                part.backoff.reset();
                if let Some(queued) = acked {
                    let delivery = BatchDelivery {
                        partition: part.partition.clone(),
                        base_offset: Offset(ack.base_offset),
                        next_offset: Offset(ack.next_offset),
                        books: ack.books(),
                        rejects,
                    };
                    self.shared.answer(&queued.ticket, Ok(delivery));
                }
                Ok(())
            }
            FrameKind::Error => {
                let error: WireError = control::decode(&frame.body).map_err(|error| Leave::Lost(error.to_string()))?;
                self.take_error(frame.prefix.handle as usize, frame.prefix.sequence, error)
            }
            _ => Err(out_of_place()),
        }
    }

    /// A BIND or PRODUCE was refused.
    fn take_error(&mut self, handle: usize, sequence: u64, error: WireError) -> Result<(), Leave> {
        if error.code == ErrorCode::ProducerFenced {
            return Err(Leave::Stopped(ProduceError::Fenced));
        }
        self.last = LastTry { text: error.text.clone(), code: Some(error.code) };
        let part = &mut self.parts[handle];
        let refusal = Refusal::of(&error);
        let refused =
            |partition: &TopicPartition| ProduceError::Refused { partition: partition.clone(), error: error.clone() };
        if part.binding == Binding::Asked {
            part.binding = Binding::Unbound;
            if refusal == Refusal::Final {
                let answer = refused(&part.partition);
                for expired in part.window.clear() {
                    self.shared.answer(&expired.batch.ticket, Err(answer.clone()));
                }
            } else {
                part.rest(&error);
            }
            return Ok(());
        }
        if let Some(queued) = part.window.refused(sequence, refusal)? {
            let answer = refused(&part.partition);
            self.shared.answer(&queued.ticket, Err(answer));
        }
        if part.window.is_resting() {
            part.rest(&error);
        }
        Ok(())
    }
}

impl Drop for Sender {
    /// Also when the task is cancelled with its runtime: nobody waits for an answer that cannot come.
    fn drop(&mut self) {
        self.stop(&ProduceError::Closed);
    }
}

/// Opens a producer stream on the current connection, under this identity or a new one.
async fn open(link: Link, identity: Option<Identity>) -> Result<Live, Leave> {
    let session = link.session().await.map_err(|_| Leave::Stopped(ProduceError::Closed))?;
    let identity = match identity {
        Some(identity) => identity,
        None => match session.request(&Request::InitProducer).await.map_err(lost)? {
            Response::Producer(id, epoch) => Identity { id, epoch },
            _ => return Err(Leave::Lost("the broker gave no producer id".to_owned())),
        },
    };
    let mut stream = session.stream().await.map_err(lost)?;
    let header = ProducerOpen { producer_id: identity.id.0, epoch: identity.epoch.0 }.encode();
    let frame = wire::frame(FrameKind::ProducerOpen, &header, b"");
    stream.send.write_all(&frame).await.map_err(|error| Leave::Lost(error.to_string()))?;
    let answer = stream.receive.next().await?;
    match answer.prefix.kind {
        FrameKind::ProducerOpened => {}
        FrameKind::Error => return Err(not_opened(&answer)),
        kind => return Err(Leave::Lost(format!("the broker answered PRODUCER_OPEN with {kind:?}"))),
    }
    Ok(Live { session, identity, send: stream.send, receive: stream.receive, pending: Vec::new() })
}

fn lost(error: RequestError) -> Leave {
    Leave::Lost(error.to_string())
}

fn not_opened(answer: &Frame) -> Leave {
    match control::decode::<WireError>(&answer.body) {
        Ok(error) if error.code == ErrorCode::ProducerFenced => Leave::Stopped(ProduceError::Fenced),
        Ok(error) => Leave::Lost(error.text),
        Err(error) => Leave::Lost(error.to_string()),
    }
}

//! The QUIC listener, hop 3 of a produced record: PRODUCE frames in, batches to their partitions, answers back.
//!
//! Owns how much may be in flight: per handle (`in_flight_bytes_per_handle`) and in the whole broker (the ingest budget,
//! from which a frame's whole length is reserved before its body is read, and to which it returns with the answer). Where
//! the budget is spent nobody is read; QUIC's windows then hold back the clients. Never looks at a record; a batch is
//! checked by its CRC and handed over.
//!
//! ```text
//! stream -> frames.rs: prefix -> budget -> body -> RecordBatch -> Partition::produce -> ticket
//!    ^                                                                                   |
//!    +------------------------------ answers.rs: in order per handle <-------------------+
//! ```
//!
//! The other files of the folder: `endpoint.rs` (socket and accept loop), `control.rs`, `fetch.rs`, `admin.rs`,
//! `subscription.rs`.
//!
//! Start at [`serve_producer`].

pub(crate) mod admin;
mod answers;
pub(crate) mod control;
pub(crate) mod endpoint;
mod fetch;
pub(crate) mod frames;
pub(crate) mod subscription;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use broker::{Partition, ProduceError};
use bytes::Bytes;
use protocol::{
    Epoch, ErrorCode, ProducerId, RecordBatch, TopicPartition, WireError,
    frame::{Bound, FrameKind, Prefix, ProducerOpen},
    limits::{HANDLES_PER_PRODUCER_MAX, PRODUCER_STREAMS_PER_CONNECTION_MAX},
};
use quinn::SendStream;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use self::{
    answers::{Answer, Produced, Unanswered},
    frames::{Address, Frame, FrameReader, code, end, end_with_error, frame},
};
use crate::{
    producers::Lease,
    session::{Session, StreamEnd, decode_body},
};

/// Frames handed from the reading to the answering side of a stream; small, because the answering side queues them.
const HANDED_OVER_MAX: usize = 256;
/// Before pushes, so that answers return while a subscription is served at full speed; behind control.
const PRIORITY: i32 = 1;

/// Serves one producer stream whose first frame is `first`.
pub(crate) async fn serve_producer(
    session: &Arc<Session>,
    first: Frame,
    mut reader: FrameReader,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let opened = ProducerOpen::decode(&first.header);
    let Ok(_slot) = session.producer_streams.clone().try_acquire_owned() else {
        let text = format!(
            "connection has `producer_streams_per_connection_max` ({PRODUCER_STREAMS_PER_CONNECTION_MAX}) producer streams"
        );
        let error = WireError::new(ErrorCode::LimitExceeded, text);
        return end_with_error(&mut send, Address::default(), &error).await;
    };
    let lease = match session.shared.producers.open(ProducerId(opened.producer_id), Epoch(opened.epoch)) {
        Ok(lease) => lease,
        Err(fenced) => {
            let error = WireError::new(ErrorCode::ProducerFenced, fenced.to_string());
            return end_with_error(&mut send, Address::default(), &error).await;
        }
    };
    // A stream that is gone already has no priority.
    let _ = send.set_priority(PRIORITY);
    send.write_chunk(frame(FrameKind::ProducerOpened, Address::default(), &[], &[])).await?;
    let (answers, unanswered) = mpsc::channel(HANDED_OVER_MAX);
    let producer = Producer { session, lease: &lease, handles: Vec::new(), answers };
    let served = tokio::select! {
        biased;
        () = lease.lost() => Err(StreamEnd::Lost),
        served = async {
            tokio::try_join!(producer.read(&mut reader), answers::write(&mut send, unanswered, session.shared.stall_max()))
        } => served.map(|_| ()),
    };
    // What is in flight is stored or not; who sends the same batches again learns it.
    let reset = match served {
        _ if lease.is_lost() => Some(ErrorCode::ProducerFenced),
        // Only a peer that stalled is still there to see it.
        Err(StreamEnd::Lost) => Some(ErrorCode::Cancelled),
        _ => None,
    };
    match reset {
        Some(reason) => {
            let _ = send.reset(code(reason));
            let _ = reader.stream().stop(code(reason));
        }
        None if served.is_ok() => end(&mut send).await,
        None => {}
    }
    served
}

/// The reading side of a producer stream.
struct Producer<'a> {
    session: &'a Session,
    lease: &'a Lease,
    /// By number, which clients choose small and dense.
    handles: Vec<Option<HandleState>>,
    answers: mpsc::Sender<Unanswered>,
}

/// A bound topic-partition.
#[derive(Clone)]
struct HandleState {
    partition: Arc<Partition>,
    /// Produce bytes without an answer yet.
    in_flight: Arc<AtomicUsize>,
}

impl Producer<'_> {
    /// Reads frames until the client ends the stream or the broker drains. What has arrived by then is still taken.
    async fn read(mut self, reader: &mut FrameReader) -> Result<(), StreamEnd> {
        loop {
            let prefix = tokio::select! {
                biased;
                prefix = reader.prefix() => prefix?,
                () = self.session.draining() => None,
            };
            let Some(prefix) = prefix else { return Ok(()) };
            let address = Address { sequence: prefix.sequence, handle: prefix.handle };
            let answer = match prefix.kind {
                FrameKind::Produce => self.produce(&prefix, reader).await?,
                FrameKind::Bind => {
                    let place = decode_body(&self.body(reader).await?)?;
                    self.bind(prefix.handle, &place).unwrap_or_else(Answer::Refused)
                }
                kind => return Err(StreamEnd::out_of_place(kind)),
            };
            self.answers.send(Unanswered { address, answer }).await.map_err(|_| StreamEnd::Lost)?;
        }
    }

    /// The rest of the frame in hand; a peer that leaves it half sent holds what was reserved for it, so it has its time.
    async fn body(&self, reader: &mut FrameReader) -> Result<Frame, StreamEnd> {
        match timeout(self.session.shared.stall_max(), reader.body()).await {
            Ok(frame) => Ok(frame?),
            Err(_) => Err(StreamEnd::Lost),
        }
    }

    fn bind(&mut self, handle: u32, place: &TopicPartition) -> Result<Answer, WireError> {
        let index = handle as usize;
        if index >= HANDLES_PER_PRODUCER_MAX {
            let text = format!("handle {handle} is not below `handles_per_producer_max` ({HANDLES_PER_PRODUCER_MAX})");
            return Err(WireError::new(ErrorCode::LimitExceeded, text));
        }
        let partition = self.session.shared.broker.partition(place)?;
        let producer = partition.producer_place(self.lease.producer());
        let bound = Bound {
            next_sequence: producer.map_or(-1, |producer| producer.next_sequence.0.into()),
            high_watermark: partition.place().map_or(0, |place| place.high_watermark.0),
            in_flight_bytes: self.session.shared.config.ingest.in_flight_bytes_per_handle,
        };
        if self.handles.len() <= index {
            self.handles.resize(index + 1, None);
        }
        // Bound again, a handle keeps its account: what is in flight on it stays in flight.
        let in_flight = self.handles[index].take().map(|handle| handle.in_flight).unwrap_or_default();
        self.handles[index] = Some(HandleState { partition, in_flight });
        Ok(Answer::Bound(bound))
    }

    /// Takes one batch: budget, body, checks, hand-over.
    async fn produce(&self, prefix: &Prefix, reader: &mut FrameReader) -> Result<Answer, StreamEnd> {
        let frame_bytes = prefix.body_bytes;
        let ingest = self.session.shared.ingest.clone();
        let permit = ingest.acquire_many_owned(frame_bytes).await.expect("the semaphore is never closed");
        let body = self.body(reader).await?.body;
        let handed_over = match self.handle(prefix.handle) {
            Ok(handle) => self.hand_over(handle, body, permit),
            Err(error) => Err(error),
        };
        Ok(handed_over.unwrap_or_else(Answer::Refused))
    }

    /// The handle of a batch, if it may have one more in flight.
    fn handle(&self, handle: u32) -> Result<&HandleState, WireError> {
        let Some(Some(state)) = self.handles.get(handle as usize) else {
            return Err(WireError::new(ErrorCode::InvalidRequest, format!("handle {handle} is not bound")));
        };
        let (in_flight, limit) =
            (state.in_flight.load(Ordering::Relaxed), self.session.shared.config.ingest.in_flight_bytes_per_handle);
        // Overrun by one batch, so that a batch larger than the limit can be sent at all.
        if in_flight >= limit as usize {
            let text = format!(
                "handle {handle} has {in_flight} bytes unanswered, not below `in_flight_bytes_per_handle` ({limit})"
            );
            return Err(WireError::new(ErrorCode::LimitExceeded, text));
        }
        Ok(state)
    }

    fn hand_over(&self, handle: &HandleState, body: Bytes, permit: OwnedSemaphorePermit) -> Result<Answer, WireError> {
        let bytes = body.len();
        let batch = RecordBatch::decode(body).map_err(ProduceError::Batch)?;
        self.check_producer(&batch)?;
        let ticket = self
            .lease
            .while_held(|| handle.partition.produce(batch))
            .ok_or_else(|| WireError::new(ErrorCode::ProducerFenced, "a newer stream of this producer took over"))?;
        handle.in_flight.fetch_add(bytes, Ordering::Relaxed);
        Ok(Answer::Produced(Produced { ticket, bytes, in_flight: handle.in_flight.clone(), permit }))
    }

    /// A stream writes for one producer: fencing would mean nothing otherwise.
    fn check_producer(&self, batch: &RecordBatch) -> Result<(), WireError> {
        let (header, lease) = (batch.header(), self.lease);
        let (id, epoch) = (header.producer_id as u64, header.producer_epoch as u16);
        if (id, epoch) == (lease.producer().0, lease.epoch().0) {
            return Ok(());
        }
        let text = format!(
            "batch of producer {id}, epoch {epoch}, on the stream of producer {}, epoch {}",
            lease.producer().0,
            lease.epoch().0
        );
        Err(WireError::new(ErrorCode::InvalidRequest, text))
    }
}

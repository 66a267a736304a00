//! One partition's reader task: keeps a subscription open, or asks again and again, across reconnects.
//!
//! Owns the place to go on at. Never skips and never repeats: that place moves with what was handed to the feed, and a
//! new stream begins there.
//!
//! Start at [`Reader::run`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    TopicPartition, WireError,
    control::{self, OffsetSpec, Request, Response},
    frame::{Credit, Fetch, FrameKind, Place, Subscribe},
    limits::FETCH_BYTES_MAX,
};

use super::feed::{Feed, Item};
use crate::{
    clock::Backoff,
    config::DeliveryMode,
    error::ConsumeError,
    link::Link,
    session::{RequestError, Session, Stream},
    wire::{self, Frame, StreamError},
};

/// How long a fetch waits at the broker for new records.
const FETCH_WAIT_MS: u32 = 10_000;

/// What a fetch asks for at most; smaller than a frame, so that records are handed on while the next ones travel.
const FETCH_BYTES: u64 = 1 << 20;

pub(super) struct Reader {
    link: Link,
    partition: TopicPartition,
    /// Where the next stream begins.
    from: OffsetSpec,
    feed: Arc<Feed>,
    backoff: Backoff,
    started: bool,
}

/// Why a stream or request ended.
enum Stop {
    /// The connection, or something else that passes.
    Lost(Duration),
    /// For good.
    Failed(ConsumeError),
}

impl From<StreamError> for Stop {
    fn from(_: StreamError) -> Self {
        Stop::Lost(Duration::ZERO)
    }
}

impl Reader {
    pub(super) fn new(link: Link, partition: TopicPartition, from: OffsetSpec, feed: Arc<Feed>) -> Reader {
        let backoff = link.backoff();
        Reader { link, partition, from, feed, backoff, started: false }
    }

    /// Reads until it is aborted or cannot go on.
    pub(super) async fn run(mut self, mode: DeliveryMode) {
        loop {
            let Ok(session) = self.link.session().await else {
                self.feed.push(Item::Failed(ConsumeError::Closed));
                return;
            };
            let subscription = match mode {
                DeliveryMode::Push => self.link.subscription(),
                DeliveryMode::Pull => None,
            };
            let stop = match &subscription {
                Some(_) => self.subscribe(&session).await,
                None => self.fetch(&session).await,
            };
            drop((session, subscription));
            match stop {
                Stop::Failed(error) => {
                    self.feed.push(Item::Failed(error));
                    return;
                }
                Stop::Lost(wait) => tokio::time::sleep(self.backoff.wait().max(wait)).await,
            }
        }
    }

    /// Reads by a subscription until it ends.
    async fn subscribe(&mut self, session: &Arc<Session>) -> Stop {
        let mut stream = match session.stream().await {
            Ok(stream) => stream,
            Err(error) => return self.stop(error),
        };
        let mut pending = vec![self.subscribe_frame()];
        let link = self.link.clone();
        let replaced = link.replaced(session);
        tokio::pin!(replaced);
        loop {
            if let Some(bytes) = self.feed.more_credit() {
                pending.push(wire::frame(FrameKind::Credit, &Credit { bytes }.encode(), b""));
            }
            let Stream { send, receive } = &mut stream;
            let step = tokio::select! {
                frame = receive.next() => self.take_frame(frame),
                written = send.write_chunks(&mut pending), if !pending.is_empty() => match written {
                    Ok(written) => {
                        pending.drain(..written.chunks);
                        Ok(())
                    }
                    // The reading side knows why.
                    Err(_) => {
                        pending.clear();
                        Ok(())
                    }
                },
                () = self.feed.taken() => Ok(()),
                () = &mut replaced => Err(Stop::Lost(Duration::ZERO)),
            };
            if let Err(stop) = step {
                stream.receive.stop();
                return stop;
            }
        }
    }

    fn subscribe_frame(&self) -> Bytes {
        let (from, offset, timestamp_ms) = match self.from {
            OffsetSpec::Beginning => (0, 0, 0),
            OffsetSpec::End => (1, 0, 0),
            OffsetSpec::At(offset) => (2, offset.0, 0),
            OffsetSpec::Timestamp(timestamp_ms) => (3, 0, timestamp_ms),
        };
        let credit_bytes = self.feed.first_credit();
        let header = Subscribe { from, reserved: 0, offset, timestamp_ms, credit_bytes }.encode();
        wire::frame(FrameKind::Subscribe, &header, &control::encode(&self.partition))
    }

    fn take_frame(&mut self, frame: Result<Frame, StreamError>) -> Result<(), Stop> {
        let frame = frame?;
        match frame.prefix.kind {
            FrameKind::Subscribed => self.start(Place::decode(&frame.header)),
            FrameKind::Batch => self.hand_over(Place::decode(&frame.header), frame.body),
            FrameKind::Gap => self.hand_over(Place::decode(&frame.header), Bytes::new()),
            FrameKind::Error => {
                let error = control::decode(&frame.body).map_err(|_| Stop::Lost(Duration::ZERO))?;
                return Err(self.stop(RequestError::Refused(error)));
            }
            // END: the broker is going away. Anything else: it is broken; another stream may not be.
            _ => return Err(Stop::Lost(Duration::ZERO)),
        }
        Ok(())
    }

    /// Reads by fetches until one fails.
    async fn fetch(&mut self, session: &Session) -> Stop {
        loop {
            let step = match self.from {
                OffsetSpec::At(_) => self.fetch_once(session).await,
                place => self.find(session, place).await,
            };
            if let Err(error) = step {
                return self.stop(error);
            }
        }
    }

    /// Turns the place to begin into an offset.
    async fn find(&mut self, session: &Session, place: OffsetSpec) -> Result<(), RequestError> {
        match session.request(&Request::FindOffset(self.partition.clone(), place)).await? {
            Response::Offset(offset) => {
                self.from = OffsetSpec::At(offset);
                Ok(())
            }
            _ => Err(RequestError::WrongAnswer),
        }
    }

    async fn fetch_once(&mut self, session: &Session) -> Result<(), RequestError> {
        let OffsetSpec::At(offset) = self.from else { unreachable!("the place was found before") };
        let room = loop {
            match self.feed.first_credit() {
                0 => self.feed.taken().await,
                room => break room,
            }
        };
        let max_bytes = room.min(FETCH_BYTES).min(FETCH_BYTES_MAX as u64) as u32;
        // The first answer comes at once: it says where the end is.
        let wait_ms = if self.started { FETCH_WAIT_MS } else { 0 };
        let fetch = Fetch { offset: offset.0, max_bytes, min_bytes: 1, wait_ms };
        let fetched = session.fetch(&fetch, &self.partition).await?;
        if !self.started {
            self.start(Place { next_offset: offset.0, ..fetched.place });
        }
        self.hand_over(fetched.place, fetched.batches);
        Ok(())
    }

    /// The broker says where reading begins. A later stream begins where the one before ended, which is no news.
    fn start(&mut self, place: Place) {
        self.backoff.reset();
        self.from = OffsetSpec::At(place.next());
        if !self.started {
            self.started = true;
            self.feed.push(Item::Started(place));
        }
    }

    fn hand_over(&mut self, place: Place, batches: Bytes) {
        self.backoff.reset();
        self.from = OffsetSpec::At(place.next());
        self.feed.push(if batches.is_empty() { Item::Gap(place) } else { Item::Batches { place, batches } });
    }

    fn stop(&self, error: RequestError) -> Stop {
        match error {
            RequestError::Refused(error) if !error.code.is_retryable() => Stop::Failed(self.refused(error)),
            error => Stop::Lost(error.retry_after()),
        }
    }

    fn refused(&self, error: WireError) -> ConsumeError {
        ConsumeError::Refused { partition: self.partition.clone(), error }
    }
}

//! One partition of a consumer, on the program's side: cuts what arrived into batches and knows the place.
//!
//! Invariants
//! - The position only grows, and is behind everything that was handed out.
//! - Bytes are given back when the program comes for what follows them: until then they are its own.
//!
//! Start at [`Partition::take`].

use std::sync::Arc;

use bytes::Bytes;
use protocol::{BatchError, Offset, RecordBatch, TopicPartition, control::OffsetSpec, frame::Place};
use tokio::task::AbortHandle;

use super::{
    batch::ConsumedBatch,
    feed::{Arrivals, Feed, Item},
    reader::Reader,
};
use crate::{
    config::{ConsumerConfig, Until},
    error::ConsumeError,
    link::Link,
};

pub(super) struct Partition {
    name: TopicPartition,
    feed: Arc<Feed>,
    task: AbortHandle,
    until: Until,
    /// Behind what the program has had. `None` before the broker said where reading begins.
    position: Option<Offset>,
    high_watermark: Option<Offset>,
    /// Where reading ends.
    end: Option<Offset>,
    open: Option<Open>,
    failed: bool,
}

/// A frame's batches that are being handed out.
struct Open {
    place: Place,
    rest: Bytes,
    /// What they count as credit.
    bytes: u64,
}

impl Partition {
    pub(super) fn start(
        link: Link,
        name: TopicPartition,
        from: OffsetSpec,
        config: &ConsumerConfig,
        arrivals: Arc<Arrivals>,
        room: u64,
    ) -> Partition {
        let feed = Arc::new(Feed::new(arrivals, room));
        let reader = Reader::new(link, name.clone(), from, Arc::clone(&feed));
        let task = tokio::spawn(reader.run(config.delivery)).abort_handle();
        Partition {
            name,
            feed,
            task,
            until: config.until,
            position: None,
            high_watermark: None,
            end: None,
            open: None,
            failed: false,
        }
    }

    pub(super) fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub(super) fn position(&self) -> Option<Offset> {
        self.position
    }

    pub(super) fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// The program has had everything before `to`.
    pub(super) fn advance(&mut self, to: Offset) {
        self.position = self.position.max(Some(to));
    }

    /// Whether everything up to the end we know of was handed out.
    pub(super) fn is_at_end(&self) -> bool {
        self.position.is_some() && self.position >= self.high_watermark
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.failed || (self.end.is_some() && self.position >= self.end)
    }

    /// The next batch, if one is there. Its caller advances the position as it hands out what is in it.
    pub(super) fn take(&mut self) -> Option<Result<ConsumedBatch, ConsumeError>> {
        while !self.is_over() {
            match self.next_open() {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(cause) => return Some(Err(self.damaged(cause))),
            }
            match self.feed.pop()? {
                Item::Started(place) => self.started(place),
                Item::Gap(place) => self.covered(place),
                Item::Batches { place, batches } => {
                    self.high_watermark = Some(Offset(place.high_watermark));
                    self.open = Some(Open { place, bytes: batches.len() as u64, rest: batches });
                }
                Item::Failed(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        // At the end: the broker need not push what nobody will read.
        self.task.abort();
        None
    }

    /// The next batch of the open frame that has something the program has not had.
    fn next_open(&mut self) -> Result<Option<ConsumedBatch>, BatchError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let position = self.position.unwrap_or_default();
        while let Some(batch) = RecordBatch::split_first(&mut open.rest)? {
            if let Some(end) = self.end.filter(|end| batch.header().base_offset >= *end) {
                // Came later than the end we stop at, which lies in the gap before it.
                self.advance(end);
                return Ok(None);
            }
            if batch.next_offset() > position && batch.header().record_count > 0 {
                let high_watermark = Offset(open.place.high_watermark);
                return ConsumedBatch::open(&self.name, batch, position, high_watermark).map(Some);
            }
        }
        let Open { place, bytes, .. } = *open;
        self.open = None;
        self.feed.give_back(bytes);
        self.covered(place);
        Ok(None)
    }

    fn started(&mut self, place: Place) {
        self.position = Some(place.next());
        self.high_watermark = Some(Offset(place.high_watermark));
        if self.until == Until::End {
            self.end = self.high_watermark;
        }
    }

    fn covered(&mut self, place: Place) {
        self.advance(place.next());
        self.high_watermark = Some(Offset(place.high_watermark));
    }

    fn damaged(&mut self, cause: BatchError) -> ConsumeError {
        self.failed = true;
        self.task.abort();
        ConsumeError::Damaged { partition: self.name.clone(), offset: self.position.unwrap_or_default(), cause }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! FETCH: a reader pulls, and may wait for data.
//!
//! Owns the wait: answered when `min_bytes` are there, the wait is over, or the broker drains. Holds no batches while it
//! waits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    Offset, TopicPartition, WireError, frame,
    frame::{FrameKind, Place},
    limits::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX},
};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    control::Answer,
    frames::{Address, Frame, batches_frame},
};
use crate::session::{Session, StreamEnd, decode_body};

/// Answers with batches that one connection may hold at a time: one is written while the next is read.
pub(super) const ANSWERS_MAX: usize = 2;

/// A fetch as it was asked for, within its limits.
#[derive(Debug)]
pub(super) struct Request {
    of: TopicPartition,
    from: Offset,
    max_bytes: usize,
    min_bytes: usize,
    wait: Duration,
}

impl Request {
    pub(super) fn decode(frame: &Frame) -> Result<Request, StreamEnd> {
        let header = frame::Fetch::decode(&frame.header);
        let max_bytes = (header.max_bytes as usize).min(FETCH_BYTES_MAX);
        Ok(Request {
            of: decode_body(frame)?,
            from: Offset(header.offset),
            max_bytes,
            // More than `max_bytes` would never be there.
            min_bytes: (header.min_bytes as usize).min(max_bytes),
            wait: Duration::from_millis(header.wait_ms.min(FETCH_WAIT_MS_MAX).into()),
        })
    }
}

/// Reads what a fetch asks for, and waits for it if need be.
pub(super) async fn answer(
    session: &Session,
    budget: &Arc<Semaphore>,
    sequence: u64,
    request: &Request,
) -> Result<Answer, WireError> {
    let partition = session.shared.broker.partition(&request.of)?;
    let over = async {
        tokio::select! {
            () = sleep(request.wait) => {}
            () = session.draining() => {}
        }
    };
    tokio::pin!(over);
    let (mut from, mut waiting) = (request.from, !request.wait.is_zero());
    loop {
        let permit = budget.clone().acquire_owned().await.expect("the semaphore is never closed");
        let read = partition.fetch(from, request.max_bytes).await?;
        let bytes: usize = read.batches.iter().map(Bytes::len).sum();
        if bytes >= request.min_bytes || !waiting {
            let place = Place { next_offset: read.next_offset.0, high_watermark: read.high_watermark.0 };
            let chunks = batches_frame(FrameKind::Fetched, Address::sequence(sequence), &place.encode(), read.batches);
            return Ok(Answer { chunks, permit: Some(permit) });
        }
        if bytes == 0 {
            // Nothing but gaps so far: they need not be read again.
            from = read.next_offset;
        }
        drop(permit);
        tokio::select! {
            moved = partition.wait_for(read.high_watermark) => moved?,
            () = &mut over => waiting = false,
        }
    }
}

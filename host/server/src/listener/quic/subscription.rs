//! Subscription streams: one partition, pushed to its reader as far as credit goes.
//!
//! Owns a cursor and a credit, and at zero credit nothing else. Each push is read, written, and forgotten. A frame says
//! where the reader is behind it and how far it could be; where nothing passes, GAP says so.
//!
//! ```text
//! SUBSCRIBE -> SUBSCRIBED -> { BATCH | GAP }*, CREDIT* meanwhile -> CANCEL -> END
//! ```
//!
//! Start at [`serve`].

use std::sync::Arc;

use broker::{FetchError, Partition, ReadOutcome, UnknownTopicOrPartition};
use bytes::Bytes;
use protocol::{
    ErrorCode, Offset, TopicPartition, WireError,
    control::OffsetSpec,
    frame::{Credit, FrameKind, Place, Subscribe},
    limits::CREDIT_BYTES_MAX,
};
use quinn::SendStream;

use super::frames::{Address, Frame, FrameReadError, FrameReader, batches_frame, end, end_with_error, frame};
use crate::session::{Session, StreamEnd, decode_body};

/// What is read and pushed at once; the first batch even if it is larger.
const PUSH_BYTES: u64 = 1 << 20;

/// Serves one subscription stream whose first frame is `first`.
pub(crate) async fn serve(
    session: &Session,
    first: Frame,
    reader: FrameReader,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let served = match Subscription::open(session, &first, reader).await {
        Ok((mut subscription, place)) => {
            send.write_chunk(frame(FrameKind::Subscribed, Address::default(), &place.encode(), &[])).await?;
            subscription.push(session, &mut send).await
        }
        Err(end) => Err(end),
    };
    match served {
        Ok(()) => {
            send.write_chunk(frame(FrameKind::End, Address::default(), &[], &[])).await?;
            end(&mut send).await;
            Ok(())
        }
        Err(SubscriptionEnd::Refused(error)) => end_with_error(&mut send, Address::default(), &error).await,
        Err(SubscriptionEnd::Stream(end)) => Err(end),
    }
}

/// Why a subscription ends without being cancelled.
enum SubscriptionEnd {
    /// There is nothing (more) to read; the client is told.
    Refused(WireError),
    /// The client broke the protocol, or is gone.
    Stream(StreamEnd),
}

impl From<FetchError> for SubscriptionEnd {
    fn from(error: FetchError) -> Self {
        SubscriptionEnd::Refused(error.into())
    }
}

impl From<UnknownTopicOrPartition> for SubscriptionEnd {
    fn from(error: UnknownTopicOrPartition) -> Self {
        SubscriptionEnd::Refused(error.into())
    }
}

impl From<FrameReadError> for SubscriptionEnd {
    fn from(error: FrameReadError) -> Self {
        SubscriptionEnd::Stream(error.into())
    }
}

impl From<quinn::WriteError> for SubscriptionEnd {
    fn from(error: quinn::WriteError) -> Self {
        SubscriptionEnd::Stream(error.into())
    }
}

impl From<StreamEnd> for SubscriptionEnd {
    fn from(end: StreamEnd) -> Self {
        SubscriptionEnd::Stream(end)
    }
}

/// A reader's place in a partition.
struct Subscription {
    partition: Arc<Partition>,
    /// The offset to read next.
    next: Offset,
    client: Client,
}

/// What the client says while it reads.
struct Client {
    reader: FrameReader,
    /// Bytes that may still be pushed. One push may overrun it; what it took too much is a debt, so that a client that
    /// grants what it was done with never has more on its way than it granted.
    credit: i64,
}

impl Subscription {
    async fn open(
        session: &Session,
        first: &Frame,
        reader: FrameReader,
    ) -> Result<(Subscription, Place), SubscriptionEnd> {
        let place: TopicPartition = decode_body(first)?;
        let subscribe = Subscribe::decode(&first.header);
        let from = match subscribe.from {
            0 => OffsetSpec::Beginning,
            1 => OffsetSpec::End,
            2 => OffsetSpec::At(Offset(subscribe.offset)),
            3 => OffsetSpec::Timestamp(subscribe.timestamp_ms),
            from => {
                return Err(StreamEnd::violation(format!("a subscription cannot begin from {from}")).into());
            }
        };
        let mut client = Client { reader, credit: 0 };
        client.add_credit(subscribe.credit_bytes)?;
        let partition = session.shared.broker.partition(&place)?;
        let next = partition.find_offset(from).await?;
        let high_watermark = partition.place().ok_or(FetchError::PartitionGone)?.high_watermark.0;
        let subscribed = Place { next_offset: next.0, high_watermark };
        Ok((Subscription { partition, next, client }, subscribed))
    }

    /// Pushes until the client cancels.
    async fn push(&mut self, session: &Session, send: &mut SendStream) -> Result<(), SubscriptionEnd> {
        let Subscription { partition, next, client } = self;
        loop {
            let read = {
                // Read once whatever the client says meanwhile: a read that every CREDIT begins anew may never end.
                let read = read(partition, *next, client.credit_left().min(PUSH_BYTES));
                tokio::pin!(read);
                let credit_before = client.credit_left();
                loop {
                    tokio::select! {
                        read = &mut read => break read?,
                        said = client.listen() => match said? {
                            Said::Cancel => return Ok(()),
                            // The read that waits for credit has to learn of it.
                            Said::Credit if credit_before == 0 => break None,
                            Said::Credit => {}
                        },
                        () = session.draining() => return Err(shutting_down()),
                    }
                }
            };
            let Some(read) = read else { continue };
            let place = Place { next_offset: read.next_offset.0, high_watermark: read.high_watermark.0 };
            let bytes: usize = read.batches.iter().map(Bytes::len).sum();
            *next = read.next_offset;
            client.credit -= bytes as i64;
            let mut chunks = match bytes {
                0 => vec![frame(FrameKind::Gap, Address::default(), &place.encode(), &[])],
                _ => batches_frame(FrameKind::Batch, Address::default(), &place.encode(), read.batches),
            };
            // The frame is written to its end even where the client cancels in its middle.
            let write = send.write_all_chunks(&mut chunks);
            tokio::pin!(write);
            let mut cancelled = false;
            loop {
                tokio::select! {
                    written = &mut write => break written?,
                    said = client.listen(), if !cancelled => cancelled = matches!(said?, Said::Cancel),
                }
            }
            if cancelled {
                return Ok(());
            }
        }
    }
}

/// What is there from `next` on, a gap included; waits for it. Without credit only the partition's end is waited for.
async fn read(partition: &Partition, next: Offset, credit: u64) -> Result<Option<ReadOutcome>, FetchError> {
    if credit == 0 {
        partition.wait_for(Offset::MAX).await?;
    }
    loop {
        let read = partition.fetch(next, credit as usize).await?;
        if read.next_offset > next {
            return Ok(Some(read));
        }
        partition.wait_for(next).await?;
    }
}

enum Said {
    Credit,
    Cancel,
}

impl Client {
    /// Waits for the client's next word. Can be cancelled.
    async fn listen(&mut self) -> Result<Said, SubscriptionEnd> {
        let Some(frame) = self.reader.frame().await? else { return Ok(Said::Cancel) };
        match frame.prefix.kind {
            FrameKind::Credit => {
                self.add_credit(Credit::decode(&frame.header).bytes)?;
                Ok(Said::Credit)
            }
            FrameKind::Cancel => Ok(Said::Cancel),
            kind => Err(StreamEnd::out_of_place(kind).into()),
        }
    }

    fn credit_left(&self) -> u64 {
        u64::try_from(self.credit).unwrap_or(0)
    }

    fn add_credit(&mut self, bytes: u64) -> Result<(), SubscriptionEnd> {
        self.credit = self.credit.saturating_add_unsigned(bytes);
        if self.credit <= CREDIT_BYTES_MAX as i64 {
            return Ok(());
        }
        let text = format!("credit of {} bytes is above `credit_bytes_max` ({CREDIT_BYTES_MAX})", self.credit);
        Err(SubscriptionEnd::Refused(WireError::new(ErrorCode::LimitExceeded, text)))
    }
}

fn shutting_down() -> SubscriptionEnd {
    SubscriptionEnd::Refused(WireError::new(ErrorCode::ShuttingDown, "the broker is going away"))
}

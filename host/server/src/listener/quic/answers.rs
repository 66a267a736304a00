//! The answering side of a producer stream: in order per handle, whichever handle is done first.
//!
//! Owns the queues of what is unanswered. Answers that are done together leave in one write. A client that does not read
//! its answers stops being served after a bounded number of them, and loses the stream after a time.
//!
//! Start at [`write()`].

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use broker::{ProduceError, ProduceTicket};
use bytes::{Buf, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use protocol::{
    ProduceAnswer, RecordError, WireError, control,
    frame::{Ack, Bound, FrameKind},
    limits::{CONTROL_BODY_BYTES_MAX, FRAMES_IN_FLIGHT_PER_PRODUCER_MAX},
};
use quinn::SendStream;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use super::frames::{Address, put_error, put_frame};
use crate::session::StreamEnd;

/// Answers that wait for the stream, in bytes; past it no more are taken from the partitions.
const OUT_BYTES_MAX: usize = 256 << 10;

/// A frame of the stream that has no answer yet.
pub(super) struct Unanswered {
    pub(super) address: Address,
    pub(super) answer: Answer,
}

/// What a frame is answered with.
pub(super) enum Answer {
    /// BOUND.
    Bound(Bound),
    /// ERROR: it was not handed over.
    Refused(WireError),
    /// ACK or ERROR, when it is known.
    Produced(Produced),
}

/// A batch that a partition has.
pub(super) struct Produced {
    pub(super) ticket: ProduceTicket,
    pub(super) bytes: usize,
    /// The account of its handle.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// What it holds of the ingest budget.
    #[expect(dead_code, reason = "held until it is dropped, never read")]
    pub(super) permit: OwnedSemaphorePermit,
}

/// Writes the answers of everything that `unanswered` brings, until it is closed and all is answered.
pub(super) async fn write(
    send: &mut SendStream,
    mut unanswered: mpsc::Receiver<Unanswered>,
    stall_max: Duration,
) -> Result<(), StreamEnd> {
    let (mut answers, mut out, mut open) = (Answers::default(), BytesMut::new(), true);
    while open || answers.count > 0 || !out.is_empty() {
        tokio::select! {
            // First all that is new and all that is done, then one write for it.
            biased;
            frame = unanswered.recv(), if open && answers.has_room() && out.len() < OUT_BYTES_MAX => match frame {
                Some(frame) => answers.push(frame, &mut out),
                None => open = false,
            },
            Some(first) = answers.firsts.next(), if out.len() < OUT_BYTES_MAX => answers.done(first, &mut out),
            written = timeout(stall_max, send.write(&out)), if !out.is_empty() => match written {
                Ok(written) => out.advance(written?),
                Err(_) => return Err(StreamEnd::Lost),
            },
        }
    }
    Ok(())
}

/// What is unanswered, by handle.
#[derive(Default)]
struct Answers {
    /// The oldest batch of each handle that has one.
    firsts: FuturesUnordered<First>,
    /// What came behind it.
    behind: BTreeMap<u32, VecDeque<Unanswered>>,
    /// All of them.
    count: usize,
}

impl Answers {
    fn has_room(&self) -> bool {
        self.count < FRAMES_IN_FLIGHT_PER_PRODUCER_MAX
    }

    fn push(&mut self, frame: Unanswered, out: &mut BytesMut) {
        self.count += 1;
        match self.behind.get_mut(&frame.address.handle) {
            Some(behind) => behind.push_back(frame),
            None => self.begin(frame, out),
        }
    }

    /// Waits for a frame that is now the first of its handle, or answers it where the answer is known. The handle has a
    /// queue in `behind` as long as something of it is waited for.
    fn begin(&mut self, frame: Unanswered, out: &mut BytesMut) {
        let Unanswered { address, answer } = frame;
        match answer {
            Answer::Bound(bound) => {
                put_frame(out, FrameKind::Bound, address, &bound.encode(), &[]);
                self.count -= 1;
            }
            Answer::Refused(error) => {
                put_error(out, address, &error);
                self.count -= 1;
            }
            Answer::Produced(produced) => {
                self.behind.entry(address.handle).or_default();
                self.firsts.push(First { address, produced });
            }
        }
    }

    /// Answers the first of its handle and goes on to the next that has to be waited for.
    fn done(&mut self, done: Done, out: &mut BytesMut) {
        put_outcome(out, done.address, done.outcome);
        self.count -= 1;
        let handle = done.address.handle;
        let mut behind = self.behind.remove(&handle).unwrap_or_default();
        while let Some(next) = behind.pop_front() {
            self.begin(next, out);
            if let Some(queue) = self.behind.get_mut(&handle) {
                *queue = behind;
                return;
            }
        }
    }
}

/// The oldest batch of a handle, until its ticket says what became of it.
struct First {
    address: Address,
    produced: Produced,
}

/// What became of it.
struct Done {
    address: Address,
    outcome: Result<ProduceAnswer, ProduceError>,
}

impl Future for First {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let outcome = ready!(Pin::new(&mut self.produced.ticket).poll(context));
        // The permit goes back to the ingest budget when the finished future is dropped, right behind this.
        self.produced.in_flight.fetch_sub(self.produced.bytes, Ordering::Relaxed);
        Poll::Ready(Done { address: self.address, outcome })
    }
}

fn put_outcome(out: &mut BytesMut, address: Address, outcome: Result<ProduceAnswer, ProduceError>) {
    match outcome {
        Ok(answer) => {
            let rejects = if answer.rejects.is_empty() { Vec::new() } else { encode_rejects(&answer.rejects) };
            put_frame(out, FrameKind::Ack, address, &ack(&answer).encode(), &rejects);
        }
        Err(error) => put_error(out, address, &WireError::from(&error)),
    }
}

fn ack(answer: &ProduceAnswer) -> Ack {
    // Inputs are below 2^20; outputs are bounded by what a guest may return for a batch.
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ack {
        base_offset: answer.base_offset.0,
        next_offset: answer.next_offset.0,
        records_in: count(answer.books.records_in),
        kept: count(answer.books.kept),
        stored: count(answer.books.stored),
        dropped: count(answer.books.dropped),
        dead_lettered: count(answer.books.dead_lettered),
        rejected: count(answer.books.rejected),
    }
}

/// As many of the rejected records, from the first, as fit a control body.
fn encode_rejects(rejects: &Vec<RecordError>) -> Vec<u8> {
    let whole = control::encode(rejects);
    if whole.len() <= CONTROL_BODY_BYTES_MAX {
        return whole;
    }
    // The head of the list takes 9 bytes at most.
    let mut bytes = 9;
    let fits = |reject: &&RecordError| {
        bytes += control::encode(*reject).len();
        bytes <= CONTROL_BODY_BYTES_MAX
    };
    control::encode(&rejects.iter().take_while(fits).cloned().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_rejects_is_cut_to_what_a_client_reads() {
        let reject = |index| RecordError { index, code: 1, text: "x".repeat(4_000) };
        for (count, all) in [(1, true), (200, true), (1_000, false)] {
            let rejects: Vec<_> = (0..count).map(reject).collect();
            let read: Vec<RecordError> = control::decode(&encode_rejects(&rejects)).unwrap();
            assert_eq!(read.len() == rejects.len(), all);
            assert_eq!(read[..], rejects[..read.len()]);
            assert!(all || read.len() > 250);
        }
    }
}

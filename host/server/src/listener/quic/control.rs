//! The control stream: requests and fetches, answered as they are done.
//!
//! Owns the order of answers, which is none: each carries the sequence of its request, and one that waits (a fetch for
//! data, a topic for its commit) holds back no other. Bounds what a client may have unanswered. Never blocks on a slow
//! reader: the answers of one connection hold at most a few fetches' bytes at a time.
//!
//! Start at [`serve`].

use std::sync::Arc;

use bytes::Bytes;
use protocol::{
    ErrorCode, WireError, control,
    control::Request,
    frame::FrameKind,
    limits::{FETCHES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX},
};
use quinn::SendStream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    fetch,
    frames::{Address, Frame, FrameReader, end, frame},
};
use crate::{
    requests,
    session::{Session, StreamEnd, decode_body},
};

/// Answers that wait for the stream; past it their tasks wait.
const ANSWERS_WAITING_MAX: usize = 64;
/// Before pushes and producer answers: control must not wait behind data.
const PRIORITY: i32 = 2;

/// A whole frame on its way out, in chunks, and what it holds until it is written.
pub(super) struct Answer {
    pub(super) chunks: Vec<Bytes>,
    #[expect(dead_code, reason = "held until it is dropped, never read")]
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Answer {
    fn new(kind: FrameKind, sequence: u64, body: &[u8]) -> Answer {
        Answer { chunks: vec![frame(kind, Address::sequence(sequence), &[], body)], permit: None }
    }

    pub(super) fn error(sequence: u64, error: &WireError) -> Answer {
        Answer::new(FrameKind::Error, sequence, &control::encode(error))
    }
}

/// Serves the control stream of a session until the client ends it or `finish` is told.
pub(crate) async fn serve(
    session: Arc<Session>,
    send: SendStream,
    reader: FrameReader,
    finish: oneshot::Receiver<()>,
) -> Result<(), StreamEnd> {
    // A stream that is gone already has no priority.
    let _ = send.set_priority(PRIORITY);
    let (answers, outgoing) = mpsc::channel(ANSWERS_WAITING_MAX);
    let control = Control {
        session,
        answers,
        requests: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
        fetches: Arc::new(Semaphore::new(FETCHES_IN_FLIGHT_MAX)),
        fetch_answers: Arc::new(Semaphore::new(fetch::ANSWERS_MAX)),
        tasks: JoinSet::new(),
    };
    tokio::try_join!(control.read(reader, finish), write(send, outgoing))?;
    Ok(())
}

struct Control {
    session: Arc<Session>,
    answers: mpsc::Sender<Answer>,
    requests: Arc<Semaphore>,
    fetches: Arc<Semaphore>,
    /// Bounds the bytes of fetched batches that wait for the stream.
    fetch_answers: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Control {
    /// Reads frames and starts what they ask for; at the end waits until all is answered.
    async fn read(mut self, mut reader: FrameReader, mut finish: oneshot::Receiver<()>) -> Result<(), StreamEnd> {
        let mut told = false;
        loop {
            tokio::select! {
                frame = reader.frame() => match frame? {
                    Some(frame) => self.handle(frame).await?,
                    None => break,
                },
                Some(_) = self.tasks.join_next() => {}
                () = self.session.draining(), if !told => {
                    told = true;
                    self.send(Answer::new(FrameKind::Goaway, 0, &[])).await?;
                }
                _ = &mut finish => break,
            }
        }
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), StreamEnd> {
        let sequence = frame.prefix.sequence;
        match frame.prefix.kind {
            FrameKind::Request => self.request(sequence, decode_body(&frame)?).await,
            FrameKind::Fetch => self.fetch(sequence, frame).await,
            FrameKind::Ping => self.send(Answer::new(FrameKind::Pong, sequence, &[])).await,
            // The client goes away; what it has open is answered.
            FrameKind::Pong | FrameKind::Goaway => Ok(()),
            kind => Err(StreamEnd::out_of_place(kind)),
        }
    }

    async fn request(&mut self, sequence: u64, request: Request) -> Result<(), StreamEnd> {
        if matches!(request, Request::UploadPlugin(_)) {
            let text = "a plugin is uploaded on an admin stream, where its bytes can follow";
            return self.send(Answer::error(sequence, &WireError::new(ErrorCode::InvalidRequest, text))).await;
        }
        let permit = self.requests.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (session, answers) = (self.session.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let answer = match requests::answer(&session, request).await.and_then(|it| requests::encode(&it)) {
                Ok(body) => Answer::new(FrameKind::Response, sequence, &body),
                Err(error) => Answer::error(sequence, &error),
            };
            // The other end is closed only when the stream is lost.
            let _ = answers.send(answer).await;
            drop(permit);
        });
        Ok(())
    }

    async fn fetch(&mut self, sequence: u64, frame: Frame) -> Result<(), StreamEnd> {
        let request = fetch::Request::decode(&frame)?;
        let Ok(permit) = self.fetches.clone().try_acquire_owned() else {
            let text = format!("more than `fetches_in_flight_max` ({FETCHES_IN_FLIGHT_MAX}) fetches are unanswered");
            return self.send(Answer::error(sequence, &WireError::new(ErrorCode::LimitExceeded, text))).await;
        };
        let (session, answers) = (self.session.clone(), self.answers.clone());
        let budget = self.fetch_answers.clone();
        self.tasks.spawn(async move {
            let answer = match fetch::answer(&session, &budget, sequence, &request).await {
                Ok(answer) => answer,
                Err(error) => Answer::error(sequence, &error),
            };
            let _ = answers.send(answer).await;
            drop(permit);
        });
        Ok(())
    }

    async fn send(&self, answer: Answer) -> Result<(), StreamEnd> {
        self.answers.send(answer).await.map_err(|_| StreamEnd::Lost)
    }
}

/// Writes answers, all that wait at once, until their senders are gone; then finishes the stream.
async fn write(mut send: SendStream, mut outgoing: mpsc::Receiver<Answer>) -> Result<(), StreamEnd> {
    let mut answers = Vec::new();
    while outgoing.recv_many(&mut answers, ANSWERS_WAITING_MAX).await > 0 {
        let mut chunks: Vec<Bytes> = answers.iter_mut().flat_map(|answer| answer.chunks.drain(..)).collect();
        send.write_all_chunks(&mut chunks).await?;
        answers.clear();
    }
    end(&mut send).await;
    Ok(())
}

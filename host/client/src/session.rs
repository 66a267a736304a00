//! One live connection: its control stream, and the streams opened on it.
//!
//! Owns the correlation of requests and answers. Never reconnects and never retries: that is [`crate::link`]'s.
//!
//! Invariants
//! - A request is answered once, or fails with [`RequestError::Lost`]; a caller that no longer waits harms nobody.
//! - Only the writer task writes to the control stream, so a cancelled request never leaves half a frame on it.
//!
//! Start at [`Session::open`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    ErrorCode, WireError,
    control::{self, Hello, Request, Response, Welcome},
    frame::{Fetch, FrameKind, Place, Prefix},
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    error::ConnectError,
    transport::{self, Dialled},
    wire::{self, Frame, FrameReader, StreamError},
};

/// Control frames that wait for the stream. A request is small, so this bounds memory; more callers wait their turn.
const CONTROL_QUEUE: usize = 64;

/// Fetches that wait at the broker at a time. It allows more; others wait here.
const FETCHES_MAX: usize = 128;

/// Bytes of a plugin that travel in one frame.
const UPLOAD_FRAME_BYTES: usize = 256 << 10;

/// Why a request has no answer of its kind.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{0}")]
    Refused(WireError),
    #[error("the connection broke: {0}")]
    Lost(String),
    #[error("the broker's answer is not one to this request")]
    WrongAnswer,
}

impl RequestError {
    /// The broker's code, where it refused.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            RequestError::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// How long the broker asks to wait before another try.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            RequestError::Refused(error) => Duration::from_millis(error.retry_after_ms.into()),
            _ => Duration::ZERO,
        }
    }
}

impl From<StreamError> for RequestError {
    fn from(error: StreamError) -> Self {
        RequestError::Lost(error.to_string())
    }
}

/// A stream of its own: for a producer, a subscription, an admin request.
pub(crate) struct Stream {
    pub(crate) send: quinn::SendStream,
    pub(crate) receive: FrameReader,
}

/// Batches that were asked for, and the place behind them.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) place: Place,
    pub(crate) batches: Bytes,
}

pub(crate) struct Session {
    broker: String,
    connection: quinn::Connection,
    /// Keeps the socket open for as long as the session lives.
    endpoint: quinn::Endpoint,
    welcome: Welcome,
    control: Arc<Control>,
    requests: mpsc::Sender<Bytes>,
    /// Fetches the broker lets us have unanswered.
    fetches: Semaphore,
}

/// What the control stream's two tasks share with those who ask.
#[derive(Default)]
struct Control {
    waiting: Mutex<Waiting>,
    next_id: AtomicU64,
    draining: watch::Sender<bool>,
}

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Frame>>,
    /// Why nothing will be answered any more.
    lost: Option<String>,
}

impl Session {
    /// Says HELLO on a fresh connection.
    pub(crate) async fn open(broker: &str, dialled: Dialled, name: &str) -> Result<Session, ConnectError> {
        let Dialled { connection, endpoint } = dialled;
        match Session::hello(&connection, name).await {
            Ok((welcome, send, receive)) => {
                let control = Arc::new(Control::default());
                let (requests, queue) = mpsc::channel(CONTROL_QUEUE);
                tokio::spawn(write_control(send, queue));
                tokio::spawn(read_control(receive, Arc::clone(&control)));
                let fetches = Semaphore::new(FETCHES_MAX);
                Ok(Session { broker: broker.to_owned(), connection, endpoint, welcome, control, requests, fetches })
            }
            Err(HelloError::Refused(error)) => Err(ConnectError::Refusal { broker: broker.to_owned(), error }),
            Err(HelloError::NotWeir(reason)) => Err(ConnectError::NotWeir { broker: broker.to_owned(), reason }),
            // The broker judges our certificate after the handshake is over for us; the connection knows its verdict.
            Err(HelloError::Broken) => Err(transport::explain(broker, &connection.closed().await)),
        }
    }

    async fn hello(
        connection: &quinn::Connection,
        name: &str,
    ) -> Result<(Welcome, quinn::SendStream, FrameReader), HelloError> {
        let (mut send, receive) = connection.open_bi().await.map_err(|_| HelloError::Broken)?;
        let mut receive = FrameReader::new(receive);
        let hello = Hello { client: name.to_owned(), features: 0, features_required: 0 };
        let frame = wire::frame(FrameKind::Hello, b"", &control::encode(&hello));
        send.write_all(&frame).await.map_err(|_| HelloError::Broken)?;
        let answer = receive.next().await?;
        match answer.prefix.kind {
            FrameKind::Welcome => {
                let welcome = control::decode(&answer.body).map_err(|error| HelloError::NotWeir(error.to_string()))?;
                Ok((welcome, send, receive))
            }
            FrameKind::Error => match control::decode(&answer.body) {
                Ok(error) => Err(HelloError::Refused(error)),
                Err(error) => Err(HelloError::NotWeir(error.to_string())),
            },
            kind => Err(HelloError::NotWeir(format!("it answered HELLO with {kind:?}"))),
        }
    }

    /// What the broker said of itself.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The address this session was made to.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// Asks on the control stream.
    pub(crate) async fn request(&self, request: &Request) -> Result<Response, RequestError> {
        let body = control::encode(request);
        let answer = self.ask(|id| wire::encode(with_id(FrameKind::Request, id, b"", &body), b"", &body)).await?;
        response(&answer)
    }

    /// Asks for batches, and waits for them as long as `fetch` says.
    pub(crate) async fn fetch(&self, fetch: &Fetch, of: &protocol::TopicPartition) -> Result<Fetched, RequestError> {
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        let (header, body) = (fetch.encode(), control::encode(of));
        let answer = self.ask(|id| wire::encode(with_id(FrameKind::Fetch, id, &header, &body), &header, &body)).await?;
        match answer.prefix.kind {
            FrameKind::Fetched => Ok(Fetched { place: Place::decode(&answer.header), batches: answer.body }),
            _ => Err(refusal(&answer)),
        }
    }

    async fn ask(&self, encode: impl FnOnce(u64) -> Bytes) -> Result<Frame, RequestError> {
        let id = self.control.next_id.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        {
            let mut waiting = self.control.waiting.lock();
            if let Some(reason) = &waiting.lost {
                return Err(RequestError::Lost(reason.clone()));
            }
            waiting.answers.insert(id, answered);
        }
        let forget = Forget { control: &self.control, id };
        let lost = || RequestError::Lost(self.lost_reason());
        self.requests.send(encode(id)).await.map_err(|_| lost())?;
        let frame = answer.await.map_err(|_| lost())?;
        drop(forget);
        Ok(frame)
    }

    fn lost_reason(&self) -> String {
        let lost = self.control.waiting.lock().lost.clone();
        lost.unwrap_or_else(|| "the control stream ended".to_owned())
    }

    /// Asks on a stream of its own, with a file behind the request; dropping the future cancels the request.
    pub(crate) async fn request_alone(
        &self,
        request: &Request,
        file: Option<&Bytes>,
    ) -> Result<Response, RequestError> {
        let mut stream = self.stream().await?;
        let broken = |error: quinn::WriteError| RequestError::Lost(error.to_string());
        let frame = wire::frame(FrameKind::Request, b"", &control::encode(request));
        let sent = async {
            stream.send.write_all(&frame).await?;
            for part in file.iter().flat_map(|file| file.chunks(UPLOAD_FRAME_BYTES)) {
                stream.send.write_all(&wire::frame(FrameKind::Upload, b"", part)).await?;
            }
            Ok(())
        };
        // A broker that refuses early stops reading; its answer says more than the failed write.
        let sent = sent.await;
        let _ = stream.send.finish();
        match stream.receive.next().await {
            Ok(answer) => response(&answer),
            Err(error) => Err(sent.err().map_or_else(|| error.into(), broken)),
        }
    }

    /// Opens a stream of its own.
    pub(crate) async fn stream(&self) -> Result<Stream, RequestError> {
        let (send, receive) = self.connection.open_bi().await.map_err(|error| RequestError::Lost(error.to_string()))?;
        Ok(Stream { send, receive: FrameReader::new(receive) })
    }

    /// Returns when the connection is gone, with the reason.
    pub(crate) async fn closed(&self) -> ConnectError {
        transport::explain(&self.broker, &self.connection.closed().await)
    }

    /// Returns when the broker said that it is going away.
    pub(crate) async fn draining(&self) {
        let mut draining = self.control.draining.subscribe();
        // The sender lives as long as `self`.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    /// Returns when nothing has come back for `patience` although we asked again and again: the broker was restarted
    /// without a goodbye, or the network is gone.
    ///
    /// Looks at UDP datagrams, so a busy broker that acknowledges is not suspected. QUIC repeats what is not
    /// acknowledged, at growing intervals; a single datagram may be an acknowledgement of ours, which nobody answers.
    pub(crate) async fn silent(&self, patience: Duration) {
        const LOOKS_PER_PATIENCE: u32 = 4;
        const ASKED_MIN: u32 = 3;
        let (mut looks, mut asked) = (0, 0);
        let mut before = self.connection.stats();
        while looks < LOOKS_PER_PATIENCE || asked < ASKED_MIN {
            tokio::time::sleep(patience / LOOKS_PER_PATIENCE).await;
            let after = self.connection.stats();
            if after.udp_rx.datagrams == before.udp_rx.datagrams {
                looks += 1;
                asked += u32::from(after.udp_tx.datagrams != before.udp_tx.datagrams);
            } else {
                (looks, asked) = (0, 0);
            }
            before = after;
        }
    }

    /// Closes the connection: everybody who waits on it is told.
    pub(crate) fn close(&self, reason: &str) {
        self.connection.close(quinn::VarInt::from_u32(0), reason.as_bytes());
    }

    /// Returns when the goodbye has left, or was given up.
    pub(crate) async fn gone(&self) {
        self.endpoint.wait_idle().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close("");
    }
}

/// Takes a request that is no longer waited for out of the table.
struct Forget<'a> {
    control: &'a Control,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.control.waiting.lock().answers.remove(&self.id);
    }
}

enum HelloError {
    Refused(WireError),
    NotWeir(String),
    Broken,
}

impl From<StreamError> for HelloError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Protocol(error) => HelloError::NotWeir(error.to_string()),
            StreamError::Finished | StreamError::Broken(_) => HelloError::Broken,
        }
    }
}

fn with_id(kind: FrameKind, id: u64, header: &[u8], body: &[u8]) -> Prefix {
    Prefix { sequence: id, ..Prefix::new(kind, header, body) }
}

fn response(answer: &Frame) -> Result<Response, RequestError> {
    match answer.prefix.kind {
        FrameKind::Response => control::decode(&answer.body).map_err(|_| RequestError::WrongAnswer),
        _ => Err(refusal(answer)),
    }
}

fn refusal(answer: &Frame) -> RequestError {
    match answer.prefix.kind {
        FrameKind::Error => control::decode(&answer.body).map_or(RequestError::WrongAnswer, RequestError::Refused),
        _ => RequestError::WrongAnswer,
    }
}

async fn write_control(mut send: quinn::SendStream, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        if send.write_chunk(frame).await.is_err() {
            // The reader notices the same and tells everybody.
            return;
        }
    }
}

async fn read_control(mut receive: FrameReader, control: Arc<Control>) {
    let reason = loop {
        let frame = match receive.next().await {
            Ok(frame) => frame,
            Err(error) => break error.to_string(),
        };
        match frame.prefix.kind {
            FrameKind::Goaway => {
                control.draining.send_replace(true);
            }
            FrameKind::Pong => {}
            _ => {
                let answered = control.waiting.lock().answers.remove(&frame.prefix.sequence);
                // Nobody there: the caller was cancelled.
                answered.map(|answered| answered.send(frame));
            }
        }
    };
    let mut waiting = control.waiting.lock();
    waiting.lost = Some(reason);
    waiting.answers.clear();
}

//! One client's connection: who it is, what it may open, and how it ends.
//!
//! Owns the order of things: the first stream is the control stream and begins with HELLO; other streams wait unread
//! until it is answered (QUIC's windows bound what they hold); then each stream is served by the file of its kind. A peer
//! that breaks the protocol loses its connection, with a code and a text that say why.
//!
//! ```text
//! handshake (mTLS: principal) -> HELLO / WELCOME -> streams, each a task -> GOAWAY -> all answered -> close
//! ```
//!
//! Start at [`Session::run`].

use std::{sync::Arc, time::Duration};

use broker::Broker;
use protocol::{
    ErrorCode, WireError,
    control::{self, Hello, Welcome},
    frame::{FrameError, FrameKind},
    limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX, PRODUCER_STREAMS_PER_CONNECTION_MAX},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};

use crate::{
    config::ServerConfig,
    listener::quic::{
        admin, control as control_stream,
        frames::{Address, Frame, FrameReadError, FrameReader, code, end_with_error, frame},
        serve_producer, subscription,
    },
    producers::Producers,
    tls,
};

/// Feature bits this broker has; none is defined yet.
const FEATURES: u64 = 0;

/// Name and version, for WELCOME.
pub(crate) const BROKER: &str = concat!("weir ", env!("CARGO_PKG_VERSION"));

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) config: ServerConfig,
    /// Produce bytes that may still be read, of all connections together.
    pub(crate) ingest: Arc<Semaphore>,
    pub(crate) producers: Arc<Producers>,
    /// Connections that may still be accepted.
    pub(crate) connections: Arc<Semaphore>,
    /// True once the broker drains.
    pub(crate) drain: watch::Receiver<bool>,
}

impl Shared {
    /// Connections open now.
    pub(crate) fn connection_count(&self) -> usize {
        self.config.transport.connections_max.saturating_sub(self.connections.available_permits())
    }

    pub(crate) fn stall_max(&self) -> Duration {
        Duration::from_millis(self.config.transport.stall_ms_max)
    }
}

/// Why a stream, and with it the connection, ended before its time.
#[derive(Debug)]
pub(crate) enum StreamEnd {
    /// The peer broke the protocol.
    Violation(WireError),
    /// Stream or connection are gone; there is nobody to tell.
    Lost,
}

impl StreamEnd {
    pub(crate) fn violation(text: impl std::fmt::Display) -> StreamEnd {
        StreamEnd::Violation(WireError::new(ErrorCode::ProtocolViolation, text.to_string()))
    }

    pub(crate) fn out_of_place(kind: FrameKind) -> StreamEnd {
        StreamEnd::violation(FrameError::OutOfPlace { kind })
    }
}

impl From<FrameReadError> for StreamEnd {
    fn from(error: FrameReadError) -> Self {
        match error {
            FrameReadError::Frame(error) => StreamEnd::violation(error),
            FrameReadError::Truncated => StreamEnd::violation(FrameReadError::Truncated),
            FrameReadError::Lost(_) => StreamEnd::Lost,
        }
    }
}

impl From<control::ControlError> for StreamEnd {
    fn from(error: control::ControlError) -> Self {
        StreamEnd::violation(error)
    }
}

impl From<quinn::WriteError> for StreamEnd {
    fn from(_: quinn::WriteError) -> Self {
        StreamEnd::Lost
    }
}

/// One connection whose client is known.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) principal: String,
    connection: Connection,
    /// Producer streams the client may still open.
    pub(crate) producer_streams: Arc<Semaphore>,
    drain: watch::Receiver<bool>,
}

impl Session {
    /// A session of a connection whose handshake is done.
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection) -> Session {
        let drain = shared.drain.clone();
        let producer_streams = Arc::new(Semaphore::new(PRODUCER_STREAMS_PER_CONNECTION_MAX));
        let principal = principal(&connection).unwrap_or_default();
        Session { shared, principal, connection, producer_streams, drain }
    }

    /// Serves the connection to its end, and closes it.
    pub(crate) async fn run(self) {
        let session = Arc::new(self);
        let (close, reason) = match session.serve().await {
            Ok(()) if *session.drain.borrow() => (code(ErrorCode::ShuttingDown), "the broker is going away".to_owned()),
            Ok(()) | Err(StreamEnd::Lost) => (0u32.into(), String::new()),
            Err(StreamEnd::Violation(error)) => {
                let (peer, principal) = (session.connection.remote_address(), &session.principal);
                tracing::warn!(%peer, principal, code = %error.code, %error, "connection closed");
                (code(error.code), error.text)
            }
        };
        session.connection.close(close, reason.as_bytes());
    }

    /// Waits until the broker drains.
    pub(crate) async fn draining(&self) {
        let mut drain = self.drain.clone();
        // The sender outlives the sessions; without it there is nothing to go on for.
        let _ = drain.wait_for(|drain| *drain).await;
    }

    async fn serve(self: &Arc<Self>) -> Result<(), StreamEnd> {
        let hello = timeout(Duration::from_millis(self.shared.config.transport.hello_ms_max), self.hello());
        let (send, reader) = match hello.await {
            Ok(control) => control?,
            Err(_) => return Err(StreamEnd::violation("no HELLO came in time")),
        };
        let (finish, finished) = oneshot::channel();
        let mut control = tokio::spawn(control_stream::serve(self.clone(), send, reader, finished));
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.connection.accept_bi() => match accepted {
                    Ok((send, recv)) => {
                        streams.spawn(self.clone().stream(send, recv));
                    }
                    Err(_) => return Err(StreamEnd::Lost),
                },
                Some(ended) = streams.join_next() => stream_ended(ended)?,
                // The client ended its control stream: it says good-bye.
                ended = &mut control => return stream_ended(ended),
                () = self.draining() => break,
            }
        }
        while let Some(ended) = streams.join_next().await {
            stream_ended(ended)?;
        }
        // The control stream ends last: it is how the client hears of everything else.
        let _ = finish.send(());
        stream_ended(control.await)
    }

    /// The gate: nothing is served before HELLO came and was answered.
    async fn hello(&self) -> Result<(SendStream, FrameReader), StreamEnd> {
        let (mut send, recv) = self.connection.accept_bi().await.map_err(|_| StreamEnd::Lost)?;
        let mut reader = FrameReader::unauthenticated(recv);
        let first = reader.frame().await?.ok_or_else(|| StreamEnd::violation("control stream ended before HELLO"))?;
        if first.prefix.kind != FrameKind::Hello {
            return Err(StreamEnd::out_of_place(first.prefix.kind));
        }
        let hello: Hello = control::decode(&first.body)?;
        let lacking = hello.features_required & !FEATURES;
        if lacking != 0 {
            let text =
                format!("client `{}` needs feature bits {lacking:#x}, which {BROKER} does not have", hello.client);
            let error = WireError::new(ErrorCode::UnsupportedVersion, text);
            end_with_error(&mut send, Address::default(), &error).await?;
            return Err(StreamEnd::Violation(error));
        }
        tracing::debug!(peer = %self.connection.remote_address(), principal = self.principal, client = hello.client, "hello");
        let welcome = frame(FrameKind::Welcome, Address::default(), &[], &control::encode(&self.welcome(&hello)));
        send.write_chunk(welcome).await?;
        reader.authenticate();
        Ok((send, reader))
    }

    fn welcome(&self, hello: &Hello) -> Welcome {
        Welcome {
            broker: BROKER.to_owned(),
            features: hello.features & FEATURES,
            store_id: self.shared.broker.status().store_id,
            principal: self.principal.clone(),
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            in_flight_bytes_per_handle: self.shared.config.ingest.in_flight_bytes_per_handle,
        }
    }

    /// Serves one stream: its first frame says of which kind it is.
    async fn stream(self: Arc<Self>, send: SendStream, recv: RecvStream) -> Result<(), StreamEnd> {
        let mut reader = FrameReader::new(recv);
        let first = tokio::select! {
            biased;
            first = reader.frame() => first?,
            () = self.draining() => None,
        };
        let Some(first) = first else { return Ok(()) };
        match first.prefix.kind {
            FrameKind::ProducerOpen => serve_producer(&self, first, reader, send).await,
            FrameKind::Subscribe => subscription::serve(&self, first, reader, send).await,
            FrameKind::Request => admin::serve(&self, first, reader, send).await,
            kind => Err(StreamEnd::out_of_place(kind)),
        }
    }
}

/// Decodes the CBOR body of a frame.
pub(crate) fn decode_body<'b, T: minicbor::Decode<'b, ()>>(frame: &'b Frame) -> Result<T, StreamEnd> {
    Ok(control::decode(&frame.body)?)
}

/// Whom the certificate of the handshake speaks of.
fn principal(connection: &Connection) -> Option<String> {
    let identity = connection.peer_identity()?;
    let certificates = identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
    tls::principal(certificates.first()?)
}

/// A lost stream is that stream's matter; a violation is the connection's.
fn stream_ended(ended: Result<Result<(), StreamEnd>, JoinError>) -> Result<(), StreamEnd> {
    match ended {
        Ok(Err(StreamEnd::Violation(error))) => Err(StreamEnd::Violation(error)),
        Ok(Ok(()) | Err(StreamEnd::Lost)) => Ok(()),
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => {
            tracing::error!(%error, "serving a stream failed");
            Err(StreamEnd::Violation(WireError::new(
                ErrorCode::Internal,
                "serving a stream failed; see the broker's log",
            )))
        }
    }
}

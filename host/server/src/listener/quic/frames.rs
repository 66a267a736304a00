//! Frames on a QUIC stream: reading whole ones, writing many at once.
//!
//! Owns the buffers of a stream. A length is compared with its limit before anything is allocated for it, and a buffer
//! grows with the bytes that arrive, not with those announced. Reading can be cancelled at every await and loses nothing.
//!
//! Start at [`FrameReader`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use protocol::{
    ErrorCode, WireError, control,
    frame::{FrameError, FrameKind, PREFIX_BYTES, Prefix},
    limits::{CONTROL_BODY_BYTES_MAX, FRAME_BYTES_MAX},
};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;

use crate::session::StreamEnd;

/// What is read at once while looking for the next prefix, and at most a datagram's worth: some small frames, or the
/// beginning of a large one, which is copied once more.
const LOOK_AHEAD_BYTES: usize = 16 << 10;
/// First allocation for a body; it doubles from there while bytes arrive.
const BODY_BYTES_FIRST: usize = 128 << 10;

/// What a frame may be in length: only batches need long ones, and only they are counted in the ingest budget.
fn frame_bytes_max(kind: FrameKind) -> usize {
    if kind.carries_batches() { FRAME_BYTES_MAX } else { CONTROL_BODY_BYTES_MAX + usize::from(u8::MAX) }
}

/// A frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameReadError {
    /// The peer breaks the protocol: its connection is closed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended within a frame.
    #[error("stream ended within a frame")]
    Truncated,
    /// The stream was reset, or the connection is gone.
    #[error("stream was lost")]
    Lost(#[source] std::io::Error),
}

fn lost(error: ReadError) -> FrameReadError {
    FrameReadError::Lost(error.into())
}

/// One frame: its prefix, its fixed header, its body.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) prefix: Prefix,
    /// Empty for kinds without one.
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

/// Reads frames from one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    recv: RecvStream,
    authenticated: bool,
    /// Bytes behind the frame in hand.
    ahead: BytesMut,
    /// The frame in hand and what is there of its body.
    current: Option<(Prefix, BytesMut)>,
}

impl FrameReader {
    /// A reader of a peer that said HELLO.
    pub(crate) fn new(recv: RecvStream) -> FrameReader {
        FrameReader { recv, authenticated: true, ahead: BytesMut::new(), current: None }
    }

    /// A reader of a peer that did not say HELLO yet: its frames must be short.
    pub(crate) fn unauthenticated(recv: RecvStream) -> FrameReader {
        FrameReader { authenticated: false, ..FrameReader::new(recv) }
    }

    /// The peer said HELLO.
    pub(crate) fn authenticate(&mut self) {
        self.authenticated = true;
    }

    /// The stream itself.
    pub(crate) fn stream(&mut self) -> &mut RecvStream {
        &mut self.recv
    }

    /// Reads the next frame; `None` at the end of the stream. Can be cancelled.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>, FrameReadError> {
        match self.prefix().await? {
            None => Ok(None),
            Some(_) => self.body().await.map(Some),
        }
    }

    /// Reads the next prefix and checks it, lengths included; `None` at the end of the stream. Can be cancelled; says the
    /// same prefix again until its body was read.
    pub(crate) async fn prefix(&mut self) -> Result<Option<Prefix>, FrameReadError> {
        if let Some((prefix, _)) = self.current {
            return Ok(Some(prefix));
        }
        while self.ahead.len() < PREFIX_BYTES {
            if self.ahead.is_empty() {
                // A stream may be silent for hours: then it holds no buffer.
                self.ahead = BytesMut::new();
            }
            match self.recv.read_chunk(LOOK_AHEAD_BYTES, true).await.map_err(lost)? {
                // Copied, because a chunk that is kept pins all that was received together with it.
                Some(chunk) => self.ahead.extend_from_slice(&chunk.bytes),
                None if self.ahead.is_empty() => return Ok(None),
                None => return Err(FrameReadError::Truncated),
            }
        }
        let (bytes, _) = self.ahead.split_first_chunk().expect("the loop above waited for them");
        let prefix = Prefix::decode(bytes, self.authenticated)?;
        let (bytes_found, limit) = (prefix.body_bytes as usize, frame_bytes_max(prefix.kind));
        if bytes_found > limit {
            return Err(FrameError::TooLarge { bytes: bytes_found, limit }.into());
        }
        self.ahead.advance(PREFIX_BYTES);
        self.current = Some((prefix, BytesMut::new()));
        Ok(Some(prefix))
    }

    /// Reads what follows the prefix that [`prefix`](Self::prefix) returned. Can be cancelled.
    ///
    /// The body has an allocation of its own: what keeps it pins nothing else, and it can be changed in place.
    pub(crate) async fn body(&mut self) -> Result<Frame, FrameReadError> {
        let (prefix, rest) = self.current.as_mut().expect("a prefix was read before its body");
        let length = prefix.body_bytes as usize;
        let at_hand = (length - rest.len()).min(self.ahead.len());
        rest.reserve(length.min(BODY_BYTES_FIRST).max(rest.len() + at_hand) - rest.len());
        rest.extend_from_slice(&self.ahead[..at_hand]);
        self.ahead.advance(at_hand);
        while rest.len() < length {
            if rest.len() == rest.capacity() {
                rest.reserve(rest.len().min(length - rest.len()));
            }
            let missing = length - rest.len();
            if self.recv.read_buf(&mut rest.limit(missing)).await.map_err(FrameReadError::Lost)? == 0 {
                return Err(FrameReadError::Truncated);
            }
        }
        let (prefix, rest) = self.current.take().expect("it was there above");
        let mut rest = rest.freeze();
        prefix.split(&rest)?;
        let header = match prefix.header_bytes {
            0 => Bytes::new(),
            bytes => Bytes::copy_from_slice(&rest.split_to(bytes.into())),
        };
        Ok(Frame { prefix, header, body: rest })
    }
}

/// What a frame says of itself beside kind, header and body.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Address {
    pub(crate) sequence: u64,
    pub(crate) handle: u32,
}

impl Address {
    /// Answers to a request of this sequence.
    pub(crate) fn sequence(sequence: u64) -> Address {
        Address { sequence, handle: 0 }
    }
}

/// Appends a frame to a buffer.
pub(crate) fn put_frame(out: &mut BytesMut, kind: FrameKind, address: Address, header: &[u8], body: &[u8]) {
    let prefix = Prefix { sequence: address.sequence, handle: address.handle, ..Prefix::new(kind, header, body) };
    out.reserve(PREFIX_BYTES + header.len() + body.len());
    out.put_slice(&prefix.encode());
    out.put_slice(header);
    out.put_slice(body);
}

/// Appends an ERROR frame to a buffer.
pub(crate) fn put_error(out: &mut BytesMut, address: Address, error: &WireError) {
    put_frame(out, FrameKind::Error, address, &[], &control::encode(error));
}

/// A frame in a buffer of its own.
pub(crate) fn frame(kind: FrameKind, address: Address, header: &[u8], body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, address, header, body);
    out.freeze()
}

/// A frame whose body is record batches, as chunks: the batches are not copied.
pub(crate) fn batches_frame(kind: FrameKind, address: Address, header: &[u8], batches: Vec<Bytes>) -> Vec<Bytes> {
    debug_assert!(kind.carries_batches(), "the checksum of other bodies covers their bytes");
    let body_bytes: usize = batches.iter().map(Bytes::len).sum();
    let prefix = Prefix {
        sequence: address.sequence,
        handle: address.handle,
        body_bytes: u32::try_from(header.len() + body_bytes).expect("a frame is below 4 GiB"),
        ..Prefix::new(kind, header, &[])
    };
    let mut chunks = Vec::with_capacity(1 + batches.len());
    chunks.push(Bytes::from([&prefix.encode()[..], header].concat()));
    chunks.extend(batches.into_iter().filter(|run| !run.is_empty()));
    chunks
}

/// Ends a stream with an ERROR frame, so that the peer can read why.
pub(crate) async fn end_with_error(
    send: &mut SendStream,
    address: Address,
    error: &WireError,
) -> Result<(), StreamEnd> {
    let mut out = BytesMut::new();
    put_error(&mut out, address, error);
    send.write_all(&out).await?;
    end(send).await;
    Ok(())
}

/// Ends a stream and waits until the peer has all of it: a close of the connection would discard what is on its way.
pub(crate) async fn end(send: &mut SendStream) {
    // Both fail only where the stream is finished, stopped or lost already.
    let _ = send.finish();
    let _ = send.stopped().await;
}

/// The number that says why on a stream reset or a connection close.
pub(crate) fn code(code: ErrorCode) -> VarInt {
    VarInt::from_u32(code as u32)
}

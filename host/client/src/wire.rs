//! Frames on a QUIC stream: whole ones in, whole ones out.
//!
//! Owns the buffer between stream and frames. Never interprets a frame beyond its checksums.
//!
//! Invariant: [`FrameReader::next`] loses nothing when it is cancelled: what was read stays in the buffer.

use bytes::{Bytes, BytesMut};
use protocol::frame::{FrameError, FrameKind, PREFIX_BYTES, Prefix};

/// How much is read from a stream at once.
const READ_BYTES: usize = 256 << 10;

/// A whole frame, checked.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) prefix: Prefix,
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the broker closed the stream")]
    Finished,
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("the broker broke the protocol")]
    Protocol(#[from] FrameError),
}

/// What a stream's bytes are read through.
pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(stream: quinn::RecvStream) -> FrameReader {
        FrameReader { stream, buffer: BytesMut::new() }
    }

    /// The next frame. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(StreamError::Finished),
                Err(error) => return Err(StreamError::Broken(error.to_string())),
            }
        }
    }

    /// The next frame that has arrived already, without waiting.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>, StreamError> {
        let Some(first) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let prefix = Prefix::decode(first, true)?;
        let whole = PREFIX_BYTES + prefix.body_bytes as usize;
        if self.buffer.len() < whole {
            // Grows with what has arrived: at most twice the bytes at hand, never the announced length at once.
            let missing = whole - self.buffer.len();
            self.buffer.reserve(missing.min(self.buffer.len().max(READ_BYTES)));
            return Ok(None);
        }
        let rest = self.buffer.split_to(whole).freeze().slice(PREFIX_BYTES..);
        prefix.split(&rest)?;
        let header_bytes = usize::from(prefix.header_bytes);
        Ok(Some(Frame { prefix, header: rest.slice(..header_bytes), body: rest.slice(header_bytes..) }))
    }

    /// Tells the broker that nothing more of this stream will be read.
    pub(crate) fn stop(&mut self) {
        // Already closed is as good.
        let _ = self.stream.stop(quinn::VarInt::from_u32(0));
    }
}

/// A small frame in one piece.
pub(crate) fn encode(prefix: Prefix, header: &[u8], body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + header.len() + body.len());
    bytes.extend_from_slice(&prefix.encode());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

/// A small frame of `kind` in one piece, with no sequence and no handle.
pub(crate) fn frame(kind: FrameKind, header: &[u8], body: &[u8]) -> Bytes {
    encode(Prefix::new(kind, header, body), header, body)
}

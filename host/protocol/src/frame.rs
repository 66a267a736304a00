//! Frames of the native protocol: a fixed prefix, a fixed header for hot frames, a body.
//!
//! Owns the byte layout of everything that crosses a stream. Never looks inside a record batch and never allocates:
//! decoders are handed bytes, encoders write into a buffer.
//!
//! ```text
//! prefix, 32 bytes, little endian
//!   0  u32  body_bytes      length of what follows the prefix: fixed header and body
//!   4  u8   kind            [`FrameKind`]
//!   5  u8   flags           by kind, 0 where none is named; unknown bits are refused
//!   6  u16  header_bytes    length of the fixed header, the first part of what follows
//!   8  u64  sequence        correlation id on control streams; number of the frame on a producer stream; else 0
//!  16  u32  handle          bound topic-partition on a producer stream; else 0
//!  20  u32  aux             by kind; else 0
//!  24  u32  body_crc        CRC-32C of what follows the prefix; for PRODUCE, BATCH and FETCHED of the fixed header alone,
//!                           because a record batch carries its own CRC
//!  28  u32  prefix_crc      CRC-32C of bytes 0..28
//! ```
//! A fixed header may grow at its end: a reader takes what it knows and skips the rest.
//!
//! Start at [`Prefix`].

use crate::{
    Books, Offset,
    limits::{FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX},
};

/// Protocol id in the TLS handshake; one per major version.
pub const ALPN: &[u8] = b"weir/1";

/// The name every broker's certificate carries and every client asks for in the TLS handshake, whatever address it
/// dialled: who a broker is says its CA, which the client has in its identity file.
pub const TLS_SERVER_NAME: &str = "weir";

/// Length of [`Prefix`] on the wire.
pub const PREFIX_BYTES: usize = 32;

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FrameKind {
            /// The kind of a number, if there is one.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<FrameKind> {
                match number {
                    $($number => Some(FrameKind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

frame_kinds! {
    /// Client, first on its control stream. Body: CBOR [`Hello`](crate::control::Hello).
    Hello = 1,
    /// Answer to HELLO. Body: CBOR [`Welcome`](crate::control::Welcome).
    Welcome = 2,
    /// A request. Body: CBOR [`Request`](crate::control::Request). Control and admin streams.
    Request = 3,
    /// Its answer, same sequence. Body: CBOR [`Response`](crate::control::Response).
    Response = 4,
    /// A request that failed, same sequence (producer streams: same handle and frame number). Body: CBOR [`WireError`](crate::WireError).
    Error = 5,
    /// Either side; answered by PONG with the same sequence.
    Ping = 6,
    /// Answer to PING.
    Pong = 7,
    /// Server, on the control stream: it is draining. Open nothing new; what is in flight is answered.
    Goaway = 8,
    /// Part of an uploaded file, in order, on an admin stream after its request. Body: the bytes, at most
    /// [`CONTROL_BODY_BYTES_MAX`](crate::limits::CONTROL_BODY_BYTES_MAX), as for all frames but those of batches.
    Upload = 9,

    /// Client, first on a producer stream. Header: [`ProducerOpen`]. Fences an older stream of the same producer.
    ProducerOpen = 16,
    /// Answer to PRODUCER_OPEN; no header.
    ProducerOpened = 17,
    /// Client: binds `handle` to a topic-partition. Body: CBOR [`TopicPartition`](crate::TopicPartition).
    Bind = 18,
    /// Answer to BIND, same handle, in order with the answers to the handle's batches. Header: [`Bound`].
    Bound = 19,
    /// Client: one record batch for `handle`; `sequence` numbers the frames of the handle from 0. Body: the batch.
    Produce = 20,
    /// Answer to PRODUCE, same handle and sequence, in order per handle. Header: [`Ack`]. Body: empty, or CBOR
    /// `Vec<RecordError>` where records were rejected; the first of them when all would not fit a control body.
    Ack = 21,

    /// Client, first on a subscription stream. Header: [`Subscribe`]. Body: CBOR [`TopicPartition`](crate::TopicPartition).
    Subscribe = 32,
    /// Answer to SUBSCRIBE. Header: [`Place`]: where the subscription begins, and the high watermark.
    Subscribed = 33,
    /// Client: more credit, in bytes. Header: u64.
    Credit = 34,
    /// Client: no more of this subscription; answered by END.
    Cancel = 35,
    /// Record batches, whole ones, ascending. Header: [`Place`] behind them. Body: the batches. Costs its body in credit.
    /// The first batch may begin before the offset asked for; the reader skips what it did not ask for.
    Batch = 36,
    /// No records up to an offset. Header: [`Place`] behind the gap. Also tells the high watermark at the end of the data.
    Gap = 37,
    /// The subscription is over; no header.
    End = 38,

    /// Client, control stream: pull. Header: [`Fetch`]. Body: CBOR [`TopicPartition`](crate::TopicPartition).
    Fetch = 48,
    /// Answer to FETCH, same sequence. Header: [`Place`] behind what it carries. Body: the batches, none when the wait ran out.
    Fetched = 49,
}

/// A frame that breaks the rules: the peer is broken or hostile, and the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The prefix was damaged, or is none.
    #[error("frame prefix has checksum {found:#010x}, not {expected:#010x}")]
    PrefixChecksum {
        /// What it says.
        found: u32,
        /// What it should say.
        expected: u32,
    },
    /// The body was damaged.
    #[error("frame body has checksum {found:#010x}, not {expected:#010x}")]
    BodyChecksum {
        /// What the prefix says.
        found: u32,
        /// What it should say.
        expected: u32,
    },
    /// No kind has this number.
    #[error("frame kind {kind} is unknown")]
    UnknownKind {
        /// The number.
        kind: u8,
    },
    /// Flag bits that are not defined.
    #[error("frame flags {flags:#04x} are not defined for {kind:?}")]
    UnknownFlags {
        /// The frame.
        kind: FrameKind,
        /// Its flags.
        flags: u8,
    },
    /// Longer than allowed.
    #[error("frame of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What is allowed here.
        limit: usize,
    },
    /// The fixed header is shorter than its kind needs, or longer than the frame.
    #[error("frame header of {bytes} bytes does not fit {kind:?}")]
    Header {
        /// The frame.
        kind: FrameKind,
        /// What the prefix says.
        bytes: usize,
    },
    /// A kind that has no place here.
    #[error("frame {kind:?} is out of place")]
    OutOfPlace {
        /// The frame.
        kind: FrameKind,
    },
}

/// The first 32 bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// What the frame is.
    pub kind: FrameKind,
    /// Flags by kind.
    pub flags: u8,
    /// Length of the fixed header.
    pub header_bytes: u16,
    /// Length of fixed header and body together.
    pub body_bytes: u32,
    /// Correlation id or frame number.
    pub sequence: u64,
    /// Bound topic-partition.
    pub handle: u32,
    /// By kind.
    pub aux: u32,
    /// CRC-32C; see the module.
    pub body_crc: u32,
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl Prefix {
    /// A prefix for `kind` with this fixed header and body; checksums included.
    ///
    /// # Panics
    /// When the frame would be larger than a frame can be: an encoder's own bug.
    #[must_use]
    pub fn new(kind: FrameKind, header: &[u8], body: &[u8]) -> Prefix {
        let header_bytes = u16::try_from(header.len()).expect("fixed headers are short");
        let crc = crc32c::crc32c(header);
        Prefix {
            kind,
            flags: 0,
            header_bytes,
            body_bytes: u32::try_from(header.len() + body.len()).expect("a frame is below 4 GiB"),
            sequence: 0,
            handle: 0,
            aux: 0,
            body_crc: if kind.carries_batches() { crc } else { crc32c::crc32c_append(crc, body) },
        }
    }

    /// The prefix as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.handle.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.aux.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a prefix; `authenticated` decides how long its frame may be.
    ///
    /// # Errors
    /// When the checksum, kind, flags or lengths are wrong.
    pub fn decode(bytes: &[u8; PREFIX_BYTES], authenticated: bool) -> Result<Prefix, FrameError> {
        let (found, expected) = (u32_at(bytes, 28), crc32c::crc32c(&bytes[..28]));
        if found != expected {
            return Err(FrameError::PrefixChecksum { found, expected });
        }
        let kind = FrameKind::from_number(bytes[4]).ok_or(FrameError::UnknownKind { kind: bytes[4] })?;
        let prefix = Prefix {
            kind,
            flags: bytes[5],
            header_bytes: u16::from_le_bytes([bytes[6], bytes[7]]),
            body_bytes: u32_at(bytes, 0),
            sequence: u64_at(bytes, 8),
            handle: u32_at(bytes, 16),
            aux: u32_at(bytes, 20),
            body_crc: u32_at(bytes, 24),
        };
        let limit = if authenticated { FRAME_BYTES_MAX } else { FRAME_BYTES_UNAUTHENTICATED_MAX };
        if prefix.body_bytes as usize > limit {
            return Err(FrameError::TooLarge { bytes: prefix.body_bytes as usize, limit });
        }
        if prefix.flags != 0 {
            return Err(FrameError::UnknownFlags { kind, flags: prefix.flags });
        }
        let header_bytes = usize::from(prefix.header_bytes);
        if header_bytes < kind.header_bytes_min() || header_bytes > prefix.body_bytes as usize {
            return Err(FrameError::Header { kind, bytes: header_bytes });
        }
        Ok(prefix)
    }

    /// Checks what follows the prefix against its checksum and cuts it into fixed header and body.
    ///
    /// # Errors
    /// When the checksum does not match.
    ///
    /// # Panics
    /// When `rest` is not of `body_bytes` length.
    pub fn split<'a>(&self, rest: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), FrameError> {
        assert_eq!(rest.len(), self.body_bytes as usize, "the caller read what the prefix announced");
        let (header, body) = rest.split_at(usize::from(self.header_bytes));
        let expected = crc32c::crc32c(if self.kind.carries_batches() { header } else { rest });
        if self.body_crc != expected {
            return Err(FrameError::BodyChecksum { found: self.body_crc, expected });
        }
        Ok((header, body))
    }
}

impl FrameKind {
    /// Whether the body is record batches, which carry their own CRC.
    #[must_use]
    pub const fn carries_batches(self) -> bool {
        matches!(self, FrameKind::Produce | FrameKind::Batch | FrameKind::Fetched)
    }

    /// Bytes of fixed header that this version needs.
    #[must_use]
    pub const fn header_bytes_min(self) -> usize {
        match self {
            FrameKind::ProducerOpen => ProducerOpen::BYTES,
            FrameKind::Bound => Bound::BYTES,
            FrameKind::Ack => Ack::BYTES,
            FrameKind::Subscribe => Subscribe::BYTES,
            FrameKind::Subscribed | FrameKind::Batch | FrameKind::Gap | FrameKind::Fetched => Place::BYTES,
            FrameKind::Credit => Credit::BYTES,
            FrameKind::Fetch => Fetch::BYTES,
            _ => 0,
        }
    }
}

/// Defines a fixed header: little-endian integers in order.
macro_rules! fixed_header {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Its length on the wire.
            pub const BYTES: usize = 0 $(+ size_of::<$type>())*;

            /// The header as it travels.
            #[must_use]
            pub fn encode(&self) -> [u8; Self::BYTES] {
                let mut bytes = [0; Self::BYTES];
                let mut at = 0;
                $(
                    let field = self.$field.to_le_bytes();
                    bytes[at..at + field.len()].copy_from_slice(&field);
                    at += field.len();
                )*
                debug_assert_eq!(at, Self::BYTES);
                bytes
            }

            /// Reads the header from the front of `bytes`; what follows is a newer version's.
            ///
            /// # Panics
            /// When `bytes` is shorter than the header: [`Prefix::decode`] has compared the lengths.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> $name {
                let mut at = 0;
                $(
                    let end = at + size_of::<$type>();
                    let $field = <$type>::from_le_bytes(bytes[at..end].try_into().expect("the slice has the type's length"));
                    at = end;
                )*
                debug_assert_eq!(at, Self::BYTES);
                $name { $($field),* }
            }
        }
    };
}

fixed_header! {
    /// See [`FrameKind::ProducerOpen`].
    ProducerOpen {
        /// The producer's id, from [`InitProducer`](crate::control::Request::InitProducer).
        producer_id: u64,
        /// Its epoch: at least the last one used, or the stream is refused as fenced.
        epoch: u16,
    }
}

fixed_header! {
    /// See [`FrameKind::Bound`]: what of this producer is durable in the partition.
    Bound {
        /// The sequence after its last durable record; -1 when the broker remembers none. i64, so that both fit.
        next_sequence: i64,
        /// The partition's high watermark.
        high_watermark: u64,
        /// Produce bytes this handle may have unanswered.
        in_flight_bytes: u32,
    }
}

fixed_header! {
    /// See [`FrameKind::Ack`]: a batch is durable, and this became of it.
    Ack {
        /// First offset the batch covers.
        base_offset: u64,
        /// First offset after those it covers.
        next_offset: u64,
        /// Inputs sent.
        records_in: u32,
        /// Inputs of which an output is stored.
        kept: u32,
        /// Outputs stored.
        stored: u32,
        /// Inputs dropped.
        dropped: u32,
        /// Inputs in the dead letter topic.
        dead_lettered: u32,
        /// Inputs refused; the body says which.
        rejected: u32,
    }
}

impl Ack {
    /// The books of the batch.
    #[must_use]
    pub fn books(&self) -> Books {
        Books {
            records_in: self.records_in.into(),
            kept: self.kept.into(),
            stored: self.stored.into(),
            dropped: self.dropped.into(),
            dead_lettered: self.dead_lettered.into(),
            rejected: self.rejected.into(),
        }
    }
}

fixed_header! {
    /// See [`FrameKind::Subscribe`].
    Subscribe {
        /// What the next two fields mean: 0 beginning, 1 end, 2 `offset`, 3 `timestamp_ms`.
        from: u32,
        /// Reserved, 0.
        reserved: u32,
        /// Where to begin, for `from` 2.
        offset: u64,
        /// Where to begin, for `from` 3.
        timestamp_ms: i64,
        /// First credit, in bytes.
        credit_bytes: u64,
    }
}

fixed_header! {
    /// How far a reader is, and how far it could be.
    Place {
        /// The offset to read next.
        next_offset: u64,
        /// First offset that nobody may see yet.
        high_watermark: u64,
    }
}

impl Place {
    /// The offset to read next.
    #[must_use]
    pub fn next(&self) -> Offset {
        Offset(self.next_offset)
    }
}

fixed_header! {
    /// See [`FrameKind::Credit`].
    Credit {
        /// How many more bytes the server may push.
        bytes: u64,
    }
}

fixed_header! {
    /// See [`FrameKind::Fetch`].
    Fetch {
        /// Where to begin.
        offset: u64,
        /// At most this many bytes of batches; the first batch comes even if it is larger.
        max_bytes: u32,
        /// Answer as soon as this many bytes are there, or the wait is over.
        min_bytes: u32,
        /// How long to wait, in milliseconds.
        wait_ms: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix { sequence: 7, handle: 3, aux: 9, ..Prefix::new(FrameKind::Response, b"", b"body") }
    }

    #[test]
    fn a_prefix_survives_the_wire() {
        assert_eq!(Prefix::decode(&prefix().encode(), true), Ok(prefix()));
    }

    #[test]
    fn every_flipped_bit_of_a_prefix_is_noticed() {
        for bit in 0..PREFIX_BYTES * 8 {
            let mut bytes = prefix().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Prefix::decode(&bytes, true).is_err(), "bit {bit} passed");
        }
    }

    #[test]
    fn a_body_is_checked_and_a_batch_is_left_to_its_own_crc() {
        assert!(prefix().split(b"bodY").is_err());
        let place = Place { next_offset: 1, high_watermark: 2 }.encode();
        let batch = Prefix::new(FrameKind::Batch, &place, b"any");
        let rest = [&place[..], b"xyz"].concat();
        let (header, body) = batch.split(&rest).unwrap();
        assert_eq!((Place::decode(header).next_offset, body), (1, &b"xyz"[..]));
    }

    #[test]
    fn lengths_are_refused_before_anything_is_read() {
        let long = Prefix { body_bytes: FRAME_BYTES_MAX as u32 + 1, ..prefix() };
        assert!(matches!(Prefix::decode(&long.encode(), true), Err(FrameError::TooLarge { .. })));
        let stranger = Prefix { body_bytes: FRAME_BYTES_UNAUTHENTICATED_MAX as u32 + 1, ..prefix() };
        assert!(matches!(Prefix::decode(&stranger.encode(), false), Err(FrameError::TooLarge { .. })));
        let short = Prefix { header_bytes: 0, ..Prefix::new(FrameKind::Ack, &[0; Ack::BYTES], b"") };
        assert!(matches!(Prefix::decode(&short.encode(), true), Err(FrameError::Header { .. })));
    }
}

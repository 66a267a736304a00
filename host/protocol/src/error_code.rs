//! Errors as they travel: stable numbers, each with a meaning, whether to retry, and what to do.
//!
//! Owns the one table of codes. Which internal error becomes which code is decided in one place of each door.

use std::fmt;

use minicbor::{Decode, Encode};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $retry:literal, $advice:literal;)*) => {
        /// A numbered error of the native protocol. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// All codes, in order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code of a number; an unknown one (from a newer peer) is [`ErrorCode::Internal`].
            #[must_use]
            pub const fn from_number(number: u16) -> ErrorCode {
                match number {
                    $($number => ErrorCode::$name,)*
                    _ => ErrorCode::Internal,
                }
            }

            /// The word used in JSON and in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $word,)* }
            }

            /// Whether the same request may succeed later as it is.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(ErrorCode::$name => $retry,)* }
            }

            /// What a person can do.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(ErrorCode::$name => $advice,)* }
            }
        }
    };
}

error_codes! {
    /// We are broken.
    Internal = 1, "internal", true, "look at the broker's log; retry, and report it if it stays";
    /// The peer broke the protocol.
    ProtocolViolation = 2, "protocol_violation", false, "use a client of the same protocol version";
    /// No common protocol version or required feature.
    UnsupportedVersion = 3, "unsupported_version", false, "bring client and broker to versions that share a feature set";
    /// Nobody we know.
    Unauthenticated = 4, "unauthenticated", false, "join with an identity file that this broker issued";
    /// Known, but not allowed to.
    Unauthorized = 5, "unauthorized", false, "ask an operator for the right on this resource";
    /// Something given is not valid; the text names it.
    InvalidRequest = 6, "invalid_request", false, "correct what the text names";
    /// Over a limit; the text names limit and value.
    LimitExceeded = 7, "limit_exceeded", false, "stay below the limit, or raise it where it can be raised";
    /// No such topic.
    UnknownTopic = 8, "unknown_topic", false, "create it: `weir topic create NAME`";
    /// The topic has no partition of this number.
    UnknownPartition = 9, "unknown_partition", false, "`weir topic describe NAME` lists the partitions";
    /// A topic, plugin or transform of this name exists with other settings.
    AlreadyExists = 10, "already_exists", false, "choose another name, or alter what exists";
    /// The batch's CRC, lengths or counts are wrong.
    CorruptBatch = 11, "corrupt_batch", true, "retry; if it stays, the client encodes batches wrongly";
    /// A record is larger than its topic allows.
    RecordTooLarge = 12, "record_too_large", false, "send smaller records, or raise `max_record_bytes` of the topic";
    /// The offset is not in `[log_start_offset, high_watermark]`.
    OffsetOutOfRange = 13, "offset_out_of_range", false, "start at the beginning or the end, or at an offset in range";
    /// A batch of this producer is missing in between.
    OutOfOrderSequence = 14, "out_of_order_sequence", false, "reopen the producer; it learns its last durable sequence";
    /// A newer incarnation of this producer writes.
    ProducerFenced = 15, "producer_fenced", false, "stop this one; give each running producer an id of its own";
    /// The broker's queues are full.
    Overloaded = 16, "overloaded", true, "retry after the time given";
    /// The outcome of a commit is not known; the retry decides.
    CommitUnknown = 17, "commit_unknown", true, "retry with the same producer id and sequence";
    /// The disk fails and the store takes no writes; it tries again by itself.
    ReadOnly = 18, "read_only", true, "retry; `weir status` shows what the disk said";
    /// The broker is going away.
    ShuttingDown = 19, "shutting_down", true, "reconnect";
    /// Not a WASM module, or one that we refuse; the text says which rule it breaks.
    InvalidPlugin = 20, "invalid_plugin", false, "`weir plugin test FILE` checks a module without a broker";
    /// No such plugin.
    UnknownPlugin = 21, "unknown_plugin", false, "upload it: `weir plugin upload NAME FILE`";
    /// A transform uses the plugin.
    PluginInUse = 22, "plugin_in_use", false, "remove the transforms first: `weir transform list`";
    /// No such transform on the topic.
    UnknownTransform = 23, "unknown_transform", false, "`weir transform list` shows what is deployed";
    /// The transform did not take its configuration, or its targets do not exist.
    InvalidTransform = 24, "invalid_transform", false, "correct the configuration; `weir plugin describe NAME` shows its schema";
    /// A transform failed with `on_error = pause`; the partition waits.
    TransformPaused = 25, "transform_paused", true, "replace or remove the transform that failed";
    /// The data asked for is damaged on disk.
    CorruptData = 26, "corrupt_data", false, "`weir verify` names the damage, `weir salvage` saves the rest";
    /// The request was cancelled.
    Cancelled = 27, "cancelled", true, "ask again";
    /// A record is not one that its topic takes; the text names it.
    InvalidRecord = 28, "invalid_record", false, "correct the record that the text names, or alter the topic";
    /// The disk, or what the broker may use of it, is full: no records are taken until there is space again.
    DiskFull = 29, "disk_full", true, "raise `storage.budget`, shorten retention or delete topics; `weir status` shows the disk";
    /// A backup was not made, and the one before is as it was; the text says why.
    BackupFailed = 30, "backup_failed", false, "correct what the text names; `--to` is a directory on the broker's host, which the broker must be able to write";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<C> Encode<C> for ErrorCode {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(*self as u16)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ErrorCode {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u16().map(ErrorCode::from_number)
    }
}

/// The body of an ERROR frame: why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{text}")]
pub struct WireError {
    /// Which error.
    #[n(0)]
    pub code: ErrorCode,
    /// What was wrong, with names, limits and values: lower case, no full stop.
    #[n(1)]
    pub text: String,
    /// How long to wait before a retry, in milliseconds; 0 where no retry helps or any time will do.
    #[n(2)]
    pub retry_after_ms: u32,
}

impl WireError {
    /// An error without advice on time.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        WireError { code, text: text.into(), retry_after_ms: 0 }
    }
}

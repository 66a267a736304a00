//! What can go wrong, one small enum per thing that a program does.
//!
//! Errors that a retry can mend do not show here before the time for retrying is over: then they are the `last` of a
//! `TimedOut`.

use std::{io, time::Duration};

use protocol::{BatchError, ErrorCode, TopicPartition, WireError};

use crate::identity::IdentityError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The list of brokers is empty.
    #[error("no broker was given")]
    NoBroker,
    /// The address is none, or its host has none.
    #[error("broker address `{broker}` cannot be used: {reason}")]
    Address {
        /// As given.
        broker: String,
        /// Why.
        reason: String,
    },
    /// No socket could be opened on this side.
    #[error("no socket could be opened towards `{broker}`")]
    Socket {
        /// The broker that was to be reached.
        broker: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The host is there, and nobody listens on the port.
    #[error("nobody listens at `{broker}`; is the broker running?")]
    Refused {
        /// Who was tried.
        broker: String,
    },
    /// Nothing came back.
    #[error("`{broker}` did not answer within {waited:?}")]
    NoAnswer {
        /// Who was tried.
        broker: String,
        /// For how long.
        waited: Duration,
    },
    /// One side does not accept the other's certificate.
    #[error(
        "`{broker}` and this identity do not belong together ({reason}); use an identity file that this broker issued"
    )]
    WrongIdentity {
        /// Who was tried.
        broker: String,
        /// In the words of TLS.
        reason: String,
    },
    /// Something else listens there.
    #[error("`{broker}` is not a weir broker of this protocol version ({reason})")]
    NotWeir {
        /// Who was tried.
        broker: String,
        /// How it showed.
        reason: String,
    },
    /// The broker does not let us in; the code says why.
    #[error("`{broker}` refused the connection")]
    Refusal {
        /// Who was tried.
        broker: String,
        /// Its answer.
        #[source]
        error: WireError,
    },
    /// The connection broke while it was being made.
    #[error("the connection to `{broker}` broke: {reason}")]
    Lost {
        /// Who was tried.
        broker: String,
        /// How it showed.
        reason: String,
    },
    /// The identity cannot be used.
    #[error("the identity cannot be used")]
    Identity(#[from] IdentityError),
}

/// Why an administrative request, or a look at the metadata, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    /// The broker refused; its code and text say why, [`ErrorCode::advice`] what to do.
    #[error("{0}")]
    Refused(WireError),
    /// The file is larger than a broker takes.
    #[error("plugin of {bytes} bytes is larger than `plugin_bytes_max` ({limit})")]
    PluginTooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// No answer in time. A change may have been made.
    #[error("no answer within {waited:?}; last: {last}")]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// What the last try ended with.
        last: String,
        /// The broker's code for that, where it is the broker that refused.
        code: Option<ErrorCode>,
    },
    /// The broker answered something that is no answer to the request.
    #[error("the broker's answer is not one to this request")]
    WrongAnswer,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl AdminError {
    /// The broker's code, where it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            AdminError::Refused(error) => Some(error.code),
            AdminError::TimedOut { code, .. } => *code,
            _ => None,
        }
    }
}

/// Why a record or batch was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// The broker refused the batch for good: it is not stored. Code and text say why.
    #[error("batch for `{partition}` was refused: {error}")]
    Refused {
        /// Where it was to go.
        partition: TopicPartition,
        /// The broker's answer.
        error: WireError,
    },
    /// The topic cannot be looked up.
    #[error("topic `{topic}` cannot be looked up")]
    Topic {
        /// Which one.
        topic: protocol::TopicName,
        /// Why.
        #[source]
        cause: AdminError,
    },
    /// The record is larger than its topic allows; nothing was sent.
    #[error("record of {bytes} bytes is larger than `max_record_bytes` ({limit}) of topic `{topic}`")]
    RecordTooLarge {
        /// Key, value and headers together.
        bytes: usize,
        /// What is allowed.
        limit: usize,
        /// By which topic.
        topic: protocol::TopicName,
    },
    /// The records cannot be encoded as a batch; nothing was sent.
    #[error("records cannot be encoded")]
    Batch(#[from] BatchError),
    /// No answer within the delivery timeout. When the batch had been sent, it may be stored all the same.
    #[error("no acknowledgement within {waited:?} ({}); last: {last}", if *.sent { "it may be stored" } else { "it was never sent" })]
    TimedOut {
        /// The delivery timeout.
        waited: Duration,
        /// Whether the batch had been sent: then its outcome is unknown.
        sent: bool,
        /// What the last try ended with.
        last: String,
        /// The broker's code for that, where it is the broker that refused.
        code: Option<ErrorCode>,
    },
    /// The broker no longer remembers this producer and so cannot tell whether the batch, sent before the connection
    /// broke, is stored. Sending it again might store it twice, so that is left to the program.
    #[error("the broker forgot this producer while a batch for `{partition}` was in flight; it may be stored")]
    OutcomeUnknown {
        /// Where it was to go.
        partition: TopicPartition,
    },
    /// Another producer with the same id took over.
    #[error("a newer incarnation of this producer writes")]
    Fenced,
    /// More partitions than one producer can write to.
    #[error("a producer can write to at most {limit} partitions")]
    TooManyPartitions {
        /// How many it can.
        limit: usize,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl ProduceError {
    /// The broker's code, where it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ProduceError::Refused { error, .. } => Some(error.code),
            ProduceError::TimedOut { code, .. } => *code,
            ProduceError::Topic { cause, .. } => cause.code(),
            ProduceError::Fenced => Some(ErrorCode::ProducerFenced),
            ProduceError::RecordTooLarge { .. } => Some(ErrorCode::RecordTooLarge),
            _ => None,
        }
    }
}

/// Why reading a partition stopped. Other partitions of the consumer go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumeError {
    /// The broker refused: the topic is not there, the offset is out of range, the data is damaged.
    #[error("reading `{partition}` was refused: {error}")]
    Refused {
        /// What was read.
        partition: TopicPartition,
        /// The broker's answer.
        error: WireError,
    },
    /// A batch arrived that is none.
    #[error("batch at offset {offset} of `{partition}` is damaged")]
    Damaged {
        /// What was read.
        partition: TopicPartition,
        /// Where.
        offset: protocol::Offset,
        /// How it showed.
        #[source]
        cause: BatchError,
    },
    /// A list of topics or partitions cannot be looked up.
    #[error("topic cannot be looked up")]
    Lookup(#[from] AdminError),
    /// The partition is not one of this consumer's.
    #[error("partition `{0}` is not assigned to this consumer")]
    NotAssigned(TopicPartition),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ConsumeError {
    /// The broker's code, where it is the broker that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ConsumeError::Refused { error, .. } => Some(error.code),
            ConsumeError::Lookup(cause) => cause.code(),
            _ => None,
        }
    }
}

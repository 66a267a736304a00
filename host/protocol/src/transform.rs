//! A transform's settings and what it has done, as every door shows them.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::{
    PluginName, TopicName, TransformName,
    limits::{GUEST_DEADLINE_MS, GUEST_MEMORY_BYTES, GUEST_OUTPUT_BYTES_MAX},
};

/// What becomes of a record that a transform fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum OnError {
    /// The original goes to `<topic>.dlq`, with headers that say why.
    #[default]
    #[n(0)]
    DeadLetter,
    /// It is dropped, and counted as dropped.
    #[n(1)]
    Drop,
    /// The producer gets a record-level error.
    #[n(2)]
    Reject,
    /// The partition stops until an operator acts; the producer gets a retriable error.
    #[n(3)]
    Pause,
}

impl OnError {
    /// The word used in the CLI, in metrics and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OnError::DeadLetter => "dead-letter",
            OnError::Drop => "drop",
            OnError::Reject => "reject",
            OnError::Pause => "pause",
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is none of `dead-letter`, `drop`, `reject`, `pause`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of `dead-letter`, `drop`, `reject`, `pause`")]
pub struct OnErrorUnknown(String);

impl FromStr for OnError {
    type Err = OnErrorUnknown;
    fn from_str(word: &str) -> Result<Self, OnErrorUnknown> {
        [OnError::DeadLetter, OnError::Drop, OnError::Reject, OnError::Pause]
            .into_iter()
            .find(|policy| policy.as_str() == word)
            .ok_or_else(|| OnErrorUnknown(word.to_owned()))
    }
}

/// What one transform may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransformLimits {
    /// Memory of one instance, in bytes.
    #[n(0)]
    pub memory_bytes: u64,
    /// CPU time of one call (one batch), in milliseconds.
    #[n(1)]
    pub deadline_ms: u32,
    /// What it may return for one batch, in bytes.
    #[n(2)]
    pub output_bytes: u64,
}

impl Default for TransformLimits {
    fn default() -> Self {
        TransformLimits {
            memory_bytes: GUEST_MEMORY_BYTES as u64,
            deadline_ms: GUEST_DEADLINE_MS,
            output_bytes: GUEST_OUTPUT_BYTES_MAX as u64,
        }
    }
}

/// A transform as it is deployed on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransformSpec {
    /// Its name on the topic.
    #[n(0)]
    pub name: TransformName,
    /// The plugin it runs.
    #[n(1)]
    pub plugin: PluginName,
    /// SHA-256 of that plugin's module: what was deployed stays what it was, whatever is uploaded later.
    #[n(2)]
    pub plugin_hash: PluginHash,
    /// Its configuration, as JSON text; `{}` when none was given.
    #[n(3)]
    pub config: String,
    /// What becomes of records it fails on.
    #[n(4)]
    pub on_error: OnError,
    /// What it may use.
    #[n(5)]
    pub limits: TransformLimits,
    /// Other topics it may route to; target 1 of the ABI is the first.
    #[n(6)]
    pub targets: Vec<TopicName>,
}

/// SHA-256 of a plugin's WASM file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PluginHash(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl fmt::Display for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a transform has done since it was deployed or the broker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct TransformStats {
    /// Batches it was called with.
    #[n(0)]
    pub batches: u64,
    /// Records that reached it.
    #[n(1)]
    pub records_in: u64,
    /// Records it let through, changed or not.
    #[n(2)]
    pub kept: u64,
    /// Records it put out (more than `kept` for a flat-map).
    #[n(3)]
    pub records_out: u64,
    /// Records it dropped.
    #[n(4)]
    pub dropped: u64,
    /// Records it failed on, whatever became of them.
    #[n(5)]
    pub failed: u64,
    /// Times its instance trapped or ran over its deadline.
    #[n(6)]
    pub traps: u64,
    /// Wall time spent in it, framing included, in nanoseconds.
    #[n(7)]
    pub ns: u64,
}

/// A deployed transform as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TransformDescription {
    /// The topic it runs on.
    #[n(0)]
    pub topic: TopicName,
    /// Its place in the pipeline, from 0.
    #[n(1)]
    pub stage: u32,
    /// Its settings.
    #[n(2)]
    pub spec: TransformSpec,
    /// What it has done.
    #[n(3)]
    pub stats: TransformStats,
}

/// An uploaded plugin as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PluginDescription {
    /// Its name.
    #[n(0)]
    pub name: PluginName,
    /// SHA-256 of the module.
    #[n(1)]
    pub hash: PluginHash,
    /// Size of the module in bytes.
    #[n(2)]
    pub wasm_bytes: u64,
    /// What the module says of itself: JSON of `weir_describe`, or empty.
    #[n(3)]
    pub describe: String,
    /// When it was uploaded, milliseconds since 1970.
    #[n(4)]
    pub uploaded_at_ms: u64,
}

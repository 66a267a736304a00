//! A transform's settings and what it has done, as every door shows them.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode};

use crate::{
    PluginName, TopicName, TransformName,
    limits::{
        BATCH_RECORDS_MAX, BREAKER_BATCHES, GUEST_CPU_SHARE, GUEST_DEADLINE_MS, GUEST_FAILURE_MS,
        GUEST_FAILURES_PER_BATCH, GUEST_LOG_LINES_PER_S, GUEST_MEMORY_BYTES, GUEST_OUTPUT_BYTES_MAX,
        GUEST_RECORD_DEADLINE_MS, GUEST_STACK_BYTES,
    },
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

/// What becomes of a topic's records while a transform's breaker is open: it kept failing, and is not called for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum BreakerPolicy {
    /// They go to `<topic>.dlq` as they are, whatever the transform's policy for single records.
    #[default]
    #[n(0)]
    DeadLetter,
    /// The partition takes none; producers get a retriable error.
    #[n(1)]
    Pause,
    /// They pass as if the transform were not there. Not for transforms that mask or guard.
    #[n(2)]
    PassThrough,
}

impl BreakerPolicy {
    /// What goes with a policy for single records: where those go to the dead letter topic, all do; else nothing is to be
    /// taken or lost unseen.
    #[must_use]
    pub const fn beside(on_error: OnError) -> BreakerPolicy {
        match on_error {
            OnError::DeadLetter => BreakerPolicy::DeadLetter,
            OnError::Drop | OnError::Reject | OnError::Pause => BreakerPolicy::Pause,
        }
    }
}

/// Which instance of a plugin a batch meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Isolation {
    /// One that has served others of this transform: what the guest keeps in its memory stays.
    #[default]
    #[n(0)]
    Reused,
    /// A fresh one for each batch: nothing a batch leaves behind meets the next.
    #[n(1)]
    Fresh,
}

macro_rules! words {
    ($type:ident, $unknown:ident, $all:literal, $($word:literal = $variant:ident,)*) => {
        impl $type {
            /// The word used in the CLI, in metrics and in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        #[doc = concat!("A word that is none of ", $all, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("`{0}` is not one of {all}", all = $all)]
        pub struct $unknown(String);

        impl FromStr for $type {
            type Err = $unknown;
            fn from_str(word: &str) -> Result<Self, $unknown> {
                match word {
                    $($word => Ok($type::$variant),)*
                    _ => Err($unknown(word.to_owned())),
                }
            }
        }
    };
}

words!(
    OnError,
    OnErrorUnknown,
    "`dead-letter`, `drop`, `reject`, `pause`",
    "dead-letter" = DeadLetter,
    "drop" = Drop,
    "reject" = Reject,
    "pause" = Pause,
);
words!(
    BreakerPolicy,
    BreakerPolicyUnknown,
    "`dead-letter`, `pause`, `pass-through`",
    "dead-letter" = DeadLetter,
    "pause" = Pause,
    "pass-through" = PassThrough,
);
words!(Isolation, IsolationUnknown, "`reused`, `fresh`", "reused" = Reused, "fresh" = Fresh,);

macro_rules! limits {
    ($($(#[$doc:meta])* $n:literal $field:ident: $type:ty = $default:expr,)*) => {
        /// What one transform may use. Each can be changed while it runs; none costs anything while it idles.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
        #[cbor(map)]
        pub struct TransformLimits {
            $($(#[$doc])* #[n($n)] pub $field: $type,)*
        }

        impl Default for TransformLimits {
            fn default() -> Self {
                TransformLimits { $($field: $default,)* }
            }
        }

        /// Some of a transform's limits; what is `None` stays as it is, or is the default.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
        #[cbor(map)]
        pub struct LimitChanges {
            $($(#[$doc])* #[n($n)] pub $field: Option<$type>,)*
        }

        impl LimitChanges {
            /// The limits that these make of `limits`.
            #[must_use]
            pub fn apply(&self, limits: TransformLimits) -> TransformLimits {
                TransformLimits { $($field: self.$field.unwrap_or(limits.$field),)* }
            }
        }
    };
}

limits! {
    /// Memory of one instance, in bytes.
    0 memory_bytes: u64 = GUEST_MEMORY_BYTES as u64,
    /// CPU time of one call (one batch), in milliseconds.
    1 deadline_ms: u32 = GUEST_DEADLINE_MS,
    /// What it may return for one batch, in bytes.
    2 output_bytes: u64 = GUEST_OUTPUT_BYTES_MAX as u64,
    /// CPU time of one record, in milliseconds: of the one that `weir_cursor` names, and of a call with one record.
    3 record_deadline_ms: u32 = GUEST_RECORD_DEADLINE_MS,
    /// Stack of a call, in bytes: a power of two.
    4 stack_bytes: u32 = GUEST_STACK_BYTES as u32,
    /// Records it may return for one batch.
    5 output_records: u32 = BATCH_RECORDS_MAX as u32,
    /// Failures (traps, deadlines, bad outputs) of one batch that are followed down to the single record; past it, the
    /// records that are not decided yet fail together.
    6 failures: u32 = GUEST_FAILURES_PER_BATCH,
    /// CPU time of all calls after the first failure of a batch, in milliseconds; past it as with `failures`.
    7 failure_ms: u32 = GUEST_FAILURE_MS,
    /// Lines it may log in a second, over all its instances; the rest is counted.
    8 log_lines_per_s: u32 = GUEST_LOG_LINES_PER_S,
    /// Its weight where several transforms want the processor: one of 200 gets twice what one of 100 gets.
    9 cpu_share: u32 = GUEST_CPU_SHARE,
    /// The most it may use, in percent of one processor; 0: whatever is free.
    10 cpu_percent: u32 = 0,
    /// Batches in a row that it fails on, wholly or nearly, before its breaker opens; 0: it never does.
    11 breaker_batches: u32 = BREAKER_BATCHES,
}

/// A limit that a stored row or an older peer does not name is the default.
impl<'b, C> Decode<'b, C> for TransformLimits {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        LimitChanges::decode(decoder, context).map(|named| named.apply(TransformLimits::default()))
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
    /// Which instance a batch meets.
    #[n(7)]
    #[cbor(default)]
    pub isolation: Isolation,
    /// What becomes of records while it keeps failing.
    #[n(8)]
    #[cbor(default)]
    pub breaker: BreakerPolicy,
}

impl TransformSpec {
    /// A plugin under this name, with everything else as it is by default.
    #[must_use]
    pub fn new(name: TransformName, plugin: PluginName, plugin_hash: PluginHash) -> TransformSpec {
        TransformSpec {
            name,
            plugin,
            plugin_hash,
            config: "{}".into(),
            on_error: OnError::default(),
            limits: TransformLimits::default(),
            targets: Vec::new(),
            isolation: Isolation::default(),
            breaker: BreakerPolicy::default(),
        }
    }

    /// Whether records may come to the dead letter topic through it.
    #[must_use]
    pub fn writes_dead_letters(&self) -> bool {
        let by_breaker = self.breaker == BreakerPolicy::DeadLetter && self.limits.breaker_batches > 0;
        self.on_error == OnError::DeadLetter || by_breaker
    }
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
    /// Of the `traps`, those that ran over a deadline.
    #[n(8)]
    #[cbor(default)]
    pub deadline_hits: u64,
    /// Bytes of the records that reached it, uncompressed.
    #[n(9)]
    #[cbor(default)]
    pub bytes_in: u64,
    /// Bytes of the records it left for the next stage, uncompressed.
    #[n(10)]
    #[cbor(default)]
    pub bytes_out: u64,
    /// CPU time it was charged for, in nanoseconds. Calls of less than a millisecond count by the wall.
    #[n(11)]
    #[cbor(default)]
    pub cpu_ns: u64,
    /// Lines it logged.
    #[n(12)]
    #[cbor(default)]
    pub log_lines: u64,
    /// Of those, lines past `log_lines_per_s` or past what one call may log, which went nowhere.
    #[n(13)]
    #[cbor(default)]
    pub log_lines_cut: u64,
    /// Times its breaker opened.
    #[n(14)]
    #[cbor(default)]
    pub trips: u64,
    /// Records that its open breaker kept from it.
    #[n(15)]
    #[cbor(default)]
    pub bypassed: u64,
}

/// What a transform holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct TransformUsage {
    /// Its instances, idle ones included.
    #[n(0)]
    pub instances: u32,
    /// Memory of all of them, in bytes.
    #[n(1)]
    pub memory_bytes: u64,
    /// Batches that are in it now.
    #[n(2)]
    pub running: u32,
    /// Set while its breaker is open.
    #[n(3)]
    pub breaker: Option<BreakerOpen>,
}

/// An open breaker: the transform kept failing, and is tried again only now and then.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BreakerOpen {
    /// The last failure.
    #[n(0)]
    pub cause: String,
    /// When one batch is let through to try, in milliseconds from now; 0: the next one.
    #[n(1)]
    pub retry_in_ms: u64,
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
    /// What it holds now.
    #[n(4)]
    #[cbor(default)]
    pub usage: TransformUsage,
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

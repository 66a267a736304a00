//! The nouns as JSON: what `--json` prints, with the field names of the code.
//!
//! Owns no meaning of its own; each view is made from a noun of `protocol` and changes as that does.

use protocol::{
    Books, BreakerOpen, PluginDescription, RecordError, Retention, TopicDescription, TransformDescription,
    TransformLimits, TransformStats, TransformUsage, control::Status,
};
use serde::Serialize;
use serde_json::{Value, json};

/// A topic with its partitions.
#[derive(Debug, Serialize)]
pub(crate) struct TopicView {
    pub(crate) topic: String,
    pub(crate) partitions: Vec<PartitionView>,
    /// The next four fields, as the noun that knows what applies.
    #[serde(skip)]
    pub(crate) retention: Retention,
    pub(crate) retention_age_ms: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) cleanup_policy: &'static str,
    pub(crate) delete_retention_ms: u64,
    pub(crate) max_record_bytes: u32,
}

/// One partition.
#[derive(Debug, Serialize)]
pub(crate) struct PartitionView {
    pub(crate) partition: u32,
    pub(crate) log_start_offset: u64,
    pub(crate) high_watermark: u64,
    pub(crate) bytes: u64,
}

impl From<&TopicDescription> for TopicView {
    fn from(topic: &TopicDescription) -> TopicView {
        let partition = |(number, partition): (usize, &protocol::PartitionDescription)| PartitionView {
            partition: number as u32,
            log_start_offset: partition.log_start_offset.0,
            high_watermark: partition.high_watermark.0,
            bytes: partition.bytes,
        };
        let Retention { age_ms, bytes, policy, delete_retention_ms } = topic.config.retention;
        TopicView {
            topic: topic.name.to_string(),
            partitions: topic.partitions.iter().enumerate().map(partition).collect(),
            retention: topic.config.retention,
            retention_age_ms: age_ms,
            retention_bytes: bytes,
            cleanup_policy: policy.as_str(),
            delete_retention_ms,
            max_record_bytes: topic.config.max_record_bytes,
        }
    }
}

/// A plugin that lies on the broker.
#[derive(Debug, Serialize)]
pub(crate) struct PluginView {
    pub(crate) plugin: String,
    pub(crate) hash: String,
    pub(crate) wasm_bytes: u64,
    pub(crate) uploaded_at_ms: u64,
    /// What the module says of itself: JSON where it is JSON, else text.
    pub(crate) describe: Value,
}

impl From<&PluginDescription> for PluginView {
    fn from(plugin: &PluginDescription) -> PluginView {
        PluginView {
            plugin: plugin.name.to_string(),
            hash: plugin.hash.to_string(),
            wasm_bytes: plugin.wasm_bytes,
            uploaded_at_ms: plugin.uploaded_at_ms,
            describe: json_or_text(&plugin.describe),
        }
    }
}

/// A transform with its settings and what it has done.
#[derive(Debug, Serialize)]
pub(crate) struct TransformView {
    pub(crate) topic: String,
    pub(crate) stage: u32,
    pub(crate) transform: String,
    pub(crate) plugin: String,
    pub(crate) plugin_hash: String,
    pub(crate) config: Value,
    pub(crate) on_error: String,
    pub(crate) breaker: String,
    pub(crate) isolation: String,
    pub(crate) targets: Vec<String>,
    #[serde(flatten)]
    pub(crate) limits: LimitsView,
    #[serde(flatten)]
    pub(crate) stats: StatsView,
    #[serde(flatten)]
    pub(crate) usage: UsageView,
}

macro_rules! numbers {
    ($(#[$doc:meta])* $view:ident of $noun:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Serialize)]
        pub(crate) struct $view {
            $(pub(crate) $field: $type,)*
        }

        impl From<$noun> for $view {
            fn from(noun: $noun) -> $view {
                let $noun { $($field,)* } = noun;
                $view { $($field,)* }
            }
        }
    };
}

numbers! {
    /// What a transform may use.
    LimitsView of TransformLimits {
        memory_bytes: u64,
        deadline_ms: u32,
        output_bytes: u64,
        record_deadline_ms: u32,
        stack_bytes: u32,
        output_records: u32,
        failures: u32,
        failure_ms: u32,
        log_lines_per_s: u32,
        cpu_share: u32,
        cpu_percent: u32,
        breaker_batches: u32,
    }
}

/// What a transform holds now.
#[derive(Debug, Serialize)]
pub(crate) struct UsageView {
    pub(crate) instances: u32,
    /// Of all its instances; `memory_bytes` is the limit of one.
    #[serde(rename = "instance_memory_bytes")]
    pub(crate) memory_bytes: u64,
    pub(crate) running: u32,
    pub(crate) breaker_open: Option<BreakerView>,
}

/// An open breaker.
#[derive(Debug, Serialize)]
pub(crate) struct BreakerView {
    pub(crate) cause: String,
    pub(crate) retry_in_ms: u64,
}

impl From<TransformUsage> for UsageView {
    fn from(usage: TransformUsage) -> UsageView {
        let TransformUsage { instances, memory_bytes, running, breaker } = usage;
        let breaker_open = breaker.map(|BreakerOpen { cause, retry_in_ms }| BreakerView { cause, retry_in_ms });
        UsageView { instances, memory_bytes, running, breaker_open }
    }
}

numbers! {
    /// What a transform has done since it was deployed or the broker started.
    CountsView of TransformStats {
        batches: u64,
        records_in: u64,
        kept: u64,
        records_out: u64,
        dropped: u64,
        failed: u64,
        traps: u64,
        ns: u64,
        deadline_hits: u64,
        bytes_in: u64,
        bytes_out: u64,
        cpu_ns: u64,
        log_lines: u64,
        log_lines_cut: u64,
        trips: u64,
        bypassed: u64,
    }
}

/// The counts, and what they come to for a record.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct StatsView {
    #[serde(flatten)]
    counts: CountsView,
    pub(crate) ns_per_record: u64,
    pub(crate) bytes_per_record: u64,
}

impl From<TransformStats> for StatsView {
    fn from(stats: TransformStats) -> StatsView {
        let per_record = |sum: u64| sum.checked_div(stats.records_in).unwrap_or(0);
        let (ns_per_record, bytes_per_record) = (per_record(stats.ns), per_record(stats.bytes_in));
        StatsView { counts: stats.into(), ns_per_record, bytes_per_record }
    }
}

impl std::ops::Deref for StatsView {
    type Target = CountsView;
    fn deref(&self) -> &CountsView {
        &self.counts
    }
}

impl From<&TransformDescription> for TransformView {
    fn from(transform: &TransformDescription) -> TransformView {
        let spec = &transform.spec;
        TransformView {
            topic: transform.topic.to_string(),
            stage: transform.stage,
            transform: spec.name.to_string(),
            plugin: spec.plugin.to_string(),
            plugin_hash: spec.plugin_hash.to_string(),
            config: json_or_text(&spec.config),
            on_error: spec.on_error.to_string(),
            breaker: spec.breaker.to_string(),
            isolation: spec.isolation.to_string(),
            targets: spec.targets.iter().map(ToString::to_string).collect(),
            limits: spec.limits.into(),
            stats: transform.stats.into(),
            usage: transform.usage.clone().into(),
        }
    }
}

/// What became of the records of a command: the summary line of `produce` and `demo`.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BooksView {
    pub(crate) records_in: u64,
    pub(crate) kept: u64,
    pub(crate) stored: u64,
    pub(crate) dropped: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) rejected: u64,
}

impl From<Books> for BooksView {
    fn from(books: Books) -> BooksView {
        let Books { records_in, kept, stored, dropped, dead_lettered, rejected } = books;
        BooksView { records_in, kept, stored, dropped, dead_lettered, rejected }
    }
}

/// A record that was refused.
#[derive(Debug, Serialize)]
pub(crate) struct RejectedView {
    pub(crate) rejected_line: u64,
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl RejectedView {
    pub(crate) fn new(line: u64, error: &RecordError) -> RejectedView {
        RejectedView { rejected_line: line, code: error.code, text: error.text.clone() }
    }
}

/// How the broker is.
pub(crate) fn status(status: &Status) -> Value {
    json!({
        "broker": status.broker,
        "store_id": status.store_id,
        "uptime_ms": status.uptime_ms,
        "disk_bytes": status.disk_bytes,
        "budget_bytes": status.budget_bytes,
        "available_bytes": status.available_bytes,
        "scrubbed_bytes": status.scrubbed_bytes,
        "damages": status.damages,
        "segments": status.segments,
        "commit_sequence": status.commit_sequence,
        "topics": status.topics,
        "partitions": status.partitions,
        "connections": status.connections,
        "health": status.health.as_str(),
        "why": status.health.why(),
    })
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

//! A host, guests written as text, and batches for them.

use std::sync::Arc;

use protocol::{
    BatchBuilder, Compression, Offset, PluginName, Record, RecordBatch, TopicName, TransformLimits, TransformName,
    TransformSpec, limits::RECORD_BYTES_MAX, records,
};
use transform::{
    Pipeline, PipelineError, PipelineInput, PipelineOutput, Plugin, PluginHost, PluginHostOptions, Transform,
    TransformError, Worker,
};

/// Where the batches of these tests begin.
pub(crate) const BASE: Offset = Offset(1_000);

/// The timestamp of their first record.
pub(crate) const TIME: i64 = 1_700_000_000_000;

/// A host without a cache and with room for a few instances.
pub(crate) fn host() -> PluginHost {
    PluginHost::new(&PluginHostOptions { instances_max: 16, ..PluginHostOptions::without_cache() }).unwrap()
}

/// A guest: the exports every one needs, and `body` with `weir_process` and whatever else. Input goes to address 65536;
/// there are 16 pages.
pub(crate) fn guest(body: &str) -> Vec<u8> {
    guest_with_memory("(memory (export \"memory\") 16)", body)
}

/// The same with another memory.
pub(crate) fn guest_with_memory(memory: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "weir" "log" (func $log (param i32 i32 i32)))
            {memory}
            (func (export "weir_abi_version") (result i32) (i32.const 1))
            (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
            {body})"#
    );
    wat::parse_str(text).unwrap()
}

/// A `weir_process` whose output is these bytes, wherever it is called.
pub(crate) fn constant_output(bytes: &[u8]) -> String {
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(data (i32.const 1024) "{data}")
        (func (export "weir_process") (param i32 i32) (result i64)
            (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const {})))"#,
        bytes.len()
    )
}

/// A guest whose output for every batch is `output`, which lies at [`PUPPET_AT`] in its memory.
pub(crate) fn puppet(host: &PluginHost, output: &[u8], change: impl FnOnce(&mut TransformSpec)) -> Arc<Transform> {
    puppet_with_data(host, output, &[], change)
}

/// The same, with more bytes behind the output that it can point to.
pub(crate) fn puppet_with_data(
    host: &PluginHost,
    output: &[u8],
    data: &[u8],
    change: impl FnOnce(&mut TransformSpec),
) -> Arc<Transform> {
    puppet_of(host, &puppet_plugin(host), output, data, change)
}

/// What puppets are made of, for tests that make many.
pub(crate) fn puppet_plugin(host: &PluginHost) -> Plugin {
    host.load(&wat::parse_str(include_str!("../guests/puppet.wat")).unwrap()).unwrap()
}

/// See [`puppet_with_data`].
pub(crate) fn puppet_of(
    host: &PluginHost,
    plugin: &Plugin,
    output: &[u8],
    data: &[u8],
    change: impl FnOnce(&mut TransformSpec),
) -> Arc<Transform> {
    let length = (output.len() as u32).to_le_bytes();
    let digits: String = length.iter().chain(output).chain(data).map(|byte| format!("{byte:02x}")).collect();
    let mut spec = spec("guest", plugin);
    spec.config = format!("\"{digits}\"");
    change(&mut spec);
    Transform::new(host, plugin, spec).map(Arc::new).unwrap()
}

/// Where a puppet's output lies.
pub(crate) const PUPPET_AT: u32 = 131_072;

/// A guest that is set off by single bytes: see its file.
pub(crate) fn moody(has_cursor: bool) -> Vec<u8> {
    let cursor = if has_cursor { "(export \"weir_cursor\")" } else { "" };
    wat::parse_str(include_str!("../guests/moody.wat").replace("$CURSOR", cursor)).unwrap()
}

/// Settings for a test: a deadline short enough to wait for.
pub(crate) fn spec(name: &str, plugin: &Plugin) -> TransformSpec {
    let (name, plugin_name) = (TransformName::new(name).unwrap(), PluginName::new("guest").unwrap());
    TransformSpec {
        limits: TransformLimits { deadline_ms: 20, ..TransformLimits::default() },
        ..TransformSpec::new(name, plugin_name, plugin.hash())
    }
}

/// A deployed guest.
pub(crate) fn deploy(host: &PluginHost, wasm: &[u8]) -> Arc<Transform> {
    deploy_with(host, wasm, |_| {}).unwrap()
}

/// A guest deployed with other settings.
pub(crate) fn deploy_with(
    host: &PluginHost,
    wasm: &[u8],
    change: impl FnOnce(&mut TransformSpec),
) -> Result<Arc<Transform>, TransformError> {
    let plugin = host.load(wasm).unwrap();
    let mut spec = spec("guest", &plugin);
    change(&mut spec);
    Transform::new(host, &plugin, spec).map(Arc::new)
}

/// A batch of these values, ten milliseconds apart, keyed by their index.
pub(crate) fn batch(values: &[&[u8]]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (index, value) in values.iter().enumerate() {
        let record = Record::new(index.to_string(), value.to_vec(), TIME + 10 * index as i64);
        builder.append(&record).unwrap();
    }
    builder.finish(BASE).unwrap()
}

/// A batch of `count` numbered values.
pub(crate) fn numbered(count: usize) -> RecordBatch {
    let values: Vec<_> = (0..count).map(|index| format!("value {index}").into_bytes()).collect();
    batch(&values.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Runs a batch through a pipeline; the books of what comes out balance.
pub(crate) fn run(
    worker: &mut Worker,
    pipeline: &Pipeline,
    batch: &RecordBatch,
) -> Result<PipelineOutput, PipelineError> {
    let topic = TopicName::new("clicks").unwrap();
    let input = PipelineInput {
        topic: &topic,
        partition: 3,
        base_offset: BASE,
        batch,
        max_record_bytes: RECORD_BYTES_MAX as u32,
        keyed_topics: &[],
    };
    let output = pipeline.run(worker, &input)?;
    assert!(output.books.balance(), "{:?}", output.books);
    assert_eq!(output.books.records_in, u64::from(batch.header().record_count));
    Ok(output)
}

/// Runs `count` records that stand at these offsets of a partition; a record's value and timestamp go with its offset.
pub(crate) fn run_at(
    worker: &mut Worker,
    pipeline: &Pipeline,
    partition: u32,
    first: u64,
    count: usize,
) -> Result<PipelineOutput, PipelineError> {
    let mut builder = BatchBuilder::new(Compression::None);
    for offset in first..first + count as u64 {
        builder.append(&Record::unkeyed(format!("value {offset}"), TIME + 10 * offset as i64)).unwrap();
    }
    let (batch, topic) = (builder.finish(Offset(first)).unwrap(), TopicName::new("clicks").unwrap());
    let max_record_bytes = RECORD_BYTES_MAX as u32;
    let input = PipelineInput {
        topic: &topic,
        partition,
        base_offset: Offset(first),
        batch: &batch,
        max_record_bytes,
        keyed_topics: &[],
    };
    pipeline.run(worker, &input)
}

/// Offsets and records of what is stored.
pub(crate) fn stored(output: &PipelineOutput) -> Vec<(Offset, Record)> {
    let Some(own) = &output.own else { return Vec::new() };
    // What comes out is what a reader would accept.
    let own = RecordBatch::decode(own.bytes().clone()).unwrap();
    let section = own.records_section(64 << 20).unwrap();
    own.validate_records(&section, RECORD_BYTES_MAX).unwrap();
    let header = own.header();
    assert_eq!(u64::from(header.last_offset_delta) + 1, output.span);
    records(&section)
        .map(|view| view.unwrap())
        .map(|view| (header.base_offset.plus(view.offset_delta.into()), view.to_record(header)))
        .collect()
}

/// The values of what is stored, as text.
pub(crate) fn stored_values(output: &PipelineOutput) -> Vec<String> {
    let text = |record: Record| String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
    stored(output).into_iter().map(|(_, record)| text(record)).collect()
}

/// How many lines the guests log while `work` runs on this thread.
pub(crate) fn count_lines(work: impl FnOnce()) -> usize {
    let lines = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tracing::subscriber::with_default(Counter(lines.clone()), work);
    lines.load(std::sync::atomic::Ordering::Relaxed)
}

struct Counter(Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Counter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "weir::guest"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

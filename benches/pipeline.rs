//! The plugin engine: what a batch pays for going through a guest, beside the same work done by native code.
//!
//! 1,000 records a batch; the figures to reach are per record of 100 B: a no-op in at most 20 ns, a substring filter in
//! at most three times native. `native` checks the records, decides in the same way and frames the result in the same
//! way, without a guest between. `fixed` is one small record: what a batch costs before its records do. Times are CPU
//! time of the thread: the work is all on it, and what else a machine does matters less.
//!
//! ```text
//! cargo bench -p benches --bench pipeline
//! ```

use std::{hint::black_box, iter, sync::Arc, time::Duration};

use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use memchr::memmem::Finder;
use protocol::{
    BatchBuilder, Compression, Offset, OnError, PluginName, RecordBatch, RecordRun, TopicName, TransformLimits,
    TransformName, TransformSpec,
    limits::{DECOMPRESSED_BYTES_MAX, RECORD_BYTES_MAX},
    records,
};
use transform::{Pipeline, PipelineInput, PipelineOutput, PluginHost, PluginHostOptions, Transform, Worker};

const TIMESTAMP: i64 = 1_700_000_000_000;
const NEEDLE: &str = "Googlebot";

/// Keeps everything, having looked at every record's place: what the smallest plugin does.
const NO_OP: &str = r#"(module
    (memory (export "memory") 96)
    (func (export "weir_abi_version") (result i32) (i32.const 1))
    (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
        (local $at i32) (local $end i32) (local $byte i32) (local $raw i32) (local $shift i32) (local $seen i32)
        (local.set $at (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
        (local.set $end (i32.add (local.get $ptr) (local.get $len)))
        (block $done
            (loop $record
                (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
                (local.set $raw (i32.const 0))
                (local.set $shift (i32.const 0))
                (loop $varint
                    (local.set $byte (i32.load8_u (local.get $at)))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (local.set $raw (i32.or (local.get $raw)
                        (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
                    (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
                    (br_if $varint (i32.ge_u (local.get $byte) (i32.const 128))))
                (local.set $at (i32.add (local.get $at) (i32.shr_u (local.get $raw) (i32.const 1))))
                (local.set $seen (i32.add (local.get $seen) (i32.const 1)))
                (br $record)))
        (i32.store (i32.const 0) (i32.const 0))
        (i32.store (i32.const 4) (local.get $seen))
        (i64.const 8)))"#;

/// Values of so many bytes, every second one with the needle somewhere in it.
fn batch(record_count: usize, value_bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, index) in (0..).zip(0..record_count) {
        let mut value = vec![b'a' + (index % 23) as u8; value_bytes];
        if index % 2 == 0 && value_bytes > NEEDLE.len() {
            let at = index * 31 % (value_bytes - NEEDLE.len());
            value[at..at + NEEDLE.len()].copy_from_slice(NEEDLE.as_bytes());
        }
        let timestamp = TIMESTAMP + i64::from(delta);
        builder.append_parts(delta, timestamp, None, Some(&value), iter::empty()).expect("the batch has room");
    }
    builder.finish(Offset::ZERO).expect("the batch is within limits")
}

/// Everything one partition's worker needs.
struct Bench {
    topic: TopicName,
    worker: Worker,
    pipeline: Pipeline,
}

impl Bench {
    fn new(wasm: &[u8], config: &str) -> Bench {
        let host = PluginHost::new(&PluginHostOptions::without_cache()).expect("the engine starts");
        let plugin = host.load(wasm).expect("the plugin is sound");
        let spec = TransformSpec {
            name: TransformName::new("bench").expect("a name"),
            plugin: PluginName::new("bench").expect("a name"),
            plugin_hash: plugin.hash(),
            config: config.into(),
            on_error: OnError::DeadLetter,
            limits: TransformLimits::default(),
            targets: Vec::new(),
        };
        let transform = Transform::new(&host, &plugin, spec).expect("the configuration is taken");
        let topic = TopicName::new("clicks").expect("a name");
        Bench { topic, worker: Worker::new(&host), pipeline: Pipeline::new(vec![Arc::new(transform)]) }
    }

    fn run(&mut self, batch: &RecordBatch) -> PipelineOutput {
        let input = PipelineInput {
            topic: &self.topic,
            partition: 0,
            base_offset: Offset::ZERO,
            batch,
            max_record_bytes: RECORD_BYTES_MAX as u32,
            keyed_topics: &[],
        };
        self.pipeline.run(&mut self.worker, &input).expect("the batch passes")
    }
}

/// The same work without a guest: check, decide, frame.
fn native(batch: &RecordBatch, mut keeps: impl FnMut(&[u8]) -> bool) -> Option<RecordBatch> {
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).expect("the batch is sound");
    batch.validate_records(&section, RECORD_BYTES_MAX).expect("the batch is sound");
    let mut builder: Option<BatchBuilder> = None;
    let (mut run_start, mut run_records, mut at, mut last) = (0, 0, 0, 0);
    for record in records(&section).flatten() {
        if keeps(record.value.unwrap_or_default()) {
            (run_records, last) = (run_records + 1, record.offset_delta);
        } else {
            let builder = builder.get_or_insert_with(|| BatchBuilder::replacing(batch.header(), section.len()));
            let run =
                RecordRun { encoded: &section[run_start..at], record_count: run_records, last_offset_delta: last };
            builder.append_run(run).expect("a part fits");
            (run_start, run_records) = (at + record.raw.len(), 0);
        }
        at += record.raw.len();
    }
    let Some(mut builder) = builder else { return Some(batch.clone()) };
    let run = RecordRun { encoded: &section[run_start..], record_count: run_records, last_offset_delta: last };
    builder.append_run(run).expect("a part fits");
    Some(builder.finish(Offset::ZERO).expect("a part fits"))
}

fn no_op(c: &mut Criterion<CpuTime>) {
    let mut bench = Bench::new(&wat::parse_str(NO_OP).expect("the guest is sound"), "{}");
    let mut group = c.benchmark_group("no-op");
    for (records, bytes) in [(1_000, 100), (1_000, 1_000)] {
        let batch = batch(records, bytes);
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("guest", bytes), |b| b.iter(|| bench.run(black_box(&batch))));
        group.bench_function(BenchmarkId::new("native", bytes), |b| {
            b.iter(|| native(black_box(&batch), |value| black_box(!value.is_empty())));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("fixed");
    let batch = batch(1, 10);
    group.bench_function("guest", |b| b.iter(|| bench.run(black_box(&batch))));
    group.bench_function("native", |b| b.iter(|| native(black_box(&batch), |value| black_box(!value.is_empty()))));
    group.finish();
}

fn substring(c: &mut Criterion<CpuTime>) {
    let wasm = include_bytes!("../plugins/contains/contains.wasm");
    let mut bench = Bench::new(wasm, &format!("{{\"contains\":\"{NEEDLE}\"}}"));
    let finder = Finder::new(NEEDLE);
    let mut group = c.benchmark_group("substring");
    for (records, bytes) in [(1_000, 100), (1_000, 1_000)] {
        let batch = batch(records, bytes);
        let kept = |output: Option<RecordBatch>| output.map(|own| own.header().record_count);
        assert_eq!(kept(bench.run(&batch).own), Some(records as u32 / 2));
        assert_eq!(kept(native(&batch, |value| finder.find(value).is_some())), Some(records as u32 / 2));
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("guest", bytes), |b| b.iter(|| bench.run(black_box(&batch))));
        group.bench_function(BenchmarkId::new("native", bytes), |b| {
            b.iter(|| native(black_box(&batch), |value| finder.find(value).is_some()));
        });
    }
    group.finish();
}

/// What a deployment costs: a plugin from the compiled cache, a fresh instance, and one trap in a batch.
fn beside(c: &mut Criterion<CpuTime>) {
    let dir = tempfile::tempdir().expect("a directory");
    let host = PluginHost::new(&PluginHostOptions::new(dir.path())).expect("the engine starts");
    let wasm = wat::parse_str(NO_OP).expect("the guest is sound");
    host.load(&wasm).expect("the plugin is sound");
    c.bench_function("load from the compiled cache", |b| b.iter(|| host.load(black_box(&wasm))));

    let mut bench = Bench::new(&wasm, "{}");
    let batch = batch(1, 10);
    c.bench_function("fresh instance for a batch", |b| {
        b.iter(|| {
            bench.worker.forget_all();
            bench.run(black_box(&batch))
        });
    });
}

/// CPU time of the calling thread, shown as wall time is.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }
    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }
    fn add(&self, left: &Duration, right: &Duration) -> Duration {
        *left + *right
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = no_op, substring, beside
}
criterion_main!(benches);

//! The batch codec: what each hop of a produced record pays for reading and writing batches.
//!
//! 1,000 records of 100 B, log lines that compress as log lines do. `copy` and `crc` are the yardsticks: a plain
//! memory copy of the batch, and its checksum alone.

use std::{hint::black_box, iter};

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use protocol::{
    BatchBuilder, Compression, Offset, Record, RecordBatch, encode_section, limits::DECOMPRESSED_BYTES_MAX, murmur2,
    records,
};

const RECORDS: usize = 1_000;
const RECORD_BYTES: usize = 100;
const TIMESTAMP: i64 = 1_700_000_000_000;

fn values() -> Vec<Bytes> {
    let line = |i: usize| {
        let (host, path, bytes) = (i * 2_654_435_761 % 255, i * 40_503 % 977, i * 7_919 % 65_521);
        let line = format!(
            "10.0.3.{host} - - [14/Nov/2023:22:13:20 +0000] \"GET /catalog/item/{path} HTTP/1.1\" 200 {bytes} \"-\" \"curl/8.5.0 (edge)\""
        );
        format!("{line:.RECORD_BYTES$}{:pad$}", "", pad = RECORD_BYTES.saturating_sub(line.len())).into()
    };
    (0..RECORDS).map(line).collect()
}

fn encode(compression: Compression, values: &[Bytes]) -> RecordBatch {
    let mut builder = BatchBuilder::with_capacity(compression, RECORDS * (RECORD_BYTES + 10));
    for (delta, value) in (0..).zip(values) {
        let timestamp = TIMESTAMP + i64::from(delta);
        builder.append_parts(delta, timestamp, None, Some(value), iter::empty()).expect("the batch has room");
    }
    builder.finish(Offset::ZERO).expect("the batch is within limits")
}

fn per_record(c: &mut Criterion) {
    let values = values();
    let batch = encode(Compression::None, &values);
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).expect("it is not compressed");
    let owned: Vec<Record> = values.iter().map(|value| Record::unkeyed(value.clone(), TIMESTAMP)).collect();
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(RECORDS as u64));

    group.bench_function("copy", |b| b.iter(|| Bytes::copy_from_slice(black_box(batch.bytes()))));
    group.bench_function("crc", |b| b.iter(|| crc(black_box(batch.bytes()))));
    group.bench_function("decode", |b| b.iter(|| RecordBatch::decode(black_box(batch.bytes()).clone())));
    group.bench_function("iterate", |b| {
        b.iter(|| {
            records(black_box(&section)).flatten().filter_map(|record| record.value).map(<[u8]>::len).sum::<usize>()
        })
    });
    group.bench_function("validate", |b| b.iter(|| batch.validate_records(black_box(&section), 1 << 20)));
    group.bench_function("to_record", |b| {
        b.iter(|| {
            records(black_box(&section)).flatten().for_each(|record| drop(black_box(record.to_record(batch.header()))))
        })
    });
    group.bench_function("to_record_in", |b| {
        b.iter(|| {
            records(black_box(&section))
                .flatten()
                .for_each(|record| drop(black_box(record.to_record_in(batch.header(), &section))))
        })
    });
    group.bench_function("encode", |b| b.iter(|| encode(Compression::None, black_box(&values))));
    group.bench_function("encode owned", |b| {
        b.iter(|| {
            let mut builder = BatchBuilder::with_capacity(Compression::None, RECORDS * (RECORD_BYTES + 10));
            owned.iter().try_for_each(|record| builder.append(black_box(record)))?;
            builder.finish(Offset::ZERO)
        })
    });
    group.bench_function("reframe", |b| {
        b.iter(|| encode_section(batch.header(), black_box(&section), Compression::None))
    });
    group.bench_function("set base offset", |b| {
        let alone = || RecordBatch::decode(BytesMut::from(&batch.bytes()[..]).freeze()).expect("it is sound");
        b.iter_batched(alone, |batch| batch.with_base_offset(Offset(42)), BatchSize::SmallInput);
    });
    group.bench_function("murmur2 of 16 B", |b| {
        b.iter(|| values.iter().map(|value| murmur2(black_box(&value[..16]))).fold(0, u32::wrapping_add))
    });
    group.finish();
}

/// The part of decoding that no implementation can spare.
fn crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[21..])
}

fn codecs(c: &mut Criterion) {
    let values = values();
    let plain = encode(Compression::None, &values);
    let section = plain.records_section(DECOMPRESSED_BYTES_MAX).expect("it is not compressed");
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(section.len() as u64));
    for &compression in &Compression::ALL[1..] {
        let batch = encode(compression, &values);
        group.bench_function(format!("{compression} compress"), |b| {
            b.iter(|| encode_section(plain.header(), black_box(&section), compression))
        });
        group.bench_function(format!("{compression} decompress"), |b| {
            b.iter(|| black_box(&batch).records_section(DECOMPRESSED_BYTES_MAX))
        });
    }
    group.finish();
}

criterion_group!(benches, per_record, codecs);
criterion_main!(benches);

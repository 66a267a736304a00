//! The same record gives the same result, whatever batch it comes in and whichever instance it meets.

use transform::{Pipeline, PluginHost, PluginHostOptions, Worker};

use crate::common::{TIME, count_lines, deploy, deploy_with, host, run_at, stored};

fn wasi() -> Vec<u8> {
    wat::parse_str(include_str!("../guests/wasi.wat")).unwrap()
}

/// What the guest was told for records `[first, first + count)` of partition `partition`.
fn told(worker: &mut Worker, pipeline: &Pipeline, partition: u32, first: u64, count: usize) -> Vec<(u64, Vec<u8>)> {
    let output = run_at(worker, pipeline, partition, first, count).unwrap();
    stored(&output)
        .into_iter()
        .map(|(_, record)| record.value.unwrap())
        .map(|value| (u64::from_le_bytes(*value.first_chunk().unwrap()), value[8..].to_vec()))
        .collect()
}

#[test]
fn time_and_chance_belong_to_the_record() {
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &wasi())]);
    let mut worker = Worker::new(&host);
    let whole = told(&mut worker, &pipeline, 0, 0, 40);

    let times: Vec<_> = whole.iter().map(|(time, _)| *time).collect();
    let expected: Vec<_> = (0..40).map(|index| (TIME as u64 + 10 * index) * 1_000_000).collect();
    assert_eq!(times, expected);
    let mut chances: Vec<_> = whole.iter().flat_map(|(_, chance)| chance.chunks(8)).collect();
    chances.sort_unstable();
    chances.dedup();
    assert_eq!(chances.len(), 80, "no two are alike");

    // In other batches, in this instance and in a fresh one.
    for mut worker in [worker, Worker::new(&host)] {
        let first = told(&mut worker, &pipeline, 0, 0, 7);
        let rest = told(&mut worker, &pipeline, 0, 7, 33);
        assert_eq!([first, rest].concat(), whole);
    }
    // Elsewhere, and by another transform, it is another.
    let mut worker = Worker::new(&host);
    assert_ne!(told(&mut worker, &pipeline, 1, 0, 40), whole);
    let named = |spec: &mut protocol::TransformSpec| spec.name = protocol::TransformName::new("other").unwrap();
    let other = Pipeline::new(vec![deploy_with(&host, &wasi(), named).unwrap()]);
    assert_ne!(told(&mut worker, &other, 0, 0, 40), whole);
}

#[test]
fn another_host_gives_the_same_output() {
    // Compiled there and then, compiled and kept, and taken from what was kept: a broker's three ways to its code.
    let dir = tempfile::tempdir().unwrap();
    let kept =
        || PluginHost::new(&PluginHostOptions { instances_max: 4, ..PluginHostOptions::new(dir.path()) }).unwrap();
    let outputs = [host(), kept(), kept()].map(|host| {
        let pipeline = Pipeline::new(vec![deploy(&host, &wasi())]);
        let output = run_at(&mut Worker::new(&host), &pipeline, 0, 0, 40).unwrap();
        (output.own.unwrap().into_bytes(), output.books)
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn what_is_written_to_standard_error_is_a_line_of_the_log() {
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &wasi())]);
    let lines = count_lines(|| drop(told(&mut Worker::new(&host), &pipeline, 0, 0, 3)));
    assert_eq!(lines, 1);
}

#[test]
fn not_a_number_is_always_the_same() {
    // 0/0 and inf - inf have different signs on different processors, unless they are made alike.
    let body = r#"(func (export "weir_process") (param $ptr i32) (param i32) (result i64)
        (local $zero f64)
        (i32.store (i32.const 0) (i32.const 3))
        (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
        (i32.store (i32.const 8) (i32.const 1))
        (i32.store (i32.const 12) (i32.const 32))
        (i32.store (i32.const 16) (i32.const 16))
        (f64.store (i32.const 32) (f64.div (local.get $zero) (local.get $zero)))
        (f64.store (i32.const 40) (f64.sqrt (f64.const -1)))
        (i64.const 20))"#;
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &crate::common::guest(body))]);
    let output = run_at(&mut Worker::new(&host), &pipeline, 0, 0, 1).unwrap();
    let value = stored(&output).remove(0).1.value.unwrap();
    let canonical = 0x7ff8_0000_0000_0000_u64.to_le_bytes();
    assert_eq!(value[..], [canonical, canonical].concat());
}

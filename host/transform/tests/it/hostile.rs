//! Guests that trap, loop, allocate and lie: each harms its own records, and the next batch is fine.

use abi::HostCode;
use protocol::OnError;
use transform::{Pipeline, PipelineOutput, PluginError, TransformError, Worker};

use crate::common::{batch, constant_output, deploy, deploy_with, guest, host, moody, numbered, run, stored_values};

/// Nine quiet values and, in their midst, this one; with and without a cursor. Checks that it fails alone, with this
/// code and a text that has these words in it, and that the same worker serves the next batch.
fn assert_fails_alone(bad: &[u8], code: HostCode, words: &str) {
    let host = host();
    for has_cursor in [true, false] {
        let transform = deploy(&host, &moody(has_cursor));
        let pipeline = Pipeline::new(vec![transform.clone()]);
        let mut worker = Worker::new(&host);
        let values: [&[u8]; 7] = [b"aaa", b"bbb", b"ccc", bad, b"ddd", b"eee", b"fff"];
        let output = run(&mut worker, &pipeline, &batch(&values)).unwrap();
        assert_eq!(stored_values(&output), ["aaa", "bbb", "ccc", "ddd", "eee", "fff"]);
        assert_eq!((output.books.kept, output.books.dead_lettered), (6, 1));
        let letter = &output.dead_letters[0];
        assert_eq!((letter.source, letter.code), (3, code as u16), "{}", letter.text);
        assert!(letter.text.contains(words), "{}", letter.text);
        assert_eq!(letter.record.value.as_deref(), Some(bad));
        if matches!(code, HostCode::Trap) {
            assert!(letter.backtrace.is_some(), "a trap says where");
        }
        assert_fine(&mut worker, &pipeline);
        assert!(transform.stats().traps >= 2);
        assert_eq!(transform.stats().failed, 1);
    }
}

fn assert_fine(worker: &mut Worker, pipeline: &Pipeline) {
    let output = run(worker, pipeline, &numbered(5)).unwrap();
    assert_eq!((output.books.kept, output.books.dead_lettered), (5, 0));
}

#[test]
fn a_trap_harms_its_record_alone() {
    assert_fails_alone(b"X", HostCode::Trap, "unreachable");
    assert_fails_alone(b"Z", HostCode::Trap, "divide by zero");
}

#[test]
fn an_endless_loop_harms_its_record_alone() {
    assert_fails_alone(b"L", HostCode::Deadline, "`deadline_ms` (20 ms)");
}

#[test]
fn a_stack_overflow_harms_its_record_alone() {
    assert_fails_alone(b"R", HostCode::Trap, "stack");
}

#[test]
fn a_memory_bomb_harms_its_record_alone() {
    assert_fails_alone(b"M", HostCode::Trap, "unreachable");
}

#[test]
fn a_wild_write_harms_its_record_alone() {
    assert_fails_alone(b"W", HostCode::Trap, "out of bounds");
}

#[test]
fn an_exit_harms_its_record_alone() {
    assert_fails_alone(b"E", HostCode::Trap, "`proc_exit` with 3");
}

#[test]
fn a_failed_batch_comes_down_to_its_record_and_keeps_its_reason() {
    assert_fails_alone(b"N", HostCode::BatchFailed, "no luck");
}

#[test]
fn a_wild_answer_comes_down_to_its_record() {
    assert_fails_alone(b"F", HostCode::BadOutput, "");
}

#[test]
fn many_bad_records_are_each_found() {
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &moody(true))]);
    let values: Vec<&[u8]> = (0..30).map(|index| if index % 7 == 3 { &b"X"[..] } else { b"quiet" }).collect();
    let output = run(&mut Worker::new(&host), &pipeline, &batch(&values)).unwrap();
    let failed: Vec<_> = output.dead_letters.iter().map(|letter| letter.source).collect();
    assert_eq!(failed, [3, 10, 17, 24]);
    assert_eq!(output.books.kept, 26);
}

#[test]
fn past_the_budget_of_failures_the_rest_fails_together() {
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &moody(true))]);
    let mut worker = Worker::new(&host);
    let output = run(&mut worker, &pipeline, &batch(&vec![&b"X"[..]; 500])).unwrap();
    assert_eq!(output.books.dead_lettered, 500);
    assert!(output.dead_letters[499].text.starts_with("not tried singly"));
    assert_fine(&mut worker, &pipeline);
}

#[test]
fn a_trap_pauses_where_it_is_told_to() {
    let host = host();
    let transform = deploy_with(&host, &moody(true), |spec| spec.on_error = OnError::Pause).unwrap();
    let error = run(&mut Worker::new(&host), &Pipeline::new(vec![transform]), &batch(&[b"a", b"X"])).unwrap_err();
    assert!(error.to_string().contains("record 1"), "{error}");
}

/// A guest whose every batch fails as a whole.
fn all_fail(body: &str) -> PipelineOutput {
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &guest(body))]);
    let output = run(&mut Worker::new(&host), &pipeline, &numbered(3)).unwrap();
    assert_eq!(output.books.dead_lettered, 3);
    output
}

#[test]
fn wild_answers_are_refused() {
    for answer in [
        // Beyond the memory; wrapping around in 32 bits; longer than anything; all ones.
        "(i64.const 0x0010_0000_0000_0001)",
        "(i64.const 0x7fff_fff0_0000_0020)",
        "(i64.const 0x0000_0000_ffff_ffff)",
        "(i64.const 0x7fff_ffff_ffff_ffff)",
    ] {
        let output = all_fail(&format!("(func (export \"weir_process\") (param i32 i32) (result i64) {answer})"));
        assert!(output.dead_letters.iter().all(|letter| letter.code == HostCode::BadOutput as u16));
    }
}

#[test]
fn an_answer_over_the_output_limit_is_refused() {
    let host = host();
    let body = r#"(func (export "weir_process") (param i32 i32) (result i64) (i64.const 1001))"#;
    let transform = deploy_with(&host, &guest(body), |spec| spec.limits.output_bytes = 1_000).unwrap();
    let output = run(&mut Worker::new(&host), &Pipeline::new(vec![transform]), &numbered(2)).unwrap();
    assert!(output.dead_letters.iter().all(|letter| letter.text.contains("`output_bytes` (1000)")));
}

#[test]
fn an_answer_that_lies_in_memory_that_moved_is_read_where_it_is() {
    // The memory grows during the call: what the host knew of it before is no longer true.
    let body = r#"(func (export "weir_process") (param $ptr i32) (param i32) (result i64)
        (local $at i32)
        (local.set $at (i32.shl (memory.grow (i32.const 4)) (i32.const 16)))
        (i32.store offset=4 (local.get $at) (i32.load offset=4 (local.get $ptr)))
        (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.const 8)))"#;
    let host = host();
    let pipeline = Pipeline::new(vec![deploy(&host, &guest(body))]);
    let mut worker = Worker::new(&host);
    for _ in 0..3 {
        assert_fine(&mut worker, &pipeline);
    }
}

/// A guest whose `weir_alloc` answers this.
fn allocates(answer: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 1)
            (func (export "weir_abi_version") (result i32) (i32.const 1))
            (func (export "weir_alloc") (param i32) (result i32) {answer})
            (func (export "weir_process") (param i32 i32) (result i64) (i64.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn wild_buffers_are_refused() {
    let host = host();
    let mut worker = Worker::new(&host);
    for (answer, code) in [
        ("(i32.const 0)", HostCode::AllocRefused),
        ("(i32.const -1)", HostCode::BadOutput),
        ("(i32.const 65535)", HostCode::BadOutput),
        ("(i32.const 0x7fffffff)", HostCode::BadOutput),
        ("(i32.shl (memory.grow (i32.const 0)) (i32.const 16))", HostCode::BadOutput),
        ("unreachable", HostCode::Trap),
        ("(loop (br 0)) unreachable", HostCode::Deadline),
    ] {
        let transform = deploy_with(&host, &allocates(answer), |spec| spec.limits.deadline_ms = 2).unwrap();
        let output = run(&mut worker, &Pipeline::new(vec![transform]), &numbered(3)).unwrap();
        assert_eq!(output.books.dead_lettered, 3);
        assert!(output.dead_letters.iter().all(|letter| letter.code == code as u16), "{:?}", output.dead_letters);
    }
}

#[test]
fn a_guest_that_leaks_is_replaced_before_it_fills_its_memory() {
    // Each call takes a MiB more and never gives it back: 64 of them are all it may have.
    let body = r#"(func (export "weir_process") (param $ptr i32) (param i32) (result i64)
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
        (i64.const 8))"#;
    let host = host();
    let transform = deploy(&host, &guest(body));
    let pipeline = Pipeline::new(vec![transform.clone()]);
    let mut worker = Worker::new(&host);
    for _ in 0..200 {
        assert_fine(&mut worker, &pipeline);
    }
    assert_eq!(transform.stats().traps, 0);
}

#[test]
fn memory_is_limited_per_transform() {
    let body = r#"(func (export "weir_process") (param $ptr i32) (param i32) (result i64)
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
        (i64.const 8))"#;
    let host = host();
    let mut worker = Worker::new(&host);
    let granted = deploy_with(&host, &guest(body), |spec| spec.limits.memory_bytes = 2 << 20).unwrap();
    let refused = deploy_with(&host, &guest(body), |spec| spec.limits.memory_bytes = (2 << 20) - 1).unwrap();
    assert_fine(&mut worker, &Pipeline::new(vec![granted]));
    let output = run(&mut worker, &Pipeline::new(vec![refused]), &numbered(5)).unwrap();
    assert_eq!(output.books.dead_lettered, 5);
    let too_small = deploy_with(&host, &guest(body), |spec| spec.limits.memory_bytes = 65_536).unwrap_err();
    assert!(matches!(too_small, TransformError::Start(_)), "{too_small:?}");
}

#[test]
fn a_guest_that_loops_while_it_starts_is_not_deployed() {
    let looping = |body: &str| guest(&format!("{body} {}", constant_output(&[])));
    let host = host();
    let configured = |wasm: &[u8]| deploy_with(&host, wasm, |spec| spec.limits.deadline_ms = 5);

    let in_init = looping(r#"(func (export "weir_init") (param i32 i32) (result i32) (loop (br 0)) unreachable)"#);
    let error = configured(&in_init).unwrap_err();
    let TransformError::Start(fault) = error else { panic!("{error:?}") };
    assert_eq!(fault.code, HostCode::Deadline);

    let in_start = looping("(func $start (loop (br 0))) (start $start)");
    let Err(PluginError::Start(fault)) = host.load(&in_start) else { panic!("it was loaded") };
    assert_eq!(fault.code, HostCode::Deadline);
}

#[test]
fn a_guest_that_fails_while_it_starts_is_not_loaded() {
    let host = host();
    let start_of = |body: &str| match host.load(&guest(&format!("{body} {}", constant_output(&[])))) {
        Err(PluginError::Start(fault)) => fault.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(start_of("(func $start unreachable) (start $start)"), HostCode::Trap);
    assert_eq!(start_of("(func (export \"_initialize\") unreachable)"), HostCode::Trap);
    assert_eq!(start_of("(data (i32.const -1) \"x\")"), HostCode::Trap);
    assert_eq!(start_of("(func (export \"weir_describe\") (result i64) (i64.const -1))"), HostCode::BadOutput);
}

#[test]
fn a_flood_of_log_lines_is_cut_off() {
    let body = r#"(data (i32.const 16) "again and again")
        (func (export "weir_process") (param $ptr i32) (param i32) (result i64)
            (local $left i32)
            (local.set $left (i32.const 10000))
            (loop $flood
                (call $log (i32.const 2) (i32.const 16) (i32.const 15))
                (call $log (i32.const 99) (i32.const 0) (i32.const -1))
                (call $log (i32.const -5) (i32.const -1) (i32.const 1000000))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $flood (local.get $left)))
            (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
            (i64.const 8))"#;
    let host = host();
    let transform = deploy_with(&host, &guest(body), |spec| spec.limits.deadline_ms = 10_000).unwrap();
    let pipeline = Pipeline::new(vec![transform]);
    let mut worker = Worker::new(&host);
    let lines = crate::common::count_lines(|| assert_fine(&mut worker, &pipeline));
    assert_eq!(lines, protocol::limits::GUEST_LOG_LINES_PER_CALL_MAX + 1, "and one that says how many were hidden");
}

#[test]
fn one_transform_does_not_harm_another() {
    let host = host();
    let (loops, keeps) = (deploy(&host, &moody(true)), deploy(&host, &moody(true)));
    let mut worker = Worker::new(&host);
    let (loops, keeps) = (Pipeline::new(vec![loops]), Pipeline::new(vec![keeps]));
    for _ in 0..3 {
        assert_eq!(run(&mut worker, &loops, &batch(&[b"L"])).unwrap().books.dead_lettered, 1);
        assert_fine(&mut worker, &keeps);
    }
    // A trap in the first stage of two leaves the second one its records.
    let both = Pipeline::new([loops.stages(), keeps.stages()].concat());
    let output = run(&mut worker, &both, &batch(&[b"a", b"X", b"b"])).unwrap();
    assert_eq!(stored_values(&output), ["a", "b"]);
}

#[test]
fn instances_of_transforms_that_are_gone_go_too() {
    let host = host();
    let mut worker = Worker::new(&host);
    // More than the host has room for, were they all kept.
    for _ in 0..50 {
        let transform = deploy(&host, &moody(true));
        assert_fine(&mut worker, &Pipeline::new(vec![transform]));
    }
    assert_eq!(host.idle_instances(), 0);
}

#[test]
fn more_transforms_than_instances_still_run() {
    let host = host();
    let mut worker = Worker::new(&host);
    let plugin = moody(true);
    let pipelines: Vec<_> = (0..12).map(|_| Pipeline::new(vec![deploy(&host, &plugin)])).collect();
    for _ in 0..2 {
        pipelines.iter().for_each(|pipeline| assert_fine(&mut worker, pipeline));
    }
}

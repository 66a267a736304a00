//! Each limit does what it says, can be changed while the transform runs, and what is used is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use abi::HostCode;
use protocol::{BreakerPolicy, Isolation, OnError, TransformLimits, TransformSpec};
use transform::{Pipeline, PipelineError, PluginHost, Transform, TransformError, Worker};

use crate::common::{batch, count_lines, deploy, deploy_with, guest, host, moody, numbered, run, stored_values};

/// The same transform with other limits, in force.
fn alter(host: &PluginHost, of: &Transform, change: impl FnOnce(&mut TransformLimits)) -> Arc<Transform> {
    let mut spec = of.spec().clone();
    change(&mut spec.limits);
    let altered = of.altered(host, spec).unwrap();
    altered.take_over();
    Arc::new(altered)
}

/// Codes and texts of the records that failed.
fn letters(host: &PluginHost, transform: &Arc<Transform>, values: &[&[u8]]) -> Vec<(u32, u16, String)> {
    let pipeline = Pipeline::new(vec![transform.clone()]);
    let output = run(&mut Worker::new(host), &pipeline, &batch(values)).unwrap();
    output.dead_letters.into_iter().map(|letter| (letter.source, letter.code, letter.text)).collect()
}

#[test]
fn a_record_has_a_deadline_of_its_own() {
    let host = host();
    let limits = |spec: &mut TransformSpec| {
        (spec.limits.deadline_ms, spec.limits.record_deadline_ms) = (60_000, 10);
    };
    let transform = deploy_with(&host, &moody(true), limits).unwrap();
    let failed = letters(&host, &transform, &[b"a", b"L", b"b"]);
    // Found by the cursor in the whole batch; alone, it has the shorter of the two deadlines.
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].0, failed[0].1), (1, HostCode::Deadline as u16), "{failed:?}");
    let stats = transform.stats();
    assert_eq!((stats.traps, stats.deadline_hits), (2, 2));
    assert!(stats.cpu_ns < 1_000_000_000, "the batch's deadline was waited for: {}", stats.cpu_ns);
    // One record is a batch of one.
    let alone = letters(&host, &transform, &[b"L"]);
    assert_eq!(alone, [(0, HostCode::Deadline as u16, "used more than `deadline_ms` (10 ms) of CPU time".to_owned())]);
}

#[test]
fn a_cursor_that_stands_still_costs_no_sound_record() {
    // It names record 0 and never another, and takes 2 ms for each of twenty: 40 in all, where one may take 10.
    let body = r#"(global (export "weir_cursor") (mut i32) (i32.const 0))
        (func (export "weir_process") (param $ptr i32) (param i32) (result i64)
            (local $left i32)
            (local.set $left (i32.mul (i32.load offset=4 (local.get $ptr)) (i32.const 4000000)))
            (loop $busy
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $busy (local.get $left)))
            (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
            (i64.const 8))"#;
    let host = host();
    let limits = |spec: &mut TransformSpec| {
        (spec.limits.deadline_ms, spec.limits.record_deadline_ms) = (60_000, 20);
    };
    let transform = deploy_with(&host, &guest(body), limits).unwrap();
    let pipeline = Pipeline::new(vec![transform]);
    let output = run(&mut Worker::new(&host), &pipeline, &numbered(20)).unwrap();
    assert_eq!((output.books.kept, output.dead_letters.len()), (20, 0));
}

#[test]
fn a_stack_is_as_deep_as_was_granted_and_can_be_changed() {
    // It calls itself as often as the record's value has it, in thousands.
    let body = r#"(func $down (param $left i32) (result i32)
            (if (result i32) (local.get $left)
                (then (i32.add (call $down (i32.sub (local.get $left) (i32.const 1))) (i32.const 1)))
                (else (i32.const 0))))
        (func (export "weir_process") (param $ptr i32) (param i32) (result i64)
            (drop (call $down (i32.const 6000)))
            (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
            (i64.const 8))"#;
    let host = host();
    let transform = deploy(&host, &guest(body));
    assert_eq!(letters(&host, &transform, &[b"a"]), []);
    let shallow = alter(&host, &transform, |limits| limits.stack_bytes = 64 << 10);
    let failed = letters(&host, &shallow, &[b"a"]);
    assert_eq!(failed[0].1, HostCode::Trap as u16);
    assert!(failed[0].2.contains("stack"), "{failed:?}");
    let deep = alter(&host, &shallow, |limits| limits.stack_bytes = 1 << 20);
    assert_eq!(letters(&host, &deep, &[b"a"]), []);
    // A loop there is stopped as everywhere: all engines tick.
    let looping = alter(&host, &deploy(&host, &moody(true)), |limits| limits.stack_bytes = 1 << 20);
    assert_eq!(letters(&host, &looping, &[b"L"])[0].1, HostCode::Deadline as u16);
}

/// Returns every record twice, whole. Traps on a value that begins with X.
const DOUBLES: &str = r#"(func (export "weir_process") (param $ptr i32) (param i32) (result i64)
    (local $at i32) (local $index i32) (local $entry i32) (local $body i32) (local $length i32) (local $twice i32)
    (local.set $at (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
    (local.set $entry (i32.const 8))
    (loop $record
        (local.set $length (i32.shr_u (i32.load8_u (local.get $at)) (i32.const 1)))
        (local.set $body (i32.add (local.get $at) (i32.const 1)))
        (local.set $twice (i32.const 2))
        (loop $again
            (i32.store (local.get $entry) (local.get $index))
            (i32.store offset=4 (local.get $entry) (i32.const 0))
            (i32.store offset=8 (local.get $entry) (local.get $body))
            (i32.store offset=12 (local.get $entry) (local.get $length))
            (local.set $entry (i32.add (local.get $entry) (i32.const 16)))
            (br_if $again (local.tee $twice (i32.sub (local.get $twice) (i32.const 1)))))
        (local.set $at (i32.add (local.get $body) (local.get $length)))
        ;; The value is the last of it but for the number of headers.
        (if (i32.eq (i32.load8_u (i32.sub (local.get $at) (i32.const 2))) (i32.const 88)) (then unreachable))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br_if $record (i32.lt_u (local.get $index) (i32.load offset=4 (local.get $ptr)))))
    (i32.store (i32.const 0) (i32.const 4))
    (i32.store (i32.const 4) (i32.shl (local.get $index) (i32.const 1)))
    (i64.extend_i32_u (local.get $entry)))"#;

#[test]
fn output_records_are_bounded_over_all_pieces() {
    let host = host();
    let transform = deploy_with(&host, &guest(DOUBLES), |spec| spec.limits.output_records = 6).unwrap();
    assert_eq!(letters(&host, &transform, &[b"a", b"b", b"c"]), []);
    // Four come to eight: no half of them is too many alone, but together they are.
    let failed = letters(&host, &transform, &[b"a", b"b", b"c", b"d"]);
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].0, failed[0].1), (3, HostCode::BadOutput as u16));
    assert_eq!(failed[0].2, "output of 8 records is over `output_records` (6)");
    // And so it is where a trap made the pieces.
    let failed = letters(&host, &transform, &[b"a", b"b", b"X", b"c", b"d"]);
    assert_eq!(failed.iter().map(|(source, ..)| *source).collect::<Vec<_>>(), [2, 4]);
    let more = alter(&host, &transform, |limits| limits.output_records = 8);
    assert_eq!(letters(&host, &more, &[b"a", b"b", b"c", b"d"]), []);
}

#[test]
fn failures_past_the_budget_fail_together() {
    let host = host();
    let transform = deploy_with(&host, &moody(true), |spec| spec.limits.failures = 2).unwrap();
    let failed = letters(&host, &transform, &[b"X", b"a", b"X", b"b", b"X", b"c"]);
    let sources: Vec<u32> = failed.iter().map(|(source, ..)| *source).collect();
    assert_eq!(sources, [0, 2, 3, 4, 5], "two are found, and what is not decided then fails");
    assert!(failed[2].2.starts_with("not tried singly: "), "{failed:?}");
    let more = alter(&host, &transform, |limits| limits.failures = 3);
    assert_eq!(letters(&host, &more, &[b"X", b"a", b"X", b"b", b"X", b"c"]).len(), 3);
    // Nothing is followed, and nothing is spent on it.
    let none = alter(&host, &transform, |limits| limits.failures = 0);
    assert_eq!(letters(&host, &none, &[b"a", b"X", b"b"]).len(), 3);
}

#[test]
fn what_is_logged_past_the_rate_is_counted() {
    let body = r#"(data (i32.const 16) "hello")
        (func (export "weir_process") (param $ptr i32) (param i32) (result i64)
            (call $log (i32.const 3) (i32.const 16) (i32.const 5))
            (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
            (i64.const 8))"#;
    let host = host();
    let transform = deploy_with(&host, &guest(body), |spec| spec.limits.log_lines_per_s = 1).unwrap();
    let pipeline = Pipeline::new(vec![transform.clone()]);
    let mut worker = Worker::new(&host);
    let heard = count_lines(|| (0..50).for_each(|_| drop(run(&mut worker, &pipeline, &numbered(1)).unwrap())));
    let stats = transform.stats();
    assert_eq!((stats.log_lines, stats.log_lines_cut as usize), (50, 50 - heard));
    assert!((1..50).contains(&heard), "{heard} lines");
    let silent = alter(&host, &transform, |limits| limits.log_lines_per_s = 0);
    let pipeline = Pipeline::new(vec![silent.clone()]);
    assert_eq!(count_lines(|| drop(run(&mut worker, &pipeline, &numbered(1)).unwrap())), 0);
    assert_eq!(silent.stats().log_lines, 51, "counted on");
}

/// Drops the first `n` records of a batch when it is the nth it sees.
const COUNTS: &str = r#"(global $seen (mut i32) (i32.const 0))
    (func (export "weir_process") (param $ptr i32) (param i32) (result i64)
        (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
        (i32.store (i32.const 0) (i32.const 2))
        (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
        (i32.store (i32.const 8) (i32.shl (i32.const -1) (global.get $seen)))
        (i64.const 12))"#;

#[test]
fn a_fresh_instance_for_each_batch_is_to_be_had() {
    let host = host();
    let reused = deploy(&host, &guest(COUNTS));
    let fresh = deploy_with(&host, &guest(COUNTS), |spec| spec.isolation = Isolation::Fresh).unwrap();
    let kept = |transform: &Arc<Transform>| {
        let pipeline = Pipeline::new(vec![transform.clone()]);
        [(); 3].map(|()| run(&mut Worker::new(&host), &pipeline, &numbered(8)).unwrap().books.kept)
    };
    assert_eq!(kept(&reused), [7, 6, 5]);
    assert_eq!(kept(&fresh), [7, 7, 7]);
    assert_eq!((reused.describe_usage().instances, fresh.describe_usage().instances), (1, 0));
}

#[test]
fn idle_transforms_hold_nothing_and_what_others_hold_is_told() {
    let host = host();
    let transform = deploy(&host, &moody(true));
    assert_eq!(transform.describe_usage().instances, 0, "the trial is over");
    letters(&host, &transform, &[b"a"]);
    let usage = transform.describe_usage();
    assert_eq!((usage.instances, usage.memory_bytes, usage.running), (1, 16 << 16, 0));
    host.trim(Duration::from_secs(3_600));
    assert_eq!(host.idle_instances(), 1);
    host.trim(Duration::ZERO);
    let usage = transform.describe_usage();
    assert_eq!((usage.instances, usage.memory_bytes), (0, 0));
}

#[test]
fn an_altered_transform_counts_on_and_a_limit_that_cannot_be_changes_nothing() {
    let host = host();
    let transform = deploy(&host, &moody(true));
    letters(&host, &transform, &[b"a", b"X"]);
    let altered = alter(&host, &transform, |limits| limits.memory_bytes = 2 << 20);
    letters(&host, &altered, &[b"a"]);
    let stats = altered.stats();
    assert_eq!((stats.records_in, stats.failed, stats.traps), (3, 1, 2));
    assert!(stats.bytes_in > 0 && stats.bytes_out < stats.bytes_in && stats.ns > 0);

    let refused = |change: &dyn Fn(&mut TransformLimits)| {
        let mut spec = transform.spec().clone();
        change(&mut spec.limits);
        transform.altered(&host, spec).unwrap_err()
    };
    assert!(matches!(refused(&|l| l.memory_bytes = 1 << 16), TransformError::Start(_)), "it has 16 pages");
    assert!(matches!(refused(&|l| l.stack_bytes = 100_000), TransformError::StackSize { bytes: 100_000 }));
    assert!(matches!(refused(&|l| l.cpu_percent = 1), TransformError::CapTooLow { percent: 1 }));
    assert!(matches!(refused(&|l| l.cpu_share = 0), TransformError::Nothing { what: "cpu_share" }));
    assert!(matches!(refused(&|l| l.record_deadline_ms = 0), TransformError::Nothing { what: "record_deadline_ms" }));
    assert!(matches!(refused(&|l| l.failures = 1 << 20), TransformError::OverLimit { what: "failures", .. }));
}

#[test]
fn guests_that_compute_on_and_on_let_others_go_first() {
    let host = host();
    let (hogs, ended) = (2 * thread::available_parallelism().unwrap().get(), AtomicUsize::new(0));
    let quick = Pipeline::new(vec![deploy(&host, &moody(true))]);
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..hogs {
            // CPU time: with as many of them for each processor, twice as long by the wall.
            let limits = |spec: &mut TransformSpec| {
                (spec.limits.deadline_ms, spec.limits.record_deadline_ms) = (1_500, 1_500);
            };
            let pipeline = Pipeline::new(vec![deploy_with(&host, &moody(false), limits).unwrap()]);
            let (host, ended, begun) = (&host, &ended, &begun);
            scope.spawn(move || {
                begun.store(true, SeqCst);
                let output = run(&mut Worker::new(host), &pipeline, &batch(&[b"L"])).unwrap();
                assert_eq!(output.dead_letters.len(), 1);
                ended.fetch_add(1, SeqCst);
            });
        }
        while !begun.load(SeqCst) {
            thread::yield_now();
        }
        for _ in 0..50 {
            let output = run(&mut Worker::new(&host), &quick, &batch(&[b"a", b"b"])).unwrap();
            assert_eq!(stored_values(&output), ["a", "b"]);
        }
        assert_eq!(ended.load(SeqCst), 0, "they waited for a guest's deadline");
    });
}

/// Trips a transform's breaker: every batch fails as a whole.
fn trip(host: &PluginHost, transform: &Arc<Transform>) {
    let pipeline = Pipeline::new(vec![transform.clone()]);
    for _ in 0..transform.spec().limits.breaker_batches {
        run(&mut Worker::new(host), &pipeline, &batch(&[b"X", b"X"])).unwrap();
    }
    assert_eq!(transform.stats().trips, 1);
}

#[test]
fn a_transform_that_keeps_failing_is_left_alone_by_its_policy() {
    let host = host();
    let tripped = |policy: BreakerPolicy, on_error: OnError| {
        let change = |spec: &mut TransformSpec| {
            (spec.breaker, spec.on_error) = (policy, on_error);
        };
        let transform = deploy_with(&host, &moody(true), change).unwrap();
        trip(&host, &transform);
        transform
    };
    let next = |transform: &Arc<Transform>| {
        let pipeline = Pipeline::new(vec![transform.clone()]);
        run(&mut Worker::new(&host), &pipeline, &batch(&[b"a", b"b"]))
    };
    // To the dead letters, though single records would be dropped.
    let letters = tripped(BreakerPolicy::DeadLetter, OnError::Drop);
    let output = next(&letters).unwrap();
    let codes: Vec<_> = output.dead_letters.iter().map(|letter| letter.code).collect();
    assert_eq!(codes, [HostCode::BreakerOpen as u16; 2]);
    assert!(output.dead_letters[0].text.contains("unreachable"), "{}", output.dead_letters[0].text);
    let stats = letters.stats();
    assert_eq!((stats.bypassed, stats.traps), (2, 15), "a batch traps as a whole, and each record alone");
    assert!(letters.describe_usage().breaker.unwrap().cause.contains("unreachable"));

    let paused = tripped(BreakerPolicy::Pause, OnError::DeadLetter);
    let error = next(&paused).unwrap_err();
    assert!(matches!(&error, PipelineError::Retriable { text, .. } if text.contains("breaker is open")), "{error}");

    let passed = tripped(BreakerPolicy::PassThrough, OnError::DeadLetter);
    assert_eq!(stored_values(&next(&passed).unwrap()), ["a", "b"]);

    // An operator lets it go on at once.
    for transform in [letters, paused, passed] {
        transform.resume();
        assert_eq!(stored_values(&next(&transform).unwrap()), ["a", "b"]);
        assert_eq!(transform.describe_usage().breaker, None);
        let kept_before = transform.stats().bypassed;
        next(&transform).unwrap();
        assert_eq!(transform.stats().bypassed, kept_before, "it is called again");
    }
}

#[test]
fn poison_among_sound_records_trips_nothing() {
    let host = host();
    let transform = deploy(&host, &moody(true));
    let pipeline = Pipeline::new(vec![transform.clone()]);
    for _ in 0..20 {
        let output = run(&mut Worker::new(&host), &pipeline, &batch(&[b"a", b"X", b"b"])).unwrap();
        assert_eq!((output.books.kept, output.books.dead_lettered), (2, 1));
    }
    assert_eq!(transform.stats().trips, 0);
}

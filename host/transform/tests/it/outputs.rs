//! What becomes of each kind of output, good and bad.

use abi::{HostCode, Span, output::*};
use protocol::{Offset, OnError, TopicName};
use transform::{DeadLetter, Pipeline, PipelineError, PipelineOutput, Worker};

use crate::common::{BASE, PUPPET_AT, TIME, batch, host, numbered, puppet, run, stored, stored_values};

/// Builds outputs: a header, fixed parts, and bytes behind them that spans can name.
struct Script {
    bytes: Vec<u8>,
    /// Bytes that spans name lie from here on.
    data: Vec<u8>,
    /// How long the fixed parts will be.
    fixed_bytes: usize,
}

impl Script {
    fn new(kind: u32, count: u32, fixed_bytes: usize) -> Script {
        Script { bytes: encode_header(kind, count).to_vec(), data: Vec::new(), fixed_bytes: fixed_bytes + HEADER_LEN }
    }

    fn put(mut self, bytes: &[u8]) -> Script {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn span(&mut self, bytes: &[u8]) -> Span {
        let address = PUPPET_AT + (self.fixed_bytes + self.data.len()) as u32;
        self.data.extend_from_slice(bytes);
        Span { address, length: bytes.len() as u32 }
    }
}

/// Runs a batch of `count` numbered values against a fixed output, twice, the second time through the instance (or its
/// successor) of the first: both give the same.
fn said(count: usize, output: &[u8]) -> PipelineOutput {
    let host = host();
    let pipeline = Pipeline::new(vec![puppet(&host, output, |_| {})]);
    let (mut worker, batch) = (Worker::new(&host), numbered(count));
    let first = run(&mut worker, &pipeline, &batch).unwrap();
    let second = run(&mut worker, &pipeline, &batch).unwrap();
    assert_eq!(stored(&first), stored(&second));
    assert_eq!(first.dead_letters, second.dead_letters);
    first
}

fn output(kind: u32, count: u32, body: &[u8]) -> Vec<u8> {
    [&encode_header(kind, count)[..], body].concat()
}

fn offsets(output: &PipelineOutput) -> Vec<u64> {
    stored(output).into_iter().map(|(offset, _)| offset.since(BASE)).collect()
}

#[test]
fn a_batch_that_is_kept_passes_untouched() {
    let host = host();
    let keep = puppet(&host, &output(kind::KEEP_ALL, 5, &[]), |_| {});
    let batch = numbered(5);
    let output = run(&mut Worker::new(&host), &Pipeline::new(vec![keep.clone()]), &batch).unwrap();
    assert_eq!(output.own.unwrap().bytes().as_ptr(), batch.bytes().as_ptr());
    assert_eq!((output.books.kept, output.books.stored, output.span), (5, 5, 5));
    let stats = keep.stats();
    assert_eq!((stats.batches, stats.records_in, stats.kept, stats.dropped), (1, 5, 5, 0));
}

#[test]
fn a_batch_that_is_dropped_leaves_its_offsets_behind() {
    let output = said(5, &output(kind::DROP_ALL, 5, &[]));
    assert!(output.own.is_none());
    assert_eq!((output.books.dropped, output.span), (5, 5));
}

#[test]
fn a_bitmap_leaves_gaps() {
    let output = said(5, &output(kind::BITMAP, 5, &[0b0_1010, 0, 0, 0]));
    assert_eq!(offsets(&output), [1, 3]);
    assert_eq!(stored_values(&output), ["value 1", "value 3"]);
    assert_eq!((output.books.kept, output.books.dropped, output.span), (2, 3, 5));
    let header = *output.own.unwrap().header();
    assert_eq!((header.last_offset_delta, header.base_timestamp, header.max_timestamp), (4, TIME, TIME + 30));
}

#[test]
fn a_patch_changes_values_and_nothing_else() {
    let mut script = Script::new(kind::PATCH, 4, 4 + 3 * PATCH_ENTRY_LEN);
    let value = script.span(b"something longer than it was");
    let script = script
        .put(&[0b1101, 0, 0, 0])
        .put(&encode_patch(Patch::Value(value)))
        .put(&encode_patch(Patch::Null))
        .put(&encode_patch(Patch::Unchanged));
    let output = said_with_data(4, &script);
    let records = stored(&output);
    assert_eq!(offsets(&output), [0, 2, 3]);
    assert_eq!(records[0].1.value.as_deref(), Some(&b"something longer than it was"[..]));
    assert_eq!(records[1].1.value, None);
    assert_eq!(records[2].1.value.as_deref(), Some(&b"value 3"[..]));
    assert_eq!(records[1].1.key.as_deref(), Some(&b"2"[..]));
    assert_eq!(records[1].1.timestamp, TIME + 20);
}

/// What comes of a script.
fn said_with_data(count: usize, script: &Script) -> PipelineOutput {
    said_by(count, script, |_| {}).unwrap()
}

fn said_by(
    count: usize,
    script: &Script,
    change: impl FnOnce(&mut protocol::TransformSpec),
) -> Result<PipelineOutput, PipelineError> {
    let host = host();
    assert_eq!(script.bytes.len(), script.fixed_bytes, "the script is as long as it said");
    let pipeline = Pipeline::new(vec![crate::common::puppet_with_data(&host, &script.bytes, &script.data, change)]);
    run(&mut Worker::new(&host), &pipeline, &numbered(count))
}

/// A record's body as Kafka has it, for values below 64 bytes.
fn body(timestamp_delta: i8, key: Option<&str>, value: &str) -> Vec<u8> {
    let mut body = vec![0, (timestamp_delta << 1) as u8, 0];
    match key {
        None => body.push(1),
        Some(key) => {
            body.push((key.len() << 1) as u8);
            body.extend_from_slice(key.as_bytes());
        }
    }
    body.push((value.len() << 1) as u8);
    body.extend_from_slice(value.as_bytes());
    body.push(0);
    body
}

fn entry(source: u32, target: u16, body: Span) -> [u8; ENTRY_LEN] {
    RecordEntry { source, target, flags: 0, body }.encode()
}

#[test]
fn whole_records_take_the_first_offsets_in_order() {
    let mut script = Script::new(kind::RECORDS, 4, 4 * ENTRY_LEN);
    let spans: Vec<_> = ["a", "b", "c", "d"].map(|value| script.span(&body(5, Some("key"), value))).into();
    let script = script
        .put(&entry(0, 0, spans[0]))
        .put(&entry(0, 0, spans[1]))
        .put(&entry(0, 0, spans[2]))
        .put(&entry(2, 0, spans[3]));
    let output = said_with_data(3, &script);
    assert_eq!(offsets(&output), [0, 1, 2, 3]);
    assert_eq!(stored_values(&output), ["a", "b", "c", "d"]);
    assert_eq!(stored(&output)[0].1.timestamp, TIME + 5);
    assert_eq!((output.books.kept, output.books.stored, output.books.dropped, output.span), (2, 4, 1, 4));
}

#[test]
fn a_record_for_a_target_goes_there() {
    let elsewhere = TopicName::new("elsewhere").unwrap();
    let mut script = Script::new(kind::RECORDS, 2, 2 * ENTRY_LEN);
    let (there, here) = (script.span(&body(1, None, "there")), script.span(&body(2, None, "here")));
    let script = script.put(&entry(1, 1, there)).put(&entry(2, 0, here));
    let output = said_by(3, &script, |spec| spec.targets = vec![elsewhere.clone()]).unwrap();
    assert_eq!(stored_values(&output), ["here"]);
    let routed = &output.routed[0];
    assert_eq!((&routed.target, routed.source, routed.record.timestamp), (&elsewhere, 1, TIME + 1));
    assert_eq!((output.books.kept, output.books.stored, output.books.dropped), (2, 2, 1));
}

#[test]
fn a_failure_overrides_what_was_decided() {
    let mut script = Script::new(kind::KEEP_ALL, 3, 4 + ENTRY_LEN);
    let text = script.span("status is not a\u{1b}[31m number".as_bytes());
    let script = script.put(&1_u32.to_le_bytes()).put(&FailureEntry { record: 1, code: 7, text }.encode());
    let output = said_with_data(3, &script);
    assert_eq!(stored_values(&output), ["value 0", "value 2"]);
    assert_eq!(offsets(&output), [0, 2]);
    let DeadLetter { source, code, text, record, transform, .. } = &output.dead_letters[0];
    assert_eq!((*source, *code, transform.as_str()), (1, 7, "guest"));
    assert_eq!(text, "status is not a [31m number", "no escapes reach a terminal");
    assert_eq!((record.value.as_deref(), record.timestamp), (Some(&b"value 1"[..]), TIME + 10));
}

#[test]
fn each_policy_does_with_a_failed_record_what_it_says() {
    let fails_one = |on_error| {
        let mut script = Script::new(kind::KEEP_ALL, 3, 4 + ENTRY_LEN);
        let text = script.span(b"bad");
        let script = script.put(&1_u32.to_le_bytes()).put(&FailureEntry { record: 1, code: 7, text }.encode());
        said_by(3, &script, |spec| spec.on_error = on_error)
    };
    let dead_lettered = fails_one(OnError::DeadLetter).unwrap();
    assert_eq!((dead_lettered.books.dead_lettered, dead_lettered.books.kept), (1, 2));
    let dropped = fails_one(OnError::Drop).unwrap();
    assert_eq!((dropped.books.dropped, dropped.books.kept), (1, 2));
    let rejected = fails_one(OnError::Reject).unwrap();
    assert_eq!((rejected.books.rejected, rejected.books.kept), (1, 2));
    assert_eq!((rejected.rejects[0].index, rejected.rejects[0].code, &*rejected.rejects[0].text), (1, 7, "bad"));
    let PipelineError::Paused { record, code, text, .. } = fails_one(OnError::Pause).unwrap_err() else {
        panic!("a pause is an error of its own");
    };
    assert_eq!((record, code, &*text), (1, 7, "bad"));
}

/// Every record fails singly with this code: an output that is wrong as a whole leads to pieces of one record, and a
/// puppet says the same wrong thing of each.
fn assert_all_fail(count: usize, output: &[u8], code: HostCode) {
    let output = said(count, output);
    assert_eq!(output.books.dead_lettered, count as u64, "{output:?}");
    assert!(output.own.is_none());
    assert!(output.dead_letters.iter().all(|letter| letter.code == code as u16), "{:?}", output.dead_letters);
    assert!(output.dead_letters.iter().all(|letter| !letter.text.is_empty()));
}

#[test]
fn malformed_outputs_of_every_kind_are_the_guests_fault() {
    let wrong: [Vec<u8>; 14] = [
        vec![],
        vec![0; 7],
        output(5, 3, &[]),
        output(u32::MAX, 3, &[]),
        output(kind::KEEP_ALL, 9, &[]),
        output(kind::KEEP_ALL, 3, &[1]),
        output(kind::DROP_ALL, 9, &[]),
        output(kind::BITMAP, 3, &[7]),
        output(kind::BITMAP, u32::MAX, &[7, 0, 0, 0]),
        output(kind::PATCH, 3, &[7, 0, 0, 0]),
        output(kind::RECORDS, u32::MAX, &[]),
        output(kind::RECORDS, 1, &entry(3, 0, Span { address: 0, length: 0 })),
        output(
            kind::RECORDS,
            1,
            &RecordEntry { source: 0, target: 0, flags: 1, body: Span { address: 0, length: 0 } }.encode(),
        ),
        output(kind::KEEP_ALL, 3, &[9, 0, 0, 0]),
    ];
    for output in wrong {
        assert_all_fail(3, &output, HostCode::BadOutput);
    }
}

#[test]
fn a_patch_that_points_outside_harms_its_record_alone() {
    for span in [
        Span { address: 16 << 16, length: 1 },
        Span { address: u32::MAX, length: u32::MAX - 2 },
        Span { address: (16 << 16) - 4, length: 5 },
        Span { address: 0, length: 0x7fff_ffff },
    ] {
        let script = Script::new(kind::PATCH, 3, 4 + 3 * PATCH_ENTRY_LEN)
            .put(&[7, 0, 0, 0])
            .put(&encode_patch(Patch::Unchanged))
            .put(&encode_patch(Patch::Value(span)))
            .put(&encode_patch(Patch::Unchanged));
        let output = said_with_data(3, &script);
        assert_eq!(stored_values(&output), ["value 0", "value 2"], "{span:?}");
        assert_eq!(output.dead_letters[0].code, HostCode::BadOutput as u16);
    }
}

#[test]
fn a_record_that_is_none_harms_its_source_alone() {
    let good = body(0, None, "good");
    let cut = &good[..good.len() - 1];
    let longer = [&good[..], b"x"].concat();
    let many_headers = [&good[..good.len() - 1], &[0xfe, 0xff, 0xff, 0xff, 0x0f]].concat();
    for bad in [&b""[..], b"\0", cut, &longer, &many_headers, &[0xff; 40]] {
        let mut script = Script::new(kind::RECORDS, 4, 4 * ENTRY_LEN);
        let (good, bad) = (script.span(&good), script.span(bad));
        let script = script
            .put(&entry(0, 0, good))
            // Its sibling was fine, and goes with it.
            .put(&entry(1, 0, good))
            .put(&entry(1, 0, bad))
            .put(&entry(2, 0, good));
        let output = said_with_data(3, &script);
        assert_eq!(offsets(&output), [0, 1]);
        assert_eq!(output.dead_letters[0].source, 1);
        assert_eq!(output.dead_letters[0].code, HostCode::BadOutput as u16);
    }
}

#[test]
fn a_target_that_is_not_declared_harms_its_source_alone() {
    let mut script = Script::new(kind::RECORDS, 2, 2 * ENTRY_LEN);
    let good = script.span(&body(0, None, "good"));
    let script = script.put(&entry(0, 1, good)).put(&entry(1, 0, good));
    let output = said_with_data(2, &script);
    assert_eq!((output.books.dead_lettered, output.books.kept), (1, 1));
}

#[test]
fn an_output_record_over_the_topics_limit_fails_alone() {
    let host = host();
    let topic = TopicName::new("clicks").unwrap();
    let mut script = Script::new(kind::PATCH, 3, 4 + 3 * PATCH_ENTRY_LEN);
    let (fits, over) = (script.span(&[b'a'; 49]), script.span(&[b'b'; 50]));
    let script = script
        .put(&[7, 0, 0, 0])
        .put(&encode_patch(Patch::Value(fits)))
        .put(&encode_patch(Patch::Value(over)))
        .put(&encode_patch(Patch::Unchanged));
    let pipeline = Pipeline::new(vec![crate::common::puppet_with_data(&host, &script.bytes, &script.data, |_| {})]);
    let batch = numbered(3);
    // A key of one byte and a value of 49 are 50.
    let input = transform::PipelineInput {
        topic: &topic,
        partition: 0,
        base_offset: BASE,
        batch: &batch,
        max_record_bytes: 50,
        keyed_topics: &[],
    };
    let output = pipeline.run(&Worker::new(&host), &input).unwrap();
    assert_eq!(offsets(&output), [0, 2]);
    assert_eq!(output.dead_letters[0].code, HostCode::RecordTooLarge as u16);
}

#[test]
fn what_is_returned_many_times_over_is_bounded() {
    // 1,000 patches that all name the same 64 KiB: 64 MiB from a small output.
    let count = 1_000;
    let mut bytes = encode_header(kind::PATCH, count).to_vec();
    bytes.extend(std::iter::repeat_n(0xff, bitmap_len(count)));
    for _ in 0..count {
        bytes.extend(encode_patch(Patch::Value(Span { address: 0, length: 64 << 10 })));
    }
    let host = host();
    let pipeline = Pipeline::new(vec![puppet(&host, &bytes, |spec| spec.limits.output_bytes = 1 << 20)]);
    let output = run(&mut Worker::new(&host), &pipeline, &numbered(count as usize)).unwrap();
    assert_eq!((output.books.kept, output.books.dead_lettered), (16, 984));
}

#[test]
fn a_batch_that_comes_out_too_large_loses_only_what_does_not_fit() {
    // 100 records of 60 KiB each are 6 MiB: above what a batch may be.
    let count = 100;
    let mut bytes = encode_header(kind::PATCH, count).to_vec();
    bytes.extend(std::iter::repeat_n(0xff, bitmap_len(count)));
    for _ in 0..count {
        bytes.extend(encode_patch(Patch::Value(Span { address: 0, length: 60 << 10 })));
    }
    let host = host();
    let pipeline = Pipeline::new(vec![puppet(&host, &bytes, |_| {})]);
    let output = run(&mut Worker::new(&host), &pipeline, &numbered(count as usize)).unwrap();
    let kept = output.books.kept;
    assert!((60..70).contains(&kept), "{kept} fit");
    assert_eq!(output.books.dead_lettered, 100 - kept);
    assert_eq!(offsets(&output), (0..kept).collect::<Vec<_>>());
}

#[test]
fn an_empty_pipeline_passes_anything_on() {
    let host = host();
    let batch = batch(&[b"a"]).with_base_offset(Offset(7));
    let output = run(&mut Worker::new(&host), &Pipeline::default(), &batch).unwrap();
    assert_eq!(output.own.unwrap().header().base_offset, BASE);
}

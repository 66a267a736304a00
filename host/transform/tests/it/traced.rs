//! What `trace` tells.

use protocol::{Record, TopicName};
use transform::{Pipeline, PipelineInput, TraceVerdict, Worker};

use crate::common::{BASE, batch, deploy, host, moody, puppet};
use abi::output::{encode_header, kind};

#[test]
fn a_trace_follows_each_record_through_the_stages() {
    let host = host();
    let drops_first = [&encode_header(kind::BITMAP, 2)[..], &[0b10, 0, 0, 0]].concat();
    let pipeline = Pipeline::new(vec![deploy(&host, &moody(true)), puppet(&host, &drops_first, |_| {})]);
    let (topic, batch) = (TopicName::new("clicks").unwrap(), batch(&[b"a", b"X", b"b"]));
    let input = PipelineInput {
        topic: &topic,
        partition: 0,
        base_offset: BASE,
        batch: &batch,
        max_record_bytes: 1 << 20,
        keyed_topics: &[],
    };
    let trace = pipeline.trace(&Worker::new(&host), &input).unwrap();

    let verdicts = |stage: usize| -> Vec<(u32, &TraceVerdict)> {
        trace.stages[stage].records.iter().map(|record| (record.source, &record.verdict)).collect()
    };
    let [(0, TraceVerdict::Keep), (1, TraceVerdict::Fail { text, .. }), (2, TraceVerdict::Keep)] = verdicts(0)[..]
    else {
        panic!("{:?}", verdicts(0));
    };
    assert!(text.contains("unreachable"));
    assert_eq!(verdicts(1), [(0, &TraceVerdict::Drop), (2, &TraceVerdict::Keep)]);
    let seen: Vec<&Record> = trace.stages[1].records.iter().map(|record| &record.record).collect();
    assert_eq!(seen[1].value.as_deref(), Some(&b"b"[..]));
    assert_eq!((trace.output.books.kept, trace.output.books.dropped, trace.output.books.dead_lettered), (1, 1, 1));
}

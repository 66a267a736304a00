//! Random decisions: the pipeline, run by guests, against a plain model of what they mean.

use std::sync::LazyLock;

use abi::{Span, output::*};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use protocol::{
    BatchBuilder, BatchProducer, Books, Compression, Epoch, Header, OnError, ProducerId, Record, RecordBatch, Sequence,
    TopicName,
};
use transform::{Pipeline, Plugin, PluginHost, Worker};

use crate::common::{BASE, PUPPET_AT, TIME, host, puppet_of, puppet_plugin, run, stored};

/// What a guest says of one record.
#[derive(Debug, Clone)]
enum Verdict {
    Keep,
    Drop,
    /// A new value.
    Patch(Option<Vec<u8>>),
    /// Whole records: the target of each (0 for the own topic), and the record.
    Records(Vec<(u16, Record)>),
    Fail,
}

/// Which kind of output a stage answers with; verdicts that it cannot say are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KeepAll,
    DropAll,
    Bitmap,
    Patch,
    Records,
}

fn a_record() -> impl Strategy<Value = Record> {
    let bytes = || option::of(vec(any::<u8>(), 0..20).prop_map(Bytes::from));
    let header = ("[a-z]{0,4}", bytes()).prop_map(|(name, value)| Header { name: name.into(), value });
    (bytes(), bytes(), vec(header, 0..3), -1_000_i64..1_000_000).prop_map(|(key, value, headers, after)| Record {
        key,
        value,
        headers,
        timestamp: TIME + after,
    })
}

fn a_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Keep),
        2 => Just(Verdict::Drop),
        2 => option::of(vec(any::<u8>(), 0..300)).prop_map(Verdict::Patch),
        2 => vec((0_u16..3, a_record()), 0..4).prop_map(Verdict::Records),
        1 => Just(Verdict::Fail),
    ]
}

fn a_stage() -> impl Strategy<Value = (Kind, Vec<Verdict>, OnError)> {
    let kind = prop_oneof![
        Just(Kind::KeepAll),
        Just(Kind::DropAll),
        Just(Kind::Bitmap),
        Just(Kind::Patch),
        Just(Kind::Records),
    ];
    let on_error = prop_oneof![Just(OnError::DeadLetter), Just(OnError::Drop), Just(OnError::Reject)];
    (kind, vec(a_verdict(), 64), on_error)
}

fn a_codec() -> impl Strategy<Value = Compression> {
    use Compression::*;
    prop_oneof![Just(None), Just(Gzip), Just(Snappy), Just(Lz4), Just(Zstd)]
}

/// A record at a stage: the offset delta it has, the produced record it comes from, and itself.
#[derive(Debug, Clone, PartialEq)]
struct At {
    delta: u32,
    source: u32,
    record: Record,
}

/// The verdict as a stage of this kind can say it.
fn as_said(kind: Kind, verdict: &Verdict) -> Verdict {
    match (kind, verdict) {
        (_, Verdict::Fail) => Verdict::Fail,
        (Kind::KeepAll, _) => Verdict::Keep,
        (Kind::DropAll, _) => Verdict::Drop,
        (Kind::Bitmap, Verdict::Drop) | (Kind::Patch, Verdict::Drop) => Verdict::Drop,
        (Kind::Bitmap, _) => Verdict::Keep,
        (Kind::Patch, patch @ Verdict::Patch(_)) => patch.clone(),
        (Kind::Patch, _) => Verdict::Keep,
        (Kind::Records, verdict) => verdict.clone(),
    }
}

/// What the model keeps of a batch.
#[derive(Debug, Default)]
struct Model {
    own: Vec<At>,
    routed: Vec<(u16, u32, Record)>,
    failed: Vec<(u32, OnError)>,
}

impl Model {
    fn stage(&mut self, kind: Kind, verdicts: &[Verdict], on_error: OnError) {
        let inputs = std::mem::take(&mut self.own);
        let mut failed_now = Vec::new();
        for (at, verdict) in inputs.into_iter().zip(verdicts) {
            let whole = |record| At { record, ..at.clone() };
            match as_said(kind, verdict) {
                Verdict::Keep => self.own.push(at),
                Verdict::Drop => {}
                Verdict::Patch(value) => {
                    let value = value.map(Bytes::from);
                    self.own.push(whole(Record { value, ..at.record.clone() }));
                }
                Verdict::Records(records) => {
                    for (target, record) in records {
                        match target {
                            0 => self.own.push(whole(record)),
                            _ => self.routed.push((target, at.source, record)),
                        }
                    }
                }
                Verdict::Fail => failed_now.push(at.source),
            }
        }
        if kind == Kind::Records {
            (0..).zip(&mut self.own).for_each(|(delta, at)| at.delta = delta);
        }
        for source in failed_now {
            if !self.failed.iter().any(|(failed, _)| *failed == source) {
                self.failed.push((source, on_error));
            }
        }
        self.own.retain(|at| !self.failed.iter().any(|(failed, _)| *failed == at.source));
    }

    fn books(&self, records_in: u64) -> Books {
        let count = |policy| self.failed.iter().filter(|(_, on_error)| *on_error == policy).count() as u64;
        let mut kept: Vec<_> = self.own.iter().map(|at| at.source).chain(self.routed.iter().map(|r| r.1)).collect();
        kept.sort_unstable();
        kept.dedup();
        let (dead_lettered, rejected) = (count(OnError::DeadLetter), count(OnError::Reject));
        Books {
            records_in,
            kept: kept.len() as u64,
            stored: (self.own.len() + self.routed.len()) as u64,
            dropped: records_in - kept.len() as u64 - dead_lettered - rejected,
            dead_lettered,
            rejected,
        }
    }
}

/// What a puppet must say so that a stage decides as told about `inputs`: the output, and the bytes behind it.
fn script(kind: Kind, verdicts: &[Verdict], inputs: &[At]) -> (Vec<u8>, Vec<u8>) {
    let said: Vec<_> = verdicts.iter().take(inputs.len()).map(|verdict| as_said(kind, verdict)).collect();
    let failures = said.iter().filter(|verdict| matches!(verdict, Verdict::Fail)).count();
    // The output is written twice: its length, and so the place of the bytes behind it, is known after the first time.
    let (first, _) = write(kind, &said, inputs, failures, 0);
    write(kind, &said, inputs, failures, PUPPET_AT + first.len() as u32)
}

fn write(kind: Kind, said: &[Verdict], inputs: &[At], failures: usize, data_at: u32) -> (Vec<u8>, Vec<u8>) {
    let count = inputs.len() as u32;
    let mut data = Vec::new();
    let mut span = |bytes: &[u8]| {
        let address = data_at + data.len() as u32;
        data.extend_from_slice(bytes);
        Span { address, length: bytes.len() as u32 }
    };
    let mut bitmap = vec![0_u8; bitmap_len(count)];
    let (mut patches, mut entries, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (verdict, at)) in (0_u32..).zip(said.iter().zip(inputs)) {
        let mut entry = |target, body| {
            entries.extend(RecordEntry { source: index, target, flags: 0, body }.encode());
        };
        // What is said of a failed record otherwise does not count.
        let is_kept = !matches!(verdict, Verdict::Drop);
        bitmap[index as usize / 8] |= u8::from(is_kept) << (index % 8);
        match verdict {
            Verdict::Keep if kind == Kind::Records => entry(0, span(&body(&at.record))),
            Verdict::Keep => patches.extend(encode_patch(Patch::Unchanged)),
            Verdict::Drop => {}
            Verdict::Patch(value) if kind == Kind::Records => {
                let value = value.clone().map(Bytes::from);
                entry(0, span(&body(&Record { value, ..at.record.clone() })));
            }
            Verdict::Patch(None) => patches.extend(encode_patch(Patch::Null)),
            Verdict::Patch(Some(value)) => patches.extend(encode_patch(Patch::Value(span(value)))),
            Verdict::Records(records) => records.iter().for_each(|(to, record)| entry(*to, span(&body(record)))),
            Verdict::Fail => {
                if kind == Kind::Records {
                    entry(0, span(&body(&at.record)));
                }
                patches.extend(encode_patch(Patch::Null));
                failed.extend(FailureEntry { record: index, code: 9, text: span(b"told to") }.encode());
            }
        }
    }
    let parts: Vec<&[u8]> = match kind {
        Kind::KeepAll | Kind::DropAll => vec![],
        Kind::Bitmap => vec![&bitmap],
        Kind::Patch => vec![&bitmap, &patches],
        Kind::Records => vec![&entries],
    };
    let of_kind = [kind::KEEP_ALL, kind::DROP_ALL, kind::BITMAP, kind::PATCH, kind::RECORDS][kind as usize];
    let of_count = if kind == Kind::Records { entries.len() / ENTRY_LEN } else { inputs.len() };
    let mut output = encode_header(of_kind, of_count as u32).to_vec();
    parts.into_iter().for_each(|part| output.extend_from_slice(part));
    if failures > 0 {
        output.extend((failures as u32).to_le_bytes());
        output.extend(failed);
    }
    (output, data)
}

/// A record's body, as the input has it: encoded by the one encoder there is, in a batch of its own.
fn body(record: &Record) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.timestamps(TIME, TIME);
    builder.append(record).unwrap();
    let section = builder.finish(BASE).unwrap().records_section(1 << 20).unwrap();
    let mut body = &section[..];
    protocol::varint::read_i32(&mut body).unwrap();
    body.to_vec()
}

fn a_batch(records: &[Record], codec: Compression) -> RecordBatch {
    let mut builder = BatchBuilder::new(codec);
    builder.timestamps(TIME, TIME);
    let base_sequence = Sequence(77);
    builder.producer(BatchProducer { id: ProducerId(5), epoch: Epoch(6), base_sequence });
    records.iter().for_each(|record| builder.append(record).unwrap());
    builder.finish(BASE).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn guests_and_model_agree(
        records in vec(a_record(), 1..40),
        codec in a_codec(),
        stages in vec(a_stage(), 1..4),
    ) {
        static HOST: LazyLock<(PluginHost, Plugin)> = LazyLock::new(|| {
            let host = host();
            let plugin = puppet_plugin(&host);
            (host, plugin)
        });
        let (host, plugin) = &*HOST;
        let targets = ["left", "right"].map(|name| TopicName::new(name).unwrap());

        let at = |(delta, record): (u32, &Record)| At { delta, source: delta, record: record.clone() };
        let mut model = Model { own: (0..).zip(&records).map(at).collect(), ..Model::default() };
        let mut transforms = Vec::new();
        for (kind, verdicts, on_error) in &stages {
            if model.own.is_empty() {
                break;
            }
            let (output, data) = script(*kind, verdicts, &model.own);
            transforms.push(puppet_of(host, plugin, &output, &data, |spec| {
                spec.on_error = *on_error;
                spec.targets = targets.to_vec();
            }));
            model.stage(*kind, verdicts, *on_error);
        }
        // A source that failed takes what it was routed as with it, whichever stage that was at.
        model.routed.retain(|(_, source, _)| !model.failed.iter().any(|(failed, _)| failed == source));
        model.routed.sort_by_key(|(_, source, _)| *source);

        let batch = a_batch(&records, codec);
        let output = run(&mut Worker::new(host), &Pipeline::new(transforms), &batch).unwrap();

        let expected: Vec<_> =
            model.own.iter().map(|at| (BASE.plus(at.delta.into()), at.record.clone())).collect();
        prop_assert_eq!(stored(&output), expected);
        prop_assert_eq!(output.books, model.books(records.len() as u64));
        let outputs = model.own.last().map_or(0, |at| u64::from(at.delta) + 1);
        prop_assert_eq!(output.span, outputs.max(records.len() as u64));
        let routed: Vec<_> = output.routed.into_iter().map(|to| (to.target, to.source, to.record)).collect();
        let expected: Vec<_> = model
            .routed
            .iter()
            .map(|(target, source, record)| (targets[usize::from(*target) - 1].clone(), *source, record.clone()))
            .collect();
        prop_assert_eq!(routed, expected);

        let of = |policy| {
            let mut failed: Vec<_> = model.failed.iter().filter(|f| f.1 == policy).map(|f| f.0).collect();
            failed.sort_unstable();
            failed
        };
        let rejected: Vec<_> = output.rejects.iter().map(|reject| reject.index).collect();
        prop_assert_eq!(rejected, of(OnError::Reject));
        let dead: Vec<_> = output.dead_letters.iter().map(|letter| letter.source).collect();
        prop_assert_eq!(dead, of(OnError::DeadLetter));
        for letter in &output.dead_letters {
            prop_assert_eq!((letter.code, &*letter.text), (9, "told to"));
            prop_assert_eq!(&letter.record, &records[letter.source as usize]);
        }
        if let Some(own) = &output.own {
            let (header, produced) = (own.header(), batch.header());
            prop_assert_eq!(header.producer(), produced.producer());
            prop_assert_eq!(header.attributes, produced.attributes);
            let latest = model.own.iter().map(|at| at.record.timestamp).max();
            if own.bytes() != batch.bytes() {
                prop_assert_eq!(Some(header.max_timestamp), latest);
            }
        }
    }
}

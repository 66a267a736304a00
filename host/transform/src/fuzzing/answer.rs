//! Any bytes as what a guest returns for a batch: decoded, carried out, and the records that come of it.

use std::collections::BTreeSet;

use abi::{
    Span,
    output::{self, FailureEntry, Output, Patch, RecordEntry, kind},
};
use bytes::Bytes;
use protocol::{
    BatchBuilder, BatchHeader, Compression, Header, Offset, Record, RecordView,
    limits::{BATCH_RECORDS_MAX, DECOMPRESSED_BYTES_MAX, GUEST_TEXT_BYTES_MAX, RECORD_BYTES_CEILING},
    records,
};

use crate::reframe::{Piece, Reframed, Reframer, Rules};

/// What comes before the guest's memory: the number of records, what the topic and the limits are, and where the output
/// begins in the memory.
const SETTINGS_BYTES: usize = 4;

/// Records of one batch, at most.
const RECORDS_MAX: u8 = 40;

const TARGETS: usize = 3;

/// Any bytes as a guest's memory with an answer in it. The batch's own records lie at the memory's beginning, as the host
/// puts them there, so that an answer can point at them.
pub fn guest_output(data: &[u8]) {
    let Some((&[count, settings, low, high], rest)) = data.split_first_chunk::<SETTINGS_BYTES>() else { return };
    let (header, section) = batch(count % RECORDS_MAX);
    let memory = [&section[..], rest].concat();
    let output_at = section.len() + usize::from(u16::from_le_bytes([low, high])) % (rest.len() + 1);
    let rules = Rules {
        header,
        max_record_bytes: if settings & 1 == 0 { 1 << 20 } else { 64 },
        target_count: if settings & 2 == 0 { TARGETS } else { 0 },
        keyed_targets: u64::from(settings >> 2 & 0b111),
        output_bytes: if settings & 0x20 == 0 { 32 << 20 } else { 200 },
    };
    let pieces = if settings & 0x40 == 0 { 1 } else { 2 };
    check(rules, &section, header.record_count, &memory, &memory[output_at..], pieces);
}

/// Some records with and without key, value and headers.
fn batch(count: u8) -> (BatchHeader, Bytes) {
    let mut builder = BatchBuilder::new(Compression::None);
    for index in 0..count {
        let key = (index % 3 > 0).then(|| Bytes::from(format!("key-{index}")));
        let value = (index % 4 > 0).then(|| Bytes::from(vec![b'v'; usize::from(index) * 5]));
        let header = Header { name: "h".into(), value: Some("x".into()) };
        let headers = if index % 5 == 0 { vec![header] } else { Vec::new() };
        let record = Record { key, value, headers, timestamp: 1_000 + i64::from(index) };
        builder.append(&record).expect("a few small records fit a batch");
    }
    let batch = builder.finish(Offset::ZERO).expect("a few small records fit a batch");
    (*batch.header(), batch.bytes().slice(protocol::HEADER_BYTES..))
}

/// Carries out one answer, for the whole batch or, the same again, for each half of it.
fn check(rules: Rules, section: &Bytes, count: u32, memory: &[u8], output: &[u8], pieces: u32) {
    let mut reframer = Reframer::new(rules, section.len(), count);
    let mut first = 0;
    for end in (1..=pieces).map(|nth| count * nth / pieces) {
        let Ok(output) = Output::decode(output, end - first) else { return };
        let piece = Piece { first, section: &section[start_of(section, first)..start_of(section, end)] };
        first = end;
        reframer.apply(piece, &output, memory).expect("our own section can be read");
    }
    check_reframed(rules, count, reframer.finish().expect("our own section can be read"));
}

/// Where the nth record begins.
fn start_of(section: &[u8], nth: u32) -> usize {
    records(section).take(nth as usize).map(|record| record.expect("our own records are sound").raw.len()).sum()
}

fn check_reframed(rules: Rules, count: u32, reframed: Reframed) {
    let Reframed { ref origins, ref routed, ref failures, .. } = reframed;
    let section = reframed.section();
    assert!(section.len() <= DECOMPRESSED_BYTES_MAX && origins.len() <= BATCH_RECORDS_MAX);
    let written: Vec<RecordView<'_>> =
        records(section).map(|record| record.expect("what is stored can be read")).collect();
    assert_eq!(written.len(), origins.len(), "every record comes from one");
    assert!(written.is_sorted_by(|a, b| a.offset_delta < b.offset_delta), "offsets ascend");
    assert!(written.last().is_none_or(|last| last.offset_delta == reframed.last_offset_delta));
    assert_eq!(written.iter().map(|view| view.timestamp_delta).max().unwrap_or(i64::MIN), reframed.max_timestamp_delta);
    assert!(origins.is_sorted() && origins.iter().all(|origin| *origin < count));
    for elsewhere in routed {
        assert!(elsewhere.origin < count && (1..=rules.target_count).contains(&usize::from(elsewhere.target)));
        let needs_key = rules.keyed_targets >> (elsewhere.target - 1) & 1 == 1;
        assert!(!needs_key || elsewhere.record.key.is_some(), "a record without a key goes where one is needed");
        let value_bytes = elsewhere.record.value.as_ref().map_or(0, Bytes::len);
        assert!(value_bytes <= RECORD_BYTES_CEILING);
    }
    let failed: BTreeSet<u32> = failures.iter().map(|failure| failure.origin).collect();
    assert_eq!(failed.len(), failures.len(), "a record failed twice");
    assert!(failed.iter().all(|origin| *origin < count));
    let left = origins.iter().chain(routed.iter().map(|elsewhere| &elsewhere.origin));
    assert!(left.clone().all(|origin| !failed.contains(origin)), "something is left of a record that failed");
    assert!(failures.iter().all(|failure| failure.text.len() <= GUEST_TEXT_BYTES_MAX + 4));
    let kept: BTreeSet<&u32> = left.collect();
    assert_eq!(reframed.kept_count(), kept.len() as u64, "the books do not balance");
}

/// An answer of every kind.
pub fn answer_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (count, span) = (4_u32, Span { address: 1, length: 9 });
    let head = |kind| output::encode_header(kind, count).to_vec();
    let bitmap = [0b1011, 0, 0, 0];
    let patches = [Patch::Unchanged, Patch::Null, Patch::Value(span)].map(output::encode_patch).concat();
    let entry = |source, target| RecordEntry { source, target, flags: 0, body: span }.encode();
    let failure = FailureEntry { record: 2, code: 7, text: span }.encode();
    let failures = [&1_u32.to_le_bytes()[..], &failure].concat();
    let kinds = [
        ("keep-all", head(kind::KEEP_ALL)),
        ("drop-all", head(kind::DROP_ALL)),
        ("bitmap", [head(kind::BITMAP), bitmap.to_vec(), failures.clone()].concat()),
        ("patch", [head(kind::PATCH), bitmap.to_vec(), patches, failures.clone()].concat()),
        (
            "records",
            [head(kind::RECORDS), [entry(0, 0), entry(0, 1), entry(2, 0), entry(3, 3)].concat(), failures].concat(),
        ),
    ];
    kinds.into_iter().map(|(name, output)| (name, [vec![count as u8, 0, 0, 0], output].concat())).collect()
}

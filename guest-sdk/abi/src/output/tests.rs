//! What an output may say, in every kind, and that every malformed one is refused. Pure values.

extern crate std;
use std::{vec, vec::Vec};

use super::*;

const SPAN: Span = Span { address: 0x0102_0304, length: 5 };

fn output(kind: u32, count: u32, rest: &[&[u8]]) -> Vec<u8> {
    [&encode_header(kind, count)[..], &rest.concat()].concat()
}

fn failures(entries: &[FailureEntry]) -> Vec<u8> {
    let mut bytes = u32::try_from(entries.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(entries.iter().flat_map(|entry| entry.encode()));
    bytes
}

#[test]
fn keep_all_and_drop_all_have_no_body() {
    let keep = output(kind::KEEP_ALL, 4, &[]);
    assert!(matches!(Output::decode(&keep, 4).unwrap().decisions, Decisions::KeepAll));
    let drop = output(kind::DROP_ALL, 4, &[]);
    assert!(matches!(Output::decode(&drop, 4).unwrap().decisions, Decisions::DropAll));
}

#[test]
fn a_bitmap_names_the_kept_records_from_the_lowest_bit() {
    // Ten records: 0, 3 and 9 kept; bits behind the tenth are set and ignored.
    let bytes = output(kind::BITMAP, 10, &[&[0b0000_1001, 0b1111_1110, 0, 0]]);
    let Decisions::Bitmap(kept) = Output::decode(&bytes, 10).unwrap().decisions else { panic!("not a bitmap") };
    let indices: Vec<usize> = kept.iter().enumerate().filter(|(_, kept)| *kept).map(|(at, _)| at).collect();
    assert_eq!(indices, [0, 3, 9]);
    assert_eq!(kept.kept_count(), 3);
    assert!(kept.is_kept(9) && !kept.is_kept(10) && !kept.is_kept(1_000_000));
}

#[test]
fn a_patch_has_one_entry_per_kept_record() {
    let entries = [Patch::Value(SPAN), Patch::Unchanged, Patch::Null];
    let bytes = output(kind::PATCH, 4, &[&[0b1011, 0, 0, 0], &entries.map(encode_patch).concat()]);
    let Decisions::Patch { kept, patches } = Output::decode(&bytes, 4).unwrap().decisions else { panic!("no patch") };
    assert_eq!(kept.kept_count(), 3);
    assert_eq!(patches.iter().collect::<Vec<_>>(), entries);
    assert_eq!(bytes[12..20], [4, 3, 2, 1, 5, 0, 0, 0]);
}

#[test]
fn records_may_come_from_one_source_or_none() {
    let entry = |source, target| RecordEntry { source, target, flags: 0, body: SPAN };
    let entries = [entry(0, 0), entry(0, 2), entry(2, 0)];
    let bytes = output(kind::RECORDS, 3, &[&entries.map(RecordEntry::encode).concat()]);
    let Decisions::Records(records) = Output::decode(&bytes, 3).unwrap().decisions else { panic!("no records") };
    assert_eq!(records.iter().collect::<Vec<_>>(), entries);
}

#[test]
fn failures_follow_any_kind() {
    let failed = [FailureEntry { record: 1, code: 7, text: SPAN }, FailureEntry { record: 3, code: 8, text: SPAN }];
    for (kind, body) in [(kind::KEEP_ALL, &[][..]), (kind::DROP_ALL, &[]), (kind::BITMAP, &[0b101, 0, 0, 0])] {
        let bytes = output(kind, 4, &[body, &failures(&failed)]);
        assert_eq!(Output::decode(&bytes, 4).unwrap().failures.iter().collect::<Vec<_>>(), failed);
    }
}

#[test]
fn every_cut_is_an_error_or_a_whole_output() {
    let entries = [Patch::Value(SPAN), Patch::Unchanged].map(encode_patch).concat();
    let failed = failures(&[FailureEntry { record: 0, code: 1, text: SPAN }]);
    let bytes = output(kind::PATCH, 4, &[&[0b11, 0, 0, 0], &entries, &failed]);
    let whole_without_failures = bytes.len() - failed.len();
    for len in 0..bytes.len() {
        assert_eq!(Output::decode(&bytes[..len], 4).is_ok(), len == whole_without_failures, "cut at {len}");
    }
    assert_eq!(Output::decode(&[&bytes[..], &[0, 0]].concat(), 4).unwrap_err(), OutputError::BytesLeft { count: 2 });
}

#[test]
fn counts_that_lie_are_refused_before_anything_is_read() {
    assert_eq!(Output::decode(&output(kind::RECORDS, u32::MAX, &[]), 4).unwrap_err(), OutputError::Cut);
    assert_eq!(Output::decode(&output(kind::BITMAP, u32::MAX, &[]), u32::MAX).unwrap_err(), OutputError::Cut);
    assert_eq!(
        Output::decode(&output(kind::KEEP_ALL, 5, &[]), 4).unwrap_err(),
        OutputError::CountWrong { count: 5, record_count: 4 }
    );
    assert_eq!(Output::decode(&output(9, 4, &[]), 4).unwrap_err(), OutputError::KindUnknown { kind: 9 });
}

#[test]
fn indices_out_of_range_or_order_are_refused() {
    let failure = |record| FailureEntry { record, code: 1, text: SPAN };
    for (wrong, index) in [(vec![failure(4)], 4), (vec![failure(1), failure(1)], 1), (vec![failure(2), failure(0)], 0)]
    {
        let bytes = output(kind::KEEP_ALL, 4, &[&failures(&wrong)]);
        assert_eq!(Output::decode(&bytes, 4).unwrap_err(), OutputError::IndexWrong { index });
    }
    let record = |source, flags| RecordEntry { source, target: 0, flags, body: SPAN };
    for (wrong, error) in [
        ([record(1, 0), record(0, 0)], OutputError::IndexWrong { index: 0 }),
        ([record(1, 0), record(4, 0)], OutputError::IndexWrong { index: 4 }),
        ([record(1, 0), record(1, 2)], OutputError::FlagsUnknown { flags: 2 }),
    ] {
        let bytes = output(kind::RECORDS, 2, &[&wrong.map(RecordEntry::encode).concat()]);
        assert_eq!(Output::decode(&bytes, 4).unwrap_err(), error);
    }
}

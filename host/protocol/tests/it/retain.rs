//! What is left of a batch when some of its records go: the kept ones, in their places.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use protocol::{
    BatchError, BatchHeader, BatchProducer, Compression, Epoch, Offset, ProducerId, Record, RecordBatch, Retained,
    Sequence, records,
};

use crate::common::{BUDGET, build, cases, compression, read, record, with_crc};

const BASE: Offset = Offset(1 << 33);
const PRODUCER: BatchProducer = BatchProducer { id: ProducerId(7), epoch: Epoch(3), base_sequence: Sequence(11) };

fn batch(codec: Compression, sent: &[Record], log_append_time: bool) -> RecordBatch {
    let mut builder = build(codec, sent);
    builder.producer(PRODUCER);
    let mut bytes = builder.finish(BASE).unwrap().into_bytes().to_vec();
    bytes[22] |= u8::from(log_append_time) << 3;
    RecordBatch::decode(with_crc(bytes)).unwrap()
}

/// Each record with its offset delta.
fn placed(batch: &RecordBatch) -> Vec<(u32, Record)> {
    let section = batch.records_section(BUDGET).unwrap();
    records(&section).map(|view| view.unwrap().offset_delta).zip(read(batch)).collect()
}

fn part(retained: Retained) -> RecordBatch {
    match retained {
        Retained::Part(batch) => RecordBatch::decode(Bytes::copy_from_slice(batch.bytes())).unwrap(),
        other => panic!("not a part: {other:?}"),
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn kept_records_keep_their_places_and_the_batch_its_own(
        sent in vec(record(), 2..40),
        fates in vec(vec(any::<bool>(), 40), 1..4),
        codec in compression(),
        log_append_time in any::<bool>(),
    ) {
        let original = batch(codec, &sent, log_append_time);
        let (mut left, mut expected) = (original.clone(), placed(&original));
        // Again and again: what is left has gaps.
        for fates in fates {
            let before = expected.clone();
            let mut fate = fates.iter();
            expected.retain(|_| *fate.next().unwrap());
            let mut asked = Vec::new();
            let keep = |index: u32, view: &protocol::RecordView<'_>| {
                asked.push((view.offset_delta, view.to_record(left.header())));
                fates[index as usize]
            };
            let retained = left.retain(keep, BUDGET).unwrap();
            prop_assert_eq!(&asked, &before, "each record is asked about once, in order");
            match expected.len() {
                0 => {
                    prop_assert_eq!(retained, Retained::Nothing);
                    break;
                }
                all if all == before.len() => prop_assert_eq!(retained, Retained::Whole),
                _ => left = part(retained),
            }
            prop_assert_eq!(&placed(&left), &expected);
        }
        let (found, was) = (*left.header(), *original.header());
        let newest = expected.iter().map(|(_, record)| record.timestamp).max().unwrap_or(found.max_timestamp);
        prop_assert_eq!(found.max_timestamp, newest);
        let (batch_bytes, record_count) = (found.batch_bytes, found.record_count);
        prop_assert_eq!(found, BatchHeader { batch_bytes, record_count, max_timestamp: newest, ..was });
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_nobody_is_asked_about_it() {
    let never = |_: u32, _: &protocol::RecordView<'_>| panic!("asked about a record of a batch that is not sound");
    let sent = [Record::new("k", vec![0; 5_000], 1), Record::new("k", "v", 2)];
    for &codec in Compression::ALL {
        let error = batch(codec, &sent, false).retain(never, 1_000).unwrap_err();
        assert_eq!(error, BatchError::Budget { compression: codec, budget: 1_000 });
    }
    // The second record lies where the first one does, by its word: a run of both would have no order.
    let mut bytes = batch(Compression::None, &sent[1..], false).into_bytes().to_vec();
    let again = bytes[61..].to_vec();
    bytes.extend(&again);
    let length = (bytes.len() - 12) as u32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    (bytes[26], bytes[60]) = (1, 2);
    let doubled = RecordBatch::decode(with_crc(bytes)).unwrap();
    assert_eq!(doubled.retain(never, BUDGET), Err(BatchError::OffsetOrder { index: 1, offset_delta: 0 }));
}

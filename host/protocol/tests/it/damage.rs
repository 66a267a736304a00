//! Batches that are damaged or hostile: noticed, bounded, and never a panic.

use std::io::Write;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use protocol::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, Offset, Record, RecordBatch, encode_section, records,
};

use crate::common::{BUDGET, build, bytes, cases, compression, record, with_crc};

/// Does with a batch all that a broker or a reader does.
fn use_it(batch: &RecordBatch, budget: usize) -> Result<usize, BatchError> {
    let _ = (batch.check_produced(), batch.next_offset(), batch.header().producer());
    let section = batch.records_section(budget)?;
    assert!(section.len() <= budget);
    batch.validate_records(&section, budget)?;
    Ok(records(&section).map(|record| record.unwrap().to_record(batch.header()).headers.len()).sum())
}

fn sample(compression: Compression) -> RecordBatch {
    let mut record = Record::new("key", "a value that repeats, a value that repeats", 1_700_000_000_000);
    record.headers =
        vec![protocol::Header::new("name", "value"), protocol::Header { name: "null".into(), value: None }];
    build(compression, &[record.clone(), Record::unkeyed("", 5), record]).finish(Offset(77)).unwrap()
}

#[test]
fn every_flipped_bit_is_noticed_or_lies_outside_the_crc() {
    for &compression in Compression::ALL {
        let batch = sample(compression);
        for bit in 0..batch.bytes().len() * 8 {
            let mut bytes = batch.bytes().to_vec();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            let flipped = RecordBatch::decode(bytes.into());
            match bit / 8 {
                // Base offset: any value but a negative one. Leader epoch: any.
                0..8 if bit != 0 => assert_ne!(flipped.unwrap().header().base_offset, Offset(77)),
                12..16 => assert_ne!(flipped.unwrap().header().partition_leader_epoch, -1),
                _ => assert!(flipped.is_err(), "{compression}: bit {bit} passed"),
            }
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    for &compression in Compression::ALL {
        let batch = sample(compression);
        for len in 0..batch.bytes().len() {
            let cut = batch.bytes().slice(..len);
            assert!(RecordBatch::decode(cut.clone()).is_err(), "{compression}: {len} bytes passed");
            let mut run = cut.clone();
            assert_eq!(RecordBatch::split_first(&mut run).is_ok(), len == 0);
            assert_eq!(run, cut, "what cannot be read stays");
        }
        let more = [batch.bytes(), &b"x"[..]].concat();
        assert_eq!(RecordBatch::decode(more.into()), Err(BatchError::Trailing { bytes: 1 }));
    }
}

#[test]
fn every_cut_or_flip_of_a_compressed_section_is_an_error_or_harmless() {
    for &compression in Compression::ALL {
        let bytes = sample(compression).into_bytes();
        for len in HEADER_BYTES..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            cut[8..12].copy_from_slice(&(len as i32 - 12).to_be_bytes());
            let whole = RecordBatch::decode(with_crc(cut)).and_then(|batch| use_it(&batch, BUDGET));
            // A checksum or an end mark may be missing behind records that are all there, and nothing else.
            assert!(whole.is_err() || whole == Ok(4) && bytes.len() - len <= 8, "{compression}: {len} gave {whole:?}");
        }
        for bit in HEADER_BYTES * 8..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = RecordBatch::decode(with_crc(flipped)).and_then(|batch| use_it(&batch, BUDGET));
        }
    }
}

/// A batch that says it holds one record, with this compressed section.
fn framed(compression: Compression, compressed: Vec<u8>) -> RecordBatch {
    let mut header = *sample(Compression::None).header();
    (header.record_count, header.last_offset_delta) = (1, 0);
    header.attributes = header.attributes.with_compression(compression);
    let bytes = encode_section(&header, &Bytes::from(compressed), Compression::None).unwrap().into_bytes();
    let mut bytes = bytes.to_vec();
    bytes[22] |= compression.number() as u8;
    RecordBatch::decode(with_crc(bytes)).unwrap()
}

#[test]
fn a_bomb_is_refused_at_the_budget() {
    let zeros = Bytes::from(vec![0; 8 << 20]);
    let header: BatchHeader = *sample(Compression::None).header();
    for &compression in &Compression::ALL[1..] {
        let bomb = encode_section(&header, &zeros, compression).unwrap();
        assert!(bomb.bytes().len() < zeros.len() / 20, "{compression} is a bomb");
        for budget in [0, 1, 1_000, 1 << 20, zeros.len() - 1] {
            assert_eq!(bomb.records_section(budget), Err(BatchError::Budget { compression, budget }), "{compression}");
        }
        assert_eq!(bomb.records_section(zeros.len()).unwrap(), zeros, "{compression}");
    }
}

#[test]
fn a_zstd_frame_without_a_size_or_with_a_large_window_obeys_the_budget() {
    let text = b"text that repeats ".repeat(20_000);
    let unfold = |level, window_log, budget| {
        let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
        if let Some(window_log) = window_log {
            encoder.window_log(window_log).unwrap();
        }
        encoder.write_all(&text).unwrap();
        framed(Compression::Zstd, encoder.finish().unwrap()).records_section(budget)
    };
    for (level, window_log) in [(1, None), (3, None), (19, None), (3, Some(27)), (3, Some(10))] {
        for budget in [text.len(), text.len() + 1, BUDGET] {
            assert_eq!(unfold(level, window_log, budget).unwrap(), text, "{level} {window_log:?} {budget}");
        }
        for budget in [0, 1, 5_000, text.len() - 1] {
            let refused = Err(BatchError::Budget { compression: Compression::Zstd, budget });
            assert_eq!(unfold(level, window_log, budget), refused, "{level} {window_log:?}");
        }
    }
}

#[test]
fn several_frames_and_members_are_read_as_one() {
    let parts = [&b"first "[..], b"second"];
    let zstd = parts.map(|part| zstd::encode_all(part, 3).unwrap()).concat();
    let gzip = parts.map(|part| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    });
    for (compression, compressed) in [(Compression::Zstd, zstd), (Compression::Gzip, gzip.concat())] {
        assert_eq!(framed(compression, compressed).records_section(BUDGET).unwrap(), &b"first second"[..]);
    }
}

#[test]
fn snappy_is_read_bare_and_framed_and_its_lies_are_refused() {
    let text = b"text that repeats ".repeat(10);
    let bare = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    let frame = |length: u32| [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &length.to_be_bytes()[..], &bare].concat();
    let unfold = |compressed| framed(Compression::Snappy, compressed).records_section(BUDGET);
    assert_eq!(unfold(bare.clone()).unwrap(), text);
    assert_eq!(unfold(frame(bare.len() as u32)).unwrap(), text);
    let promise = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &bare[2..]].concat();
    for lie in [frame(bare.len() as u32 + 1), frame(u32::MAX), frame(0), promise, Vec::new()] {
        assert!(matches!(unfold(lie), Err(BatchError::Decompress { .. } | BatchError::Budget { .. })));
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn mutated_batches_never_panic(
        sent in vec(record(), 0..6),
        compression in compression(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.2, any::<Index>()),
        behind_the_header in any::<bool>(),
        budget in prop_oneof![Just(BUDGET), 0..4_000usize],
    ) {
        let mut bytes = build(compression, &sent).finish(Offset(9)).unwrap().into_bytes().to_vec();
        let start = if behind_the_header && bytes.len() > HEADER_BYTES { HEADER_BYTES } else { 0 };
        for (place, byte) in changes {
            let place = start + place.index(bytes.len() - start);
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1).max(HEADER_BYTES));
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        }
        let _ = RecordBatch::decode(bytes.clone().into());
        if let Ok(batch) = RecordBatch::decode(with_crc(bytes)) {
            let _ = use_it(&batch, budget);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(noise in bytes(400), compression in compression()) {
        let _ = RecordBatch::decode(noise.clone());
        let mut run = noise.clone();
        let _ = RecordBatch::split_first(&mut run);
        for record in records(&noise).flatten() {
            let _ = (record.headers.count(), record.headers.last(), record.payload_bytes());
        }
        if compression != Compression::None {
            let _ = use_it(&framed(compression, noise.to_vec()), BUDGET);
        }
    }
}

//! Pages of a segment's file, and the parts on them.

use std::path::Path;

use crate::{
    layout::{PART_HEADER_BYTES, PartPlace, parts_on_page},
    parts::{PartAt, read_part, read_record, scan_headers, sound_record},
    record,
};

use super::image::Image;

const HEADER_MAGIC: &[u8; 4] = b"wprt";

/// Any bytes as a segment's file.
pub fn part(data: &[u8]) {
    check(data.to_vec());
    check(resealed(data));
}

/// The same with every part's checksums set right; a part whose body is cut off ends with the file.
fn resealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(4).position(|four| four == HEADER_MAGIC) {
        at += found;
        let Some((header, behind)) = bytes[at..].split_first_chunk_mut::<PART_HEADER_BYTES>() else { break };
        let body_bytes = u32::from_le_bytes([header[48], header[49], header[50], header[51]]);
        let body = behind.get(..body_bytes as usize).unwrap_or(behind);
        header[52..56].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        at += PART_HEADER_BYTES;
    }
    bytes
}

fn check(bytes: Vec<u8>) {
    for found in parts_on_page(&bytes) {
        let header = &bytes[found.start..];
        let (place, body_bytes) = PartPlace::parse(header).expect("a part is found by its header");
        assert_eq!((place, body_bytes as usize + PART_HEADER_BYTES), (found.place, found.bytes));
    }
    let (path, image) = (Path::new("0000000001.redb"), Image(bytes));
    for found in scan_headers(path, &image).expect("bytes in memory can be read") {
        let PartAt { position, bytes } = found.at;
        let start = position as usize;
        let Some(part) = image.0.get(start..start + bytes as usize) else {
            assert!(!found.whole, "a part that is cut off passes for whole");
            continue;
        };
        assert_eq!(found.place.check_whole(part).is_ok(), found.whole);
        assert_eq!(read_part(path, &image, found.place, found.at).is_ok(), found.whole);
        if found.whole {
            check_whole(found.place, part);
        }
        check_record(found.place, part);
        let _ = read_record(path, &image, found.place, found.at).inspect_err(super::assert_tells);
    }
}

/// A whole part opens in its own place and in no other, and is written as it was.
fn check_whole(place: PartPlace, part: &[u8]) {
    let body = place.check_whole(part).expect("it was whole a moment ago");
    assert_eq!(body.len() + PART_HEADER_BYTES, part.len());
    for elsewhere in [
        PartPlace { sequence: place.sequence ^ 1, ..place },
        PartPlace { segment: place.segment ^ 1, ..place },
        PartPlace { epoch: place.epoch ^ 1, ..place },
        PartPlace { part: place.part ^ 1, ..place },
        PartPlace { store: crate::StoreId(place.store.0.map(|byte| byte ^ 1)), ..place },
    ] {
        assert!(elsewhere.body(part).is_err(), "a part passes for {elsewhere:?}");
    }
    let again = place.part_of(body);
    assert_eq!(PartPlace::parse(&again), PartPlace::parse(part));
    assert_eq!(place.check_whole(&again), Ok(body));
}

fn check_record(place: PartPlace, part: &[u8]) {
    let Ok((record, inline_base)) = sound_record(place, part) else { return };
    assert!(inline_base as usize <= part.len() - PART_HEADER_BYTES, "small data begins behind the part");
    assert_eq!(record::from_slice(&record::to_vec(&record)).as_ref(), Some(&record));
}

//! The index file of a sealed segment.

use std::path::Path;

use protocol::PartitionId;

use crate::index_file::{IndexFile, OpenedIndex, assembled};

use super::image::Image;

/// Partitions that are looked at; a file names thousands in a few bytes each.
const PARTITIONS_MAX: usize = 8;

/// Any bytes as an index file, and as the rows of one whose checksums are right.
pub fn index_file(data: &[u8]) {
    check(Image(data.to_vec()));
    check(Image(assembled::file(data)));
}

fn check(file: Image) {
    let path = Path::new("0000000001.index");
    let opened = match IndexFile::open(path, 1, &file) {
        Ok(opened) => opened,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("0000000001.index"), "an error does not name its file: {text}");
            return;
        }
    };
    assert_eq!(opened.header.segment, 1);
    opened.is_of(&file);
    let _ = opened.index.parts(&file).inspect_err(super::assert_tells);
    let OpenedIndex { spans, index, .. } = opened;
    for nth in 0..spans.len().min(PARTITIONS_MAX) {
        let _ = index.check(&file, nth).inspect_err(super::assert_tells);
    }
    assert_eq!(index.check(&file, spans.len()).ok(), Some(None));
    for (partition, span) in spans.iter().take(PARTITIONS_MAX) {
        check_partition(&index, &file, *partition, span.cover_start);
    }
}

fn check_partition(index: &IndexFile, file: &Image, partition: PartitionId, cover_start: u64) {
    let (all, fault) = index.extents(file, partition);
    fault.iter().for_each(super::assert_tells);
    let middle = all.get(all.len() / 2).map_or(cover_start, |extent| extent.cover_start);
    for from in [0, cover_start, middle, u64::MAX] {
        for bytes_max in [0, 1 << 10, usize::MAX] {
            let Ok(found) = index.extents_from(file, partition, from, bytes_max) else { continue };
            assert!(found.iter().all(|extent| extent.cover_end > from), "an extent lies before what was asked for");
            assert!(found.iter().all(|extent| all.contains(extent)));
        }
        if let Ok(Some(extent)) = index.extent_at_time(file, partition, from, extent_time(&all)) {
            assert!(extent.is_at_time(from, extent_time(&all)));
        }
    }
}

fn extent_time(extents: &[crate::index::Extent]) -> i64 {
    extents.last().map_or(0, |extent| extent.max_timestamp_ms)
}

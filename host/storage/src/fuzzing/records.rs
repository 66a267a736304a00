//! The records that commits, segments and snapshots are made of.

use crate::record::{CommitRecord, CrcChain, ExtentRow, SegmentHeader, SnapshotRow};

use super::round_trip;

/// Any bytes as a commit record, a segment's header and a row of its snapshot.
pub fn commit_record(data: &[u8]) {
    round_trip::<SegmentHeader>(data);
    round_trip::<SnapshotRow>(data);
    let Some(record) = round_trip::<CommitRecord>(data) else { return };
    for inline_base in [0, 9, u64::MAX] {
        let mut crcs = CrcChain::default();
        for row in &record.extents {
            check_extent(&row.extent, inline_base, &mut crcs);
        }
    }
}

fn check_extent(row: &ExtentRow, inline_base: u64, crcs: &mut CrcChain) {
    let Some(extent) = row.extent(77, inline_base, crcs) else { return };
    assert!(extent.cover_start <= extent.cover_end && extent.sequence == 77);
    for piece in extent.pieces() {
        assert!(piece.position.checked_add(u64::from(piece.length)).is_some(), "a piece ends beyond everything");
    }
    let lengths = row.pieces.iter().map(|piece| u64::from(piece.length));
    assert_eq!(extent.bytes(), lengths.sum::<u64>());
    // In an index a row stands alone.
    let indexed = ExtentRow::of_index(&extent);
    assert_eq!(indexed.extent(77, 0, &mut CrcChain::default()), Some(extent));
}

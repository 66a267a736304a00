//! Where the bytes of a partition lie within one segment.
//!
//! Owns [`Extent`] (one step of coverage and its bytes) and the index of segments that are not sealed yet, in memory. A
//! sealed segment's index is a file of its own (`index_file`).
//!
//! Invariant: a partition's extents in one segment tile one range of offsets, without holes.
//!
//! Start at [`MemoryIndex`].

use protocol::PartitionId;

use crate::ids::IdMap;

/// Extents in one row of an index file: few enough to decode for one read, many enough to keep rows few.
pub(crate) const EXTENTS_PER_ROW: usize = 64;

/// Bytes within one part's body, and the running checksum of that body before and behind them: a reader checks what it
/// reads and no more, and one pass over the bytes serves their pieces and the part alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Piece {
    pub(crate) part: u16,
    /// Within the part's body, for an index in memory; within the file, for one that was read from an index file.
    pub(crate) position: u64,
    pub(crate) length: u32,
    /// Checksum of the body (of the small data, in part 0) up to here.
    pub(crate) crc_before: u32,
    /// The same, with the piece.
    pub(crate) crc: u32,
}

impl Piece {
    /// Whether these are the bytes that were written.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        crc32c::crc32c_append(self.crc_before, bytes) == self.crc
    }
}

/// One step of a partition's coverage: `[cover_start, cover_end)`, and the pieces that hold its batches (none: a gap).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) cover_start: u64,
    pub(crate) cover_end: u64,
    pub(crate) sequence: u64,
    pub(crate) max_timestamp_ms: i64,
    // Nearly every extent has one piece; there are up to 64 thousand of them in memory.
    first: Piece,
    more: Box<[Piece]>,
}

impl Extent {
    pub(crate) fn new(
        cover_start: u64,
        cover_end: u64,
        sequence: u64,
        max_timestamp_ms: i64,
        mut pieces: Vec<Piece>,
    ) -> Self {
        pieces.retain(|piece| piece.length > 0);
        let first = if pieces.is_empty() { Piece::default() } else { pieces.remove(0) };
        Extent { cover_start, cover_end, sequence, max_timestamp_ms, first, more: pieces.into_boxed_slice() }
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        (self.first.length > 0).then_some(&self.first).into_iter().chain(&self.more)
    }

    /// Moves the pieces in part 0, once it is known where its data begins.
    pub(crate) fn move_inline(&mut self, base: u64) {
        for piece in std::iter::once(&mut self.first).chain(&mut self.more) {
            if piece.part == 0 && piece.length > 0 {
                piece.position += base;
            }
        }
    }

    /// The same extent with its pieces' positions mapped.
    pub(crate) fn placed(&self, position: impl Fn(&Piece) -> u64) -> Extent {
        let mut placed = self.clone();
        for piece in std::iter::once(&mut placed.first).chain(&mut placed.more).filter(|piece| piece.length > 0) {
            piece.position = position(piece);
        }
        placed
    }

    /// Whether it reaches past `from` and has a record batch that may hold a record at or after a time.
    pub(crate) fn is_at_time(&self, from: u64, timestamp_ms: i64) -> bool {
        self.cover_end > from && self.bytes() > 0 && self.max_timestamp_ms >= timestamp_ms
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.length)).sum()
    }
}

/// What a segment holds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionSpan {
    pub(crate) cover_start: u64,
    pub(crate) cover_end: u64,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp_ms: i64,
}

impl PartitionSpan {
    /// What one extent adds.
    pub(crate) fn of(extent: &Extent) -> PartitionSpan {
        PartitionSpan {
            cover_start: extent.cover_start,
            cover_end: extent.cover_end,
            bytes: extent.bytes(),
            max_timestamp_ms: timestamp_of(extent),
        }
    }
}

/// The index of a segment that is being written, or could not be sealed.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    partitions: IdMap<Vec<Extent>>,
    entries: usize,
    held_records: bool,
}

impl MemoryIndex {
    /// Whether it ever had an extent with bytes.
    pub(crate) fn held_records(&self) -> bool {
        self.held_records
    }

    /// Extents, of all partitions.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Appends the next extent of a partition. `false`, and nothing done, when it does not continue the last one.
    #[must_use]
    pub(crate) fn push(&mut self, partition: PartitionId, extent: Extent) -> bool {
        let extents = self.partitions.entry(partition).or_default();
        if extents.last().is_some_and(|last| last.cover_end != extent.cover_start) {
            return false;
        }
        self.held_records |= extent.bytes() > 0;
        extents.push(extent);
        self.entries += 1;
        true
    }

    /// Forgets a partition that was deleted.
    pub(crate) fn remove(&mut self, partition: PartitionId) {
        let removed = self.partitions.remove(&partition);
        self.entries -= removed.map_or(0, |extents| extents.len());
    }

    /// The extents from the one that covers `from` on, as long as `more` (given each of them) says so.
    pub(crate) fn extents_from(
        &self,
        partition: PartitionId,
        from: u64,
        mut more: impl FnMut(&Extent) -> bool,
    ) -> Vec<Extent> {
        let Some(extents) = self.partitions.get(&partition) else { return Vec::new() };
        let first = extents.partition_point(|extent| extent.cover_end <= from);
        let mut found = Vec::new();
        for extent in &extents[first..] {
            found.push(extent.clone());
            if !more(extent) {
                break;
            }
        }
        found
    }

    /// The first extent that reaches past `from` and has a timestamp at or after `timestamp_ms`.
    pub(crate) fn extent_at_time(&self, partition: PartitionId, from: u64, timestamp_ms: i64) -> Option<Extent> {
        let extents = self.partitions.get(&partition)?;
        let first = extents.partition_point(|extent| extent.cover_end <= from);
        let mut later = extents[first..].iter();
        later.find(|extent| extent.is_at_time(from, timestamp_ms)).cloned()
    }

    /// Every partition's extents, in order; by id.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (PartitionId, &[Extent])> {
        let mut partitions: Vec<_> = self.partitions.iter().map(|(id, extents)| (*id, extents.as_slice())).collect();
        partitions.sort_unstable_by_key(|(id, _)| *id);
        partitions.into_iter()
    }

    /// What is held, per partition.
    pub(crate) fn spans(&self) -> Vec<(PartitionId, PartitionSpan)> {
        self.partitions().filter_map(|(id, extents)| Some((id, span_of(extents)?))).collect()
    }
}

/// What some extents, in order, hold.
pub(crate) fn span_of(extents: &[Extent]) -> Option<PartitionSpan> {
    let (first, last) = (extents.first()?, extents.last()?);
    Some(PartitionSpan {
        cover_start: first.cover_start,
        cover_end: last.cover_end,
        bytes: extents.iter().map(Extent::bytes).sum(),
        max_timestamp_ms: extents.iter().map(timestamp_of).max().unwrap_or(i64::MIN),
    })
}

/// An extent's timestamp as far as retention and time lookup go: a gap has none.
pub(crate) fn timestamp_of(extent: &Extent) -> i64 {
    if extent.bytes() > 0 { extent.max_timestamp_ms } else { i64::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, end: u64, timestamp: i64, bytes: u32) -> Extent {
        Extent::new(start, end, 1, timestamp, vec![Piece { length: bytes, ..Piece::default() }])
    }

    #[test]
    fn extents_must_tile() {
        let mut index = MemoryIndex::default();
        let id = PartitionId(1);
        assert!(index.push(id, extent(5, 7, 0, 10)));
        assert!(!index.push(id, extent(8, 9, 0, 10)));
        assert!(!index.push(id, extent(6, 9, 0, 10)));
        assert!(index.push(id, extent(7, 9, 3, 0)));
        assert!(index.push(id, extent(9, 12, 2, 10)));
        assert_eq!(index.entries(), 3);
        let span = PartitionSpan { cover_start: 5, cover_end: 12, bytes: 20, max_timestamp_ms: 2 };
        assert_eq!(index.spans(), [(id, span)]);
    }

    #[test]
    fn lookups_find_the_covering_extent() {
        let mut index = MemoryIndex::default();
        let id = PartitionId(1);
        for (at, timestamp) in [(0, 10), (1, 30), (2, 20)] {
            assert!(index.push(id, extent(at * 10, at * 10 + 10, timestamp, 1)));
        }
        let found = index.extents_from(id, 15, |_| true);
        assert_eq!(found.iter().map(|extent| extent.cover_start).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(index.extents_from(id, 0, |_| false).len(), 1);
        assert_eq!(index.extents_from(id, 30, |_| true), []);
        assert_eq!(index.extent_at_time(id, 0, 15).unwrap().cover_start, 10);
        assert_eq!(index.extent_at_time(id, 20, 15).unwrap().cover_start, 20);
        assert_eq!(index.extent_at_time(id, 0, 31), None);
    }
}

//! The commit record: what part 0 of every commit says, in CBOR with integer keys, so that it can grow.
//!
//! Owns the encoded forms and nothing else. Also the segment header and its snapshot, and the rows of an index file, which
//! are made of the same pieces.
//!
//! Start at [`CommitRecord`].

use bytes::Bytes;
use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as DecodeError,
    encode::{Error as EncodeError, Write},
};
use protocol::{Offset, PartitionId, Retention};

use crate::{PartitionChange, StateChange, StateTable, index::Extent, index::Piece};

/// Everything a commit made true, but for the bytes of the record batches.
///
/// Applied in the order of the fields: partitions created, extents, other partition changes, state.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct CommitRecord {
    /// When, by the host's clock; what a restore to a point in time goes by.
    #[n(0)]
    pub(crate) committed_at_ms: i64,
    /// Parts after part 0.
    #[n(1)]
    pub(crate) parts: u16,
    #[n(2)]
    pub(crate) created: Vec<CreatedRow>,
    #[n(3)]
    pub(crate) extents: Vec<PartitionExtent>,
    #[n(4)]
    pub(crate) changes: Vec<ChangeRow>,
    #[n(5)]
    pub(crate) state: Vec<StateRow>,
}

/// A partition that begins to exist.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CreatedRow {
    #[n(0)]
    pub(crate) id: PartitionId,
    #[n(1)]
    pub(crate) retention: Retention,
}

/// An extent and whose it is. Positions in part 0 count from the end of the record, whose length they cannot know.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PartitionExtent {
    #[n(0)]
    pub(crate) partition: PartitionId,
    #[n(1)]
    pub(crate) extent: ExtentRow,
}

/// An extent; its sequence is the record's (in a commit record) or its own (in an index row).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ExtentRow {
    #[n(0)]
    pub(crate) cover_start: u64,
    #[n(1)]
    pub(crate) cover_count: u64,
    #[n(2)]
    pub(crate) max_timestamp_ms: i64,
    #[n(3)]
    pub(crate) pieces: Vec<PieceRow>,
    #[n(4)]
    pub(crate) sequence: Option<u64>,
}

/// A run of bytes in one part's body.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PieceRow {
    #[n(0)]
    pub(crate) part: u16,
    #[n(1)]
    pub(crate) position: u64,
    #[n(2)]
    pub(crate) length: u32,
    #[n(3)]
    pub(crate) crc: u32,
    /// In an index row. In a commit record the pieces of a part follow on each other, so each begins with the one
    /// before ([`CrcChain`]).
    #[n(4)]
    pub(crate) crc_before: Option<u32>,
}

/// The running checksum while the pieces of a commit record are read in order.
#[derive(Debug, Default)]
pub(crate) struct CrcChain {
    part: u16,
    crc: u32,
}

impl CrcChain {
    fn before(&mut self, row: &PieceRow) -> u32 {
        let before = if row.part == self.part { self.crc } else { 0 };
        *self = CrcChain { part: row.part, crc: row.crc };
        row.crc_before.unwrap_or(before)
    }
}

impl ExtentRow {
    /// For a commit record, which names the sequence itself and lists all pieces.
    pub(crate) fn of_record(extent: &Extent) -> Self {
        ExtentRow::new(extent, None, |_| None)
    }

    /// For a row of a sealed index.
    pub(crate) fn of_index(extent: &Extent) -> Self {
        ExtentRow::new(extent, Some(extent.sequence), |piece| Some(piece.crc_before))
    }

    fn new(extent: &Extent, sequence: Option<u64>, crc_before: impl Fn(&Piece) -> Option<u32>) -> Self {
        let row = |piece: &Piece| PieceRow {
            part: piece.part,
            position: piece.position,
            length: piece.length,
            crc: piece.crc,
            crc_before: crc_before(piece),
        };
        ExtentRow {
            cover_start: extent.cover_start,
            cover_count: extent.cover_end - extent.cover_start,
            max_timestamp_ms: extent.max_timestamp_ms,
            pieces: extent.pieces().map(row).collect(),
            sequence,
        }
    }

    /// The extent; `inline_base` is where small data begins in part 0's body. `None` when the numbers make no sense.
    pub(crate) fn extent(&self, sequence: u64, inline_base: u64, crcs: &mut CrcChain) -> Option<Extent> {
        let cover_end = self.cover_start.checked_add(self.cover_count)?;
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for row in &self.pieces {
            let base = if row.part == 0 { inline_base } else { 0 };
            let position = row.position.checked_add(base)?;
            position.checked_add(u64::from(row.length))?;
            let crc_before = crcs.before(row);
            pieces.push(Piece { part: row.part, position, length: row.length, crc_before, crc: row.crc });
        }
        Some(Extent::new(self.cover_start, cover_end, sequence, self.max_timestamp_ms, pieces))
    }
}

/// A change of a partition that is there.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub(crate) enum ChangeRow {
    #[n(0)]
    SetRetention {
        #[n(0)]
        id: PartitionId,
        #[n(1)]
        retention: Retention,
    },
    #[n(1)]
    Delete {
        #[n(0)]
        id: PartitionId,
    },
    #[n(2)]
    SetLogStart {
        #[n(0)]
        id: PartitionId,
        #[n(1)]
        offset: Offset,
    },
}

impl ChangeRow {
    /// The row of a change; a creation has a list of its own.
    pub(crate) fn new(change: &PartitionChange) -> Option<ChangeRow> {
        match *change {
            PartitionChange::Create { .. } => None,
            PartitionChange::SetRetention { id, retention } => Some(ChangeRow::SetRetention { id, retention }),
            PartitionChange::Delete { id } => Some(ChangeRow::Delete { id }),
            PartitionChange::SetLogStart { id, offset } => Some(ChangeRow::SetLogStart { id, offset }),
        }
    }
}

/// A row of state, set (`value`) or removed (no value).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StateRow(pub(crate) StateChange);

impl<C> Encode<C> for StateRow {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        let StateChange { table, key, value } = &self.0;
        e.array(3)?.u8(*table as u8)?.bytes(key)?;
        match value {
            Some(value) => e.bytes(value)?,
            None => e.null()?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for StateRow {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(3) {
            return Err(DecodeError::message("a state row has three fields"));
        }
        let table = StateTable::from_number(d.u8()?).ok_or_else(|| DecodeError::message("unknown state table"))?;
        let key = Bytes::copy_from_slice(d.bytes()?);
        let value = if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            None
        } else {
            Some(Bytes::copy_from_slice(d.bytes()?))
        };
        Ok(StateRow(StateChange { table, key, value }))
    }
}

/// What a segment's header says beside the format row.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SegmentHeader {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) store: [u8; 16],
    #[n(1)]
    pub(crate) segment: u64,
    /// Which opening of the store made it: greater than every epoch before, never used again, so that what a lost
    /// commit left on the disk does not pass for what was committed in its stead.
    #[n(2)]
    pub(crate) epoch: u64,
    #[n(3)]
    pub(crate) first_sequence: u64,
    #[n(4)]
    pub(crate) previous: Option<PreviousSegment>,
    #[n(5)]
    pub(crate) created_at_ms: i64,
    #[n(6)]
    pub(crate) partition_id_next: PartitionId,
    /// Rows of the snapshot that follow, in parts of their own.
    #[n(7)]
    pub(crate) snapshot_rows: u16,
    /// Set in a segment that the cleaner wrote: the last of the segments it stands for, from its own id on. Then it holds
    /// the records that are left, as one commit of the last sequence.
    #[n(8)]
    pub(crate) replaces_until: Option<u64>,
    /// Partitions of which it holds no two records of one key, nor one that a compacted segment before it supersedes; in
    /// order.
    #[n(9)]
    pub(crate) compacted: Vec<PartitionId>,
}

/// The segment before, as it stood when the next one was begun.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct PreviousSegment {
    #[n(0)]
    pub(crate) segment: u64,
    /// Whatever it holds beyond this never happened.
    #[n(1)]
    pub(crate) last_sequence: u64,
}

/// A row of the header's snapshot: some partitions and some rows of the small state, as of the sequence before the
/// segment's first.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SnapshotRow {
    #[n(0)]
    pub(crate) partitions: Vec<PartitionRow>,
    #[n(1)]
    pub(crate) state: Vec<StateRow>,
}

/// A partition as the snapshot keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PartitionRow {
    #[n(0)]
    pub(crate) id: PartitionId,
    #[n(1)]
    pub(crate) retention: Retention,
    #[n(2)]
    pub(crate) log_start: u64,
    #[n(3)]
    pub(crate) next_offset: u64,
}

/// Encodes into a fresh buffer.
pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    match minicbor::to_vec(value) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("encoding into memory does not fail: {error}"),
    }
}

/// Decodes all of `bytes`.
pub(crate) fn from_slice<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Option<T> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(part: u16, position: u64, length: u32, crc_before: u32, crc: u32) -> Piece {
        Piece { part, position, length, crc_before, crc }
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let extents = [
            Extent::new(5, 8, 77, -1, vec![piece(1, 0, 9, 0, 11)]),
            Extent::new(8, 9, 77, -1, vec![piece(1, 9, 9, 11, 12), piece(2, 0, 9, 0, 13), piece(0, 10, 20, 0, 14)]),
        ];
        let row = |extent| PartitionExtent { partition: PartitionId(3), extent: ExtentRow::of_record(extent) };
        let record = CommitRecord {
            committed_at_ms: 1,
            parts: 2,
            created: vec![CreatedRow { id: PartitionId(3), retention: Retention::default() }],
            extents: extents.iter().map(row).collect(),
            changes: vec![ChangeRow::Delete { id: PartitionId(1) }],
            state: vec![
                StateRow(StateChange { table: StateTable::Catalog, key: "k".into(), value: Some("v".into()) }),
                StateRow(StateChange { table: StateTable::PluginState, key: "k".into(), value: None }),
            ],
        };
        let decoded: CommitRecord = from_slice(&to_vec(&record)).unwrap();
        assert_eq!(decoded, record);
        let mut crcs = CrcChain::default();
        let rows = decoded.extents.iter();
        let back: Vec<Extent> = rows.map(|row| row.extent.extent(77, 0, &mut crcs).unwrap()).collect();
        assert_eq!(back, extents);
        let moved = decoded.extents[1].extent.extent(77, 100, &mut CrcChain::default()).unwrap();
        assert_eq!(moved.pieces().map(|piece| piece.position).collect::<Vec<_>>(), [9, 0, 110]);
        assert_eq!(from_slice::<CommitRecord>(&[0xff, 0]), None);
    }

    #[test]
    fn an_index_row_stands_alone() {
        let extent = Extent::new(8, 9, 77, -1, vec![piece(1, 9, 9, 11, 12), piece(2, 0, 9, 0, 13)]);
        let row: ExtentRow = from_slice(&to_vec(&ExtentRow::of_index(&extent))).unwrap();
        assert_eq!(row.extent(row.sequence.unwrap(), 0, &mut CrcChain::default()), Some(extent));
    }
}

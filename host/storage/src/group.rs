//! A group of commits on its way to disk: gathered, packed into parts, described by one record.
//!
//! Owns the packing; writes nothing itself. The bytes of a batch are copied once into the part that redb takes.
//!
//! Start at [`Group::pack`].

use bytes::Bytes;
use protocol::PartitionId;

use crate::{
    Append, Commit, PartitionChange,
    coverage::commit_bytes,
    fault::Fault,
    index::{Extent, Piece},
    layout::{self, Cut, PART_HEADER_BYTES},
    record::{self, ChangeRow, CommitRecord, CreatedRow, ExtentRow, PartitionExtent, StateRow},
    tail::TailExtent,
};

/// Small appends of one partition in one group share an index entry up to this size: what a reader of any of them
/// reads and checks. Well below what a fetch asks for.
const EXTENT_BYTES: usize = 64 << 10;

/// What a commit record spends on an append, more or less.
const ROW_BYTES: usize = 64;

/// Commits that become durable in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Group {
    created: Vec<CreatedRow>,
    appends: Vec<Append>,
    changes: Vec<ChangeRow>,
    state: Vec<StateRow>,
    bytes: usize,
}

/// A group that was put into parts, as readers will see it once it is synced.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) record: CommitRecord,
    /// In order of partitions, and of offsets within each.
    pub(crate) extents: Vec<PackedExtent>,
}

/// One index entry, and the appends it is made of.
#[derive(Debug)]
pub(crate) struct PackedExtent {
    pub(crate) partition: PartitionId,
    pub(crate) extent: Extent,
    pub(crate) tail: Vec<TailExtent>,
}

impl Group {
    /// Adds an admitted commit. Creations come before all appends and other changes after them, which is the order of
    /// every admitted sequence of commits, because ids are never reused.
    pub(crate) fn add(&mut self, commit: Commit) {
        self.bytes += commit_bytes(&commit);
        for change in &commit.partitions {
            match *change {
                PartitionChange::Create { id, retention } => self.created.push(CreatedRow { id, retention }),
                _ => self.changes.extend(ChangeRow::new(change)),
            }
        }
        self.appends.extend(commit.appends);
        self.state.extend(commit.state.into_iter().map(StateRow));
    }

    /// Whether there is nothing to make durable.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.appends.is_empty() && self.changes.is_empty() && self.state.is_empty()
    }

    /// Index entries, at most.
    pub(crate) fn entries(&self) -> usize {
        self.appends.len()
    }

    /// What it will take of the file, more or less.
    pub(crate) fn file_bytes_estimate(&self) -> u64 {
        layout::file_bytes_estimate(self.bytes, ROW_BYTES * (self.appends.len() + self.created.len()))
    }

    /// Cuts the group into parts and hands each to `put` (part number, header room and body, the body's checksum). The
    /// record, in part 0, comes last, because it says where everything lies.
    pub(crate) fn pack(
        self,
        sequence: u64,
        committed_at_ms: i64,
        scratch: &mut Vec<u8>,
        put: impl FnMut(u16, &mut [u8], u32) -> Result<(), Fault>,
    ) -> Result<Packed, Fault> {
        let mut appends = self.appends;
        appends.sort_by_key(|append| append.partition);
        let data = appends.iter().filter_map(|append| append.batches.as_ref()).map(Bytes::len).sum();
        let mut packer = Packer::new(layout::cut(data), scratch, put);
        let mut extents = Vec::with_capacity(appends.len());
        for of_partition in appends.chunk_by(|a, b| a.partition == b.partition) {
            pack_appends(sequence, of_partition, &mut packer, &mut extents)?;
        }
        let rows = extents.iter().map(|packed| PartitionExtent {
            partition: packed.partition,
            extent: ExtentRow::of_record(&packed.extent),
        });
        let record = CommitRecord {
            committed_at_ms,
            parts: packer.parts(),
            created: self.created,
            extents: rows.collect(),
            changes: self.changes,
            state: self.state,
        };
        let inline_base = packer.finish(&record)?;
        for packed in &mut extents {
            packed.extent.move_inline(inline_base);
        }
        Ok(Packed { record, extents })
    }
}

/// Packs appends of one partition, in order of offsets.
pub(crate) fn pack_appends<P>(
    sequence: u64,
    mut appends: &[Append],
    packer: &mut Packer<'_, P>,
    extents: &mut Vec<PackedExtent>,
) -> Result<(), Fault>
where
    P: FnMut(u16, &mut [u8], u32) -> Result<(), Fault>,
{
    while !appends.is_empty() {
        let (together, after) = appends.split_at(appends_of_one_extent(appends));
        extents.push(pack_extent(sequence, together, packer)?);
        appends = after;
    }
    Ok(())
}

/// How many of these appends (of one partition, at least one) share an index entry.
fn appends_of_one_extent(appends: &[Append]) -> usize {
    let mut bytes = 0;
    let fits = appends.iter().take_while(|append| {
        bytes += append.batches.as_ref().map_or(0, Bytes::len);
        bytes <= EXTENT_BYTES
    });
    fits.count().max(1)
}

fn pack_extent<P>(sequence: u64, appends: &[Append], packer: &mut Packer<'_, P>) -> Result<PackedExtent, Fault>
where
    P: FnMut(u16, &mut [u8], u32) -> Result<(), Fault>,
{
    let mut pieces = Vec::new();
    for batches in appends.iter().filter_map(|append| append.batches.as_ref()) {
        packer.add(batches, &mut pieces)?;
    }
    let (first, last) = (&appends[0], &appends[appends.len() - 1]);
    let with_batches = appends.iter().filter(|append| append.batches.is_some());
    let max_timestamp_ms = with_batches.map(|append| append.max_timestamp_ms).max().unwrap_or(i64::MIN);
    let tail = |append: &Append| TailExtent {
        cover_start: append.cover_start.0,
        cover_end: append.cover_end.0,
        batches: append.batches.clone(),
    };
    Ok(PackedExtent {
        partition: first.partition,
        extent: Extent::new(first.cover_start.0, last.cover_end.0, sequence, max_timestamp_ms, pieces),
        tail: appends.iter().map(tail).collect(),
    })
}

/// Fills parts one after the other.
pub(crate) struct Packer<'s, P> {
    cut: Cut,
    /// The part that is being filled: room for its header, then its body.
    part: &'s mut Vec<u8>,
    /// What rides in part 0.
    inline: Vec<u8>,
    parts_put: u16,
    /// Running checksum of the body that is being filled, or of the small data.
    crc: u32,
    put: P,
}

impl<'s, P> Packer<'s, P>
where
    P: FnMut(u16, &mut [u8], u32) -> Result<(), Fault>,
{
    pub(crate) fn new(cut: Cut, part: &'s mut Vec<u8>, put: P) -> Self {
        part.clear();
        part.resize(PART_HEADER_BYTES, 0);
        let inline = Vec::with_capacity(cut.inline);
        Packer { cut, part, inline, parts_put: 0, crc: 0, put }
    }

    /// Packs some bytes behind the last ones, and notes the pieces they became.
    fn add(&mut self, mut bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let Some(full) = self.cut.part_bytes(self.parts_put) else {
                self.note(pieces, 0, self.inline.len(), bytes);
                self.inline.extend_from_slice(bytes);
                return Ok(());
            };
            let filled = self.part.len() - PART_HEADER_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(full - filled));
            self.note(pieces, self.parts_put + 1, filled, now);
            self.part.extend_from_slice(now);
            if filled + now.len() == full {
                self.put_part()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Notes bytes at a position of a part, as a continuation of the last piece where they are one.
    fn note(&mut self, pieces: &mut Vec<Piece>, part: u16, position: usize, bytes: &[u8]) {
        let (position, length) = (position as u64, bytes.len() as u32);
        let crc_before = self.crc;
        self.crc = crc32c::crc32c_append(crc_before, bytes);
        match pieces.last_mut().filter(|last| last.part == part && last.position + u64::from(last.length) == position) {
            Some(last) => {
                last.length += length;
                last.crc = self.crc;
            }
            None => pieces.push(Piece { part, position, length, crc_before, crc: self.crc }),
        }
    }

    fn put_part(&mut self) -> Result<(), Fault> {
        self.parts_put += 1;
        (self.put)(self.parts_put, self.part, std::mem::take(&mut self.crc))?;
        self.part.truncate(PART_HEADER_BYTES);
        Ok(())
    }

    /// Parts so far, the one that is being filled included.
    pub(crate) fn parts(&self) -> u16 {
        self.parts_put + u16::from(self.part.len() > PART_HEADER_BYTES)
    }

    /// Writes what was not full yet, and part 0; where small data begins in its body.
    pub(crate) fn finish(mut self, record: &CommitRecord) -> Result<u64, Fault> {
        if self.part.len() > PART_HEADER_BYTES {
            self.put_part()?;
        }
        debug_assert!(self.cut.parts.len() <= usize::from(self.parts_put), "the cut fits the data");
        let record = record::to_vec(record);
        self.part.truncate(PART_HEADER_BYTES);
        self.part.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.part.extend_from_slice(&record);
        let inline_base = (self.part.len() - PART_HEADER_BYTES) as u64;
        self.part.extend_from_slice(&self.inline);
        let crc = crc32c::crc32c(&self.part[PART_HEADER_BYTES..]);
        (self.put)(0, self.part, crc)?;
        Ok(inline_base)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use protocol::Offset;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_is_where_the_extents_say(sizes in prop::collection::vec((0_u32..4, 0_usize..200_000), 1..30)) {
            let mut group = Group::default();
            let mut next = BTreeMap::new();
            let mut expected: BTreeMap<PartitionId, Vec<u8>> = BTreeMap::new();
            for (at, (partition, size)) in sizes.into_iter().enumerate() {
                let partition = PartitionId(partition);
                let start = *next.get(&partition).unwrap_or(&0);
                next.insert(partition, start + 1);
                let bytes: Vec<u8> = (0..size).map(|byte| (byte * 7 + at) as u8).collect();
                expected.entry(partition).or_default().extend(&bytes);
                let append = Append {
                    partition,
                    cover_start: Offset(start),
                    cover_end: Offset(start + 1),
                    batches: (size > 0).then(|| bytes.into()),
                    max_timestamp_ms: 0,
                };
                group.add(Commit { appends: vec![append], ..Commit::default() });
            }
            let mut parts = BTreeMap::new();
            let put = |part: u16, bytes: &mut [u8], crc: u32| {
                assert_eq!(crc32c::crc32c(&bytes[PART_HEADER_BYTES..]), crc);
                parts.insert(part, bytes[PART_HEADER_BYTES..].to_vec());
                Ok(())
            };
            let packed = group.pack(9, 0, &mut Vec::new(), put).unwrap();
            let mut found: BTreeMap<PartitionId, Vec<u8>> = BTreeMap::new();
            for packed in &packed.extents {
                for piece in packed.extent.pieces() {
                    let start = piece.position as usize;
                    let bytes = &parts[&piece.part][start..start + piece.length as usize];
                    prop_assert_eq!(crc32c::crc32c_append(piece.crc_before, bytes), piece.crc);
                    found.entry(packed.partition).or_default().extend(bytes);
                }
            }
            expected.retain(|_, bytes| !bytes.is_empty());
            prop_assert_eq!(found, expected);
        }
    }
}

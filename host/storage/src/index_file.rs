//! The index of a sealed segment: a file of its own beside it, written once when the segment is left.
//!
//! Owns `NNNNNNNNNN.index`, and reads of it. It says where everything lies within the segment's file, so that a read is
//! one row of the index and one piece of the file, without redb. It is a projection: made anew from the segment's own
//! parts where it is missing or damaged.
//!
//! ```text
//! 0 magic "wirx" | 4 format version u32 | 8 head bytes u32 | 12 crc32c(head) u32 | 16 head | rows, directories, spans, parts
//! head       the segment's header, its last sequence, and where spans and parts are
//! spans      what the segment holds, per partition; and where the partition's directory is
//! directory  per row of the partition: first offset, largest timestamp, and where the row is
//! row        up to 64 extents in order
//! parts      every part of the segment's log: sequence, number, position, bytes
//! ```
//! CBOR with integer keys. Whatever points somewhere carries the checksum of what is there, and the head names store,
//! segment and epoch: nothing passes for the index of another segment.
//!
//! Start at [`encode`] and [`IndexFile::open`].

#[cfg(feature = "fuzzing")]
pub(crate) mod assembled;

use std::{path::Path, sync::Arc};

use minicbor::{Decode, Encode};
use protocol::PartitionId;

use crate::{
    OpenError, StoreId,
    fault::{Fault, file_name},
    file_system::StoreFile,
    format::FORMAT_VERSION,
    index::{EXTENTS_PER_ROW, Extent, MemoryIndex, PartitionSpan, Piece, span_of, timestamp_of},
    layout::{PART_HEADER_BYTES, PartPlace},
    parts::{PartAt, PartMap},
    record::{self, CrcChain, ExtentRow, SegmentHeader},
};

const MAGIC: [u8; 4] = *b"wirx";

/// Bytes before the head.
const PREAMBLE_BYTES: usize = 16;

/// Bytes of the file behind the head: where they begin there, how many, and their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Section {
    #[n(0)]
    position: u64,
    #[n(1)]
    bytes: u32,
    #[n(2)]
    crc: u32,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    header: SegmentHeader,
    #[n(1)]
    last_sequence: u64,
    #[n(2)]
    spans: Section,
    #[n(3)]
    parts: Section,
    /// Where the segment's header lies, to see whether this is its index.
    #[n(4)]
    header_at: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(array)]
struct SpanRow {
    #[n(0)]
    partition: PartitionId,
    #[n(1)]
    cover_start: u64,
    #[n(2)]
    cover_end: u64,
    #[n(3)]
    bytes: u64,
    #[n(4)]
    max_timestamp_ms: i64,
    #[n(5)]
    directory: Section,
}

#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(array)]
struct DirectoryRow {
    #[n(0)]
    cover_start: u64,
    #[n(1)]
    max_timestamp_ms: i64,
    #[n(2)]
    row: Section,
}

/// A part; its sequence as a step from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
#[cbor(array)]
struct PartRow {
    #[n(0)]
    sequence_step: u64,
    #[n(1)]
    part: u16,
    #[n(2)]
    position: u64,
    #[n(3)]
    bytes: u32,
}

/// Puts an index file together; `position` says where a piece of a commit lies within the segment's file.
pub(crate) fn encode(
    header: &SegmentHeader,
    last_sequence: u64,
    index: &MemoryIndex,
    parts: &PartMap,
    position: impl Fn(u64, &Piece) -> u64,
) -> Vec<u8> {
    let mut body = Vec::new();
    let mut spans = Vec::new();
    for (partition, extents) in index.partitions() {
        let Some(span) = span_of(extents) else { continue };
        let rows = extents.chunks(EXTENTS_PER_ROW).map(|row| put_row(&mut body, row, &position));
        let directory: Vec<DirectoryRow> = rows.collect();
        let PartitionSpan { cover_start, cover_end, bytes, max_timestamp_ms } = span;
        let directory = put(&mut body, &directory);
        spans.push(SpanRow { partition, cover_start, cover_end, bytes, max_timestamp_ms, directory });
    }
    let spans = put(&mut body, &spans);
    let header_part = parts.get(&(0, 0)).copied();
    let parts = put(&mut body, &part_rows(parts));
    let header_at = header_part.map(|part| part.position);
    seal(&Head { header: header.clone(), last_sequence, spans, parts, header_at }, &body)
}

/// The whole file.
fn seal(head: &Head, body: &[u8]) -> Vec<u8> {
    let head = record::to_vec(head);
    let mut file = Vec::with_capacity(PREAMBLE_BYTES + head.len() + body.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    file.extend_from_slice(&(head.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    file.extend_from_slice(&head);
    file.extend_from_slice(body);
    file
}

fn put_row(body: &mut Vec<u8>, extents: &[Extent], position: impl Fn(u64, &Piece) -> u64) -> DirectoryRow {
    let placed = |extent: &Extent| ExtentRow::of_index(&extent.placed(|piece| position(extent.sequence, piece)));
    let rows: Vec<ExtentRow> = extents.iter().map(placed).collect();
    let row = put(body, &rows);
    let max_timestamp_ms = extents.iter().map(timestamp_of).max().unwrap_or(i64::MIN);
    DirectoryRow { cover_start: extents[0].cover_start, max_timestamp_ms, row }
}

fn put<T: Encode<()>>(body: &mut Vec<u8>, value: &T) -> Section {
    put_bytes(body, &record::to_vec(value))
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) -> Section {
    let section = Section { position: body.len() as u64, bytes: bytes.len() as u32, crc: crc32c::crc32c(bytes) };
    body.extend_from_slice(bytes);
    section
}

fn part_rows(parts: &PartMap) -> Vec<PartRow> {
    let mut before = 0;
    let row = |(&(sequence, part), &PartAt { position, bytes })| {
        let sequence_step = sequence - std::mem::replace(&mut before, sequence);
        PartRow { sequence_step, part, position, bytes }
    };
    parts.iter().map(row).collect()
}

/// An index file as it was opened.
pub(crate) struct OpenedIndex {
    pub(crate) header: SegmentHeader,
    pub(crate) last_sequence: u64,
    pub(crate) spans: Vec<(PartitionId, PartitionSpan)>,
    header_at: Option<u64>,
    pub(crate) index: IndexFile,
}

impl OpenedIndex {
    /// Whether this may be the index of that file, and not of one that the cleaner put in its place. A header that cannot
    /// be read, or is a stranger's, says nothing of that: the file is damaged, and what is sound of it is served.
    pub(crate) fn is_of(&self, data: &dyn StoreFile) -> bool {
        let SegmentHeader { store, segment, epoch, .. } = self.header;
        let is_replaced =
            |place: PartPlace| (place.store, place.segment) == (StoreId(store), segment) && place.epoch != epoch;
        !self.header_place(data).is_some_and(is_replaced)
    }

    /// Whether that file's own header says that it is the one whose index this is.
    pub(crate) fn is_confirmed_by(&self, data: &dyn StoreFile) -> bool {
        let SegmentHeader { store, segment, epoch, .. } = self.header;
        let place = PartPlace { store: StoreId(store), segment, epoch, sequence: 0, part: 0 };
        self.header_place(data) == Some(place)
    }

    /// What lies where the index has the file's header.
    fn header_place(&self, data: &dyn StoreFile) -> Option<PartPlace> {
        let mut header = [0; PART_HEADER_BYTES];
        data.read_at(self.header_at?, &mut header).ok()?;
        PartPlace::parse(&header).map(|(place, _)| place)
    }
}

/// Where things are in an index file; small enough to be kept for every segment.
#[derive(Debug)]
pub(crate) struct IndexFile {
    path: Arc<Path>,
    body_at: u64,
    /// In order of partitions.
    directories: Vec<(PartitionId, Section)>,
    parts: Section,
}

impl IndexFile {
    /// Reads and checks what is needed to find the rest.
    pub(crate) fn open(path: &Path, segment: u64, file: &dyn StoreFile) -> Result<OpenedIndex, OpenError> {
        let mut preamble = [0; PREAMBLE_BYTES];
        file.read_at(0, &mut preamble).map_err(|error| Fault::io(path, "read", error))?;
        let field =
            |at: usize| u32::from_le_bytes([preamble[at], preamble[at + 1], preamble[at + 2], preamble[at + 3]]);
        if preamble[..4] != MAGIC {
            return Err(Fault::damaged(path, "it does not begin like an index").into());
        }
        let found = field(4);
        if found > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { file: file_name(path), found, supported: FORMAT_VERSION });
        }
        if found != FORMAT_VERSION {
            return Err(Fault::damaged(path, format!("it says format version {found}")).into());
        }
        let mut index = IndexFile {
            path: path.into(),
            body_at: 0,
            directories: Vec::new(),
            parts: Section { position: 0, bytes: 0, crc: 0 },
        };
        let head = Section { position: PREAMBLE_BYTES as u64, bytes: field(8), crc: field(12) };
        let Head { header, last_sequence, spans, parts, header_at } = index.section(file, head)?;
        if header.segment != segment {
            return Err(Fault::damaged(path, format!("it is the index of segment {}", header.segment)).into());
        }
        index.body_at = (PREAMBLE_BYTES + field(8) as usize) as u64;
        index.parts = parts;
        let rows: Vec<SpanRow> = index.section(file, spans)?;
        index.directories = rows.iter().map(|row| (row.partition, row.directory)).collect();
        let spans = rows.iter().map(|row| {
            let SpanRow { partition, cover_start, cover_end, bytes, max_timestamp_ms, .. } = *row;
            (partition, PartitionSpan { cover_start, cover_end, bytes, max_timestamp_ms })
        });
        Ok(OpenedIndex { header, last_sequence, spans: spans.collect(), header_at, index })
    }

    fn section<T: for<'b> Decode<'b, ()>>(&self, file: &dyn StoreFile, section: Section) -> Result<T, Fault> {
        let io = |error| Fault::io(&self.path, "read", error);
        let Section { position, bytes, crc } = section;
        // A place is believed only as far as there are bytes.
        let len = file.len().map_err(io)?;
        let position = self.body_at.checked_add(position);
        let ends_within = |position: &u64| position.checked_add(u64::from(bytes)).is_some_and(|end| end <= len);
        let Some(position) = position.filter(ends_within) else {
            return Err(Fault::damaged(&self.path, "it is cut off"));
        };
        let mut body = vec![0; bytes as usize];
        file.read_at(position, &mut body).map_err(io)?;
        let sound = crc32c::crc32c(&body) == crc;
        let value = sound.then(|| record::from_slice(&body)).flatten();
        value.ok_or_else(|| Fault::damaged(&self.path, format!("{bytes} bytes at {position} have a wrong checksum")))
    }

    /// Where every part of the segment lies.
    pub(crate) fn parts(&self, file: &dyn StoreFile) -> Result<PartMap, Fault> {
        let rows: Vec<PartRow> = self.section(file, self.parts)?;
        let mut sequence = 0_u64;
        let row = |row: PartRow| {
            sequence = sequence.wrapping_add(row.sequence_step);
            ((sequence, row.part), PartAt { position: row.position, bytes: row.bytes })
        };
        Ok(rows.into_iter().map(row).collect())
    }

    fn directory(&self, file: &dyn StoreFile, partition: PartitionId) -> Result<Vec<DirectoryRow>, Fault> {
        match self.directories.binary_search_by_key(&partition, |(id, _)| *id) {
            Ok(at) => self.section(file, self.directories[at].1),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn row(&self, file: &dyn StoreFile, section: Section) -> Result<Vec<Extent>, Fault> {
        let rows: Vec<ExtentRow> = self.section(file, section)?;
        // Positions in an index row are final: no base is added.
        let mut crcs = CrcChain::default();
        let extents = rows.iter().map(|row| row.extent(row.sequence?, 0, &mut crcs));
        extents.collect::<Option<_>>().ok_or_else(|| Fault::damaged(&self.path, "a row of it is nonsense"))
    }

    /// How many partitions it says something of.
    pub(crate) fn partitions(&self) -> usize {
        self.directories.len()
    }

    /// Reads and checks all that is said of the nth partition; its bytes. `None` when there are not so many.
    pub(crate) fn check(&self, file: &dyn StoreFile, nth: usize) -> Result<Option<u64>, Fault> {
        let Some((_, section)) = self.directories.get(nth) else { return Ok(None) };
        let directory: Vec<DirectoryRow> = self.section(file, *section)?;
        let mut bytes = u64::from(section.bytes);
        for row in directory {
            self.row(file, row.row)?;
            bytes += u64::from(row.row.bytes);
        }
        Ok(Some(bytes))
    }

    /// Every extent of a partition that can be read, and what keeps others from it.
    pub(crate) fn extents(&self, file: &dyn StoreFile, partition: PartitionId) -> (Vec<Extent>, Option<Fault>) {
        let (mut found, mut fault) = (Vec::new(), None);
        match self.directory(file, partition) {
            Ok(directory) => {
                for row in directory {
                    match self.row(file, row.row) {
                        Ok(extents) => found.extend(extents),
                        Err(error) => fault = fault.or(Some(error)),
                    }
                }
            }
            Err(error) => fault = Some(error),
        }
        (found, fault)
    }

    /// The extents of a partition from the one that covers `from` on, until they hold `bytes_max`.
    pub(crate) fn extents_from(
        &self,
        file: &dyn StoreFile,
        partition: PartitionId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Extent>, Fault> {
        let directory = self.directory(file, partition)?;
        let first = directory.partition_point(|row| row.cover_start <= from).saturating_sub(1);
        let mut found = Vec::new();
        let mut bytes = 0;
        for row in directory.get(first..).unwrap_or_default() {
            let extents = match self.row(file, row.row) {
                Err(_) if !found.is_empty() => return Ok(found),
                extents => extents?,
            };
            for extent in extents {
                if extent.cover_end <= from {
                    continue;
                }
                bytes += extent.bytes();
                found.push(extent);
                if bytes >= bytes_max as u64 {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The first extent that reaches past `from` and has a timestamp at or after `timestamp_ms`.
    pub(crate) fn extent_at_time(
        &self,
        file: &dyn StoreFile,
        partition: PartitionId,
        from: u64,
        timestamp_ms: i64,
    ) -> Result<Option<Extent>, Fault> {
        let directory = self.directory(file, partition)?;
        for (at, row) in directory.iter().enumerate() {
            let ends_before = directory.get(at + 1).is_some_and(|next| next.cover_start <= from);
            if row.max_timestamp_ms < timestamp_ms || ends_before {
                continue;
            }
            let extents = self.row(file, row.row)?;
            let found = extents.into_iter().find(|extent| extent.is_at_time(from, timestamp_ms));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

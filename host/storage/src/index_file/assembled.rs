//! Index files of any rows whatever, with right checksums: what a fuzz target cannot hit upon by itself.
//!
//! Rows are put where their directory says nothing of their place (no bytes), and are missing where it does.

use super::{DirectoryRow, Head, Section, SpanRow, put, put_bytes, seal};
use crate::record::{self, SegmentHeader};

/// Partitions of a file, and rows of a partition, that are put in place.
const ROWS_MAX: usize = 8;

/// A file of segment 1, made of pieces with their lengths in front: its parts, its spans, and per span a directory and
/// the rows of it. What is no such thing is none of them.
pub(crate) fn file(data: &[u8]) -> Vec<u8> {
    let mut pieces = Pieces(data);
    let mut body = Vec::new();
    let parts = put_bytes(&mut body, pieces.next());
    let mut spans: Vec<SpanRow> = record::from_slice(pieces.next()).unwrap_or_default();
    for span in spans.iter_mut().take(ROWS_MAX) {
        let mut directory: Vec<DirectoryRow> = record::from_slice(pieces.next()).unwrap_or_default();
        for row in directory.iter_mut().take(ROWS_MAX) {
            place(&mut row.row, || put_bytes(&mut body, pieces.next()));
        }
        place(&mut span.directory, || put(&mut body, &directory));
    }
    let spans = put(&mut body, &spans);
    seal(&Head { header: header(), last_sequence: 9, spans, parts, header_at: Some(0) }, &body)
}

fn place(section: &mut Section, put: impl FnOnce() -> Section) {
    if section.bytes == 0 {
        *section = put();
    }
}

fn header() -> SegmentHeader {
    SegmentHeader {
        store: [7; 16],
        segment: 1,
        epoch: 1,
        first_sequence: 1,
        previous: None,
        created_at_ms: 0,
        partition_id_next: protocol::PartitionId(9),
        snapshot_rows: 0,
        replaces_until: None,
        compacted: Vec::new(),
    }
}

/// Pieces with their lengths in front; empty ones once they run out.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn next(&mut self) -> &'a [u8] {
        let Some((length, rest)) = self.0.split_first_chunk::<2>() else { return &[] };
        let length = usize::from(u16::from_le_bytes(*length));
        let (piece, rest) = rest.split_at(length.min(rest.len()));
        self.0 = rest;
        piece
    }
}

/// The pieces of a file of two partitions, whose rows are put in place.
pub(crate) fn sound_seed() -> Vec<u8> {
    seed(Section { position: 0, bytes: 0, crc: 0 })
}

/// The same with rows beyond everything.
pub(crate) fn wild_seed() -> Vec<u8> {
    seed(Section { position: u64::MAX, bytes: 9, crc: 0 })
}

fn seed(row: Section) -> Vec<u8> {
    let nowhere = Section { position: 0, bytes: 0, crc: 0 };
    let rows = |start: u64| {
        let piece = crate::index::Piece { part: 1, position: 4_096, length: 100, crc_before: 0, crc: 11 };
        let extents = [
            crate::index::Extent::new(start, start + 5, 3, 1_000, vec![piece]),
            crate::index::Extent::new(start + 5, start + 6, 4, 0, Vec::new()),
        ];
        record::to_vec(&extents.iter().map(record::ExtentRow::of_index).collect::<Vec<_>>())
    };
    let directory = |start: u64| -> Vec<u8> {
        let row = |cover_start| DirectoryRow { cover_start, max_timestamp_ms: 1_000, row };
        record::to_vec(&vec![row(start), row(start + 6)])
    };
    let span = |partition| SpanRow {
        partition: protocol::PartitionId(partition),
        cover_start: 0,
        cover_end: 12,
        bytes: 200,
        max_timestamp_ms: 1_000,
        directory: nowhere,
    };
    let parts = vec![
        super::PartRow { sequence_step: 0, part: 0, position: 4_096, bytes: 200 },
        super::PartRow { sequence_step: 3, part: 1, position: 8_192, bytes: 164 },
    ];
    let pieces = [record::to_vec(&parts), record::to_vec(&vec![span(3), span(5)])];
    let rest = [directory(0), rows(0), rows(6), directory(0), rows(0), rows(6)];
    let with_length = |piece: Vec<u8>| [&(piece.len() as u16).to_le_bytes()[..], &piece].concat();
    pieces.into_iter().chain(rest).flat_map(with_length).collect()
}

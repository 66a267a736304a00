//! Sound files of every kind, small: what the fuzz targets begin from.

use std::ops::RangeInclusive;

use protocol::{Offset, PartitionId, Retention};

use crate::{
    StateChange, StateTable, StoreId,
    backup::manifest::{CommitTimes, FileSum, Manifest, SegmentEntry, SegmentKey, SnapshotEntry},
    format::{FileKind, FormatRow, RowPlace},
    index::{Extent, Piece},
    index_file::assembled,
    layout::PartPlace,
    record::{
        self, ChangeRow, CommitRecord, CreatedRow, ExtentRow, PartitionExtent, PartitionRow, PreviousSegment,
        SegmentHeader, SnapshotRow, StateRow,
    },
};

/// Named inputs of one target.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

const PARTITION: PartitionId = PartitionId(3);

/// See [`part`](super::part()).
pub fn part() -> Seeds {
    let body = record_body();
    let place = PartPlace { store: StoreId([7; 16]), segment: 1, epoch: 2, sequence: 3, part: 0 };
    let (record, data) = (place.part_of(&body), PartPlace { part: 1, ..place }.part_of(&[0x5a; 300]));
    let mut cut = leaf(&[&data]);
    cut.truncate(200);
    vec![("record", leaf(&[&record])), ("two", leaf(&[&record, &data])), ("cut", cut)]
}

/// A page of redb with these parts.
fn leaf(parts: &[&[u8]]) -> Vec<u8> {
    let mut page = vec![1, 0, parts.len() as u8, 0];
    let mut end = 4 + parts.len() * 14;
    for part in parts {
        end += part.len();
        page.extend_from_slice(&(end as u32).to_le_bytes());
    }
    page.resize(page.len() + parts.len() * 10, 0);
    parts.iter().for_each(|part| page.extend_from_slice(part));
    page
}

fn record_body() -> Vec<u8> {
    let record = record::to_vec(&commit());
    [&(record.len() as u32).to_le_bytes()[..], &record, &[0x5a; 20]].concat()
}

fn commit() -> CommitRecord {
    let piece = |part, position, crc_before, crc| Piece { part, position, length: 20, crc_before, crc };
    let inline = crc32c::crc32c(&[0x5a; 20]);
    let extents = [
        Extent::new(5, 8, 3, -1, vec![piece(1, 0, 0, 11), piece(1, 20, 11, 12)]),
        Extent::new(8, 9, 3, 7, vec![piece(0, 0, 0, inline)]),
    ];
    let row = |extent| PartitionExtent { partition: PARTITION, extent: ExtentRow::of_record(extent) };
    let state = |value| StateRow(StateChange { table: StateTable::Catalog, key: "k".into(), value });
    CommitRecord {
        committed_at_ms: 1,
        parts: 1,
        created: vec![CreatedRow { id: PARTITION, retention: Retention::default() }],
        extents: extents.iter().map(row).collect(),
        changes: vec![
            ChangeRow::Delete { id: PartitionId(1) },
            ChangeRow::SetLogStart { id: PARTITION, offset: Offset(6) },
        ],
        state: vec![state(Some("v".into())), state(None)],
    }
}

/// See [`commit_record`](super::commit_record).
pub fn commit_record() -> Seeds {
    let partition = PartitionRow { id: PARTITION, retention: Retention::default(), log_start: 4, next_offset: 9 };
    let snapshot = SnapshotRow { partitions: vec![partition], state: commit().state };
    vec![
        ("commit", record::to_vec(&commit())),
        ("header", record::to_vec(&header())),
        ("snapshot", record::to_vec(&snapshot)),
    ]
}

fn header() -> SegmentHeader {
    SegmentHeader {
        store: [7; 16],
        segment: 2,
        epoch: 3,
        first_sequence: 10,
        previous: Some(PreviousSegment { segment: 1, last_sequence: 9 }),
        created_at_ms: 1,
        partition_id_next: PartitionId(4),
        snapshot_rows: 1,
        replaces_until: Some(3),
        compacted: vec![PARTITION],
    }
}

/// See [`index_file`](super::index_file()).
pub fn index_file() -> Seeds {
    let sound = assembled::sound_seed();
    vec![("file", assembled::file(&sound)), ("rows", sound), ("wild", assembled::wild_seed())]
}

/// See [`manifest`](super::manifest()).
pub fn manifest() -> Seeds {
    let sum = FileSum { bytes: 4_096, crc: 1 };
    let segment = |segment: u64, commits: RangeInclusive<u64>| {
        let times = CommitTimes { min_ms: *commits.start() as i64, max_ms: *commits.end() as i64 };
        SegmentEntry {
            key: SegmentKey { segment, epoch: segment },
            first_sequence: *commits.start(),
            last_sequence: *commits.end(),
            replayable: true,
            times: Some(times),
            data: sum,
            index: sum,
        }
    };
    let snapshot = |sequence, last_sequence, segments: &[u64]| SnapshotEntry {
        sequence,
        last_sequence,
        taken_at_ms: last_sequence as i64,
        file: sum,
        segments: segments.iter().map(|&segment| SegmentKey { segment, epoch: segment }).collect(),
    };
    let manifest = Manifest {
        store: [7; 16],
        segments: vec![segment(1, 1..=10), segment(2, 11..=20), segment(4, 21..=30)],
        snapshots: vec![snapshot(15, 20, &[1, 2]), snapshot(30, 30, &[1, 2, 4])],
    };
    vec![("body", record::to_vec(&manifest)), ("file", manifest.encode())]
}

/// See [`state_row`](super::state_row).
pub fn state_row() -> Seeds {
    let store = StoreId([7; 16]);
    let row = RowPlace { store, file: 0, table: "catalog", key: b"topic/clicks" }.seal(b"a topic");
    let applied = [&store.0[..], &9_u64.to_le_bytes()].concat();
    vec![
        ("row", row),
        ("applied", RowPlace { store, file: 0, table: "applied", key: &[] }.seal(&applied)),
        ("format", FormatRow { kind: FileKind::State }.encode().to_vec()),
        ("segment-name", b"0000000042.redb".to_vec()),
        ("backup-name", b"0000000042-0000000003.index".to_vec()),
    ]
}

//! Sealing a segment that is full: its index and summary go into its own file, sorted, once; then it is closed for good.
//!
//! Owns the tables `index`, `times` and `summary`, and reads of them. Runs on the sealer's thread, beside the committer,
//! which has moved on to the next segment; until the file is closed, the index in memory serves.
//!
//! ```text
//! index    (partition u32, cover_start u64) -> up to 64 extents in order
//! times    partition u32 -> (cover_start, largest timestamp) of each of its index rows
//! summary  0 -> last sequence, number of rows; 1.. -> what the segment holds, per partition
//! ```
//!
//! Start at [`seal`].

use std::cmp::Ordering;

use protocol::PartitionId;
use redb::{ReadTransaction, TableDefinition, TableError};

use crate::{
    fault::{Fault, file_name},
    format::RowPlace,
    index::{EXTENTS_PER_ROW, Extent, MemoryIndex, PartitionSpan, timestamp_of},
    record::{self, CrcChain, ExtentRow, SpanRow, SummaryHead},
    segment::{OpenFile, Segment, Source},
};

const INDEX_TABLE: TableDefinition<'static, (u32, u64), &'static [u8]> = TableDefinition::new("index");
const TIMES_TABLE: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("times");
const SUMMARY_TABLE: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("summary");

/// Spans in one row of the summary: about 40 KiB.
const SPANS_PER_ROW: usize = 1_000;

/// Writes index and summary, and closes the file.
pub(crate) fn seal(segment: &Segment) -> Result<(), Fault> {
    segment.with_writable(|open| segment.memory_index(|index| write_tables(segment, open, index)).unwrap_or(Ok(())))?;
    close(segment)?;
    segment.set_index_sealed();
    Ok(())
}

/// Closes a segment's file cleanly, sealed or not, and gives back what was allocated ahead.
pub(crate) fn close(segment: &Segment) -> Result<(), Fault> {
    segment.change_source(|source| {
        let Source::Writable(OpenFile { db, file, meter }) = source else { return (source, Ok(())) };
        let closed = db.close().map_err(Fault::redb(&segment.path, "close"));
        if let Err(error) = meter.release_unused(&*file) {
            tracing::warn!(%error, file = file_name(&segment.path), "blocks allocated ahead cannot be given back");
        }
        segment.set_disk_bytes(meter.disk_bytes());
        (Source::Sealed, closed)
    })
}

fn write_tables(segment: &Segment, open: &OpenFile, index: &MemoryIndex) -> Result<(), Fault> {
    let path = &segment.path;
    let transaction = open.db.begin_write().map_err(Fault::redb(path, "seal"))?;
    {
        let mut index_table = transaction.open_table(INDEX_TABLE).map_err(Fault::redb(path, "seal"))?;
        let mut times_table = transaction.open_table(TIMES_TABLE).map_err(Fault::redb(path, "seal"))?;
        for (partition, extents) in index.partitions() {
            let mut times = Vec::new();
            for row in extents.chunks(EXTENTS_PER_ROW) {
                let (key, place_key) = index_key(partition, row[0].cover_start);
                let largest = row.iter().map(timestamp_of).max().unwrap_or(i64::MIN);
                times.push((row[0].cover_start, largest));
                let rows: Vec<_> = row.iter().map(ExtentRow::of_index).collect();
                let sealed = segment.row_place("index", &place_key).seal(&record::to_vec(&rows));
                index_table.insert(key, sealed.as_slice()).map_err(Fault::redb(path, "seal"))?;
            }
            let key = partition.0.to_be_bytes();
            let sealed = segment.row_place("times", &key).seal(&record::to_vec(&times));
            times_table.insert(partition.0, sealed.as_slice()).map_err(Fault::redb(path, "seal"))?;
        }
        let mut summary = transaction.open_table(SUMMARY_TABLE).map_err(Fault::redb(path, "seal"))?;
        for (number, body) in (0_u32..).zip(summary_rows(segment, index)) {
            let key = number.to_be_bytes();
            let sealed = segment.row_place("summary", &key).seal(&body);
            summary.insert(number, sealed.as_slice()).map_err(Fault::redb(path, "seal"))?;
        }
    }
    transaction.commit().map_err(Fault::redb(path, "seal"))
}

fn summary_rows(segment: &Segment, index: &MemoryIndex) -> Vec<Vec<u8>> {
    let row = |(partition, span): (PartitionId, PartitionSpan)| SpanRow {
        partition,
        cover_start: span.cover_start,
        cover_end: span.cover_end,
        bytes: span.bytes,
        max_timestamp_ms: span.max_timestamp_ms,
    };
    let spans: Vec<SpanRow> = index.spans().into_iter().map(row).collect();
    let chunks: Vec<Vec<u8>> = spans.chunks(SPANS_PER_ROW).map(|rows| record::to_vec(&rows.to_vec())).collect();
    let head = SummaryHead { last_sequence: segment.last_sequence(), span_rows: chunks.len() as u32 };
    std::iter::once(record::to_vec(&head)).chain(chunks).collect()
}

/// What a sealed segment's summary says.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) last_sequence: u64,
    pub(crate) spans: Vec<(PartitionId, PartitionSpan)>,
}

/// Reads the summary of a file; `None` when it is not sealed.
pub(crate) fn read_summary(
    path: &std::path::Path,
    place: RowPlace<'_>,
    snapshot: &ReadTransaction,
) -> Result<Option<Summary>, Fault> {
    let table = match snapshot.open_table(SUMMARY_TABLE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(Fault::redb(path, "read")(error)),
    };
    let damaged = || Fault::damaged(path, "a row of its summary is missing, or has a wrong checksum");
    let body = |number: u32| -> Result<Vec<u8>, Fault> {
        let row = table.get(number).map_err(Fault::redb(path, "read"))?.ok_or_else(damaged)?;
        let key = number.to_be_bytes();
        let body = RowPlace { table: "summary", key: &key, ..place }.open(row.value()).map(<[u8]>::to_vec);
        body.ok_or_else(damaged)
    };
    let head: SummaryHead = record::from_slice(&body(0)?).ok_or_else(damaged)?;
    let mut spans = Vec::new();
    for number in 1..=head.span_rows {
        let rows: Vec<SpanRow> = record::from_slice(&body(number)?).ok_or_else(damaged)?;
        spans.extend(rows.into_iter().map(|row| {
            let SpanRow { cover_start, cover_end, bytes, max_timestamp_ms, .. } = row;
            (row.partition, PartitionSpan { cover_start, cover_end, bytes, max_timestamp_ms })
        }));
    }
    Ok(Some(Summary { last_sequence: head.last_sequence, spans }))
}

fn index_key(partition: PartitionId, cover_start: u64) -> ((u32, u64), [u8; 12]) {
    let mut place_key = [0; 12];
    place_key[..4].copy_from_slice(&partition.0.to_be_bytes());
    place_key[4..].copy_from_slice(&cover_start.to_be_bytes());
    ((partition.0, cover_start), place_key)
}

fn decode_index_row(segment: &Segment, key: (u32, u64), row: &[u8]) -> Result<Vec<Extent>, Fault> {
    let (_, place_key) = index_key(PartitionId(key.0), key.1);
    let body = segment.row_place("index", &place_key).open(row);
    let rows: Option<Vec<ExtentRow>> = body.and_then(record::from_slice);
    let extents = rows.and_then(|rows| {
        // Positions in an index row are final: no base is added.
        let mut crcs = CrcChain::default();
        rows.iter().map(|row| row.extent(row.sequence?, 0, &mut crcs)).collect::<Option<Vec<Extent>>>()
    });
    extents.ok_or_else(|| segment.damaged("a row of its index has a wrong checksum"))
}

/// The extents of a partition from the one that covers `from` on, until they hold `bytes_max`.
pub(crate) fn extents_from(
    segment: &Segment,
    partition: PartitionId,
    from: u64,
    bytes_max: usize,
) -> Result<Vec<Extent>, Fault> {
    segment.with_read(|snapshot| {
        let path = &segment.path;
        let table = snapshot.open_table(INDEX_TABLE).map_err(Fault::redb(path, "read"))?;
        let first = {
            let mut before = table.range((partition.0, 0)..=(partition.0, from)).map_err(Fault::redb(path, "read"))?;
            match before.next_back() {
                Some(row) => row.map_err(Fault::redb(path, "read"))?.0.value(),
                None => return Ok(Vec::new()),
            }
        };
        let rows = table.range(first..=(partition.0, u64::MAX)).map_err(Fault::redb(path, "read"))?;
        let mut found = Vec::new();
        let mut bytes = 0;
        for row in rows {
            let (key, value) = row.map_err(Fault::redb(path, "read"))?;
            for extent in decode_index_row(segment, key.value(), value.value())? {
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
    })
}

/// The first extent that reaches past `from` and has a timestamp at or after `timestamp_ms`.
pub(crate) fn extent_at_time(
    segment: &Segment,
    partition: PartitionId,
    from: u64,
    timestamp_ms: i64,
) -> Result<Option<Extent>, Fault> {
    let times: Vec<(u64, i64)> = segment.with_read(|snapshot| {
        let path = &segment.path;
        let table = snapshot.open_table(TIMES_TABLE).map_err(Fault::redb(path, "read"))?;
        let Some(row) = table.get(partition.0).map_err(Fault::redb(path, "read"))? else { return Ok(Vec::new()) };
        let key = partition.0.to_be_bytes();
        let decoded = segment.row_place("times", &key).open(row.value()).and_then(record::from_slice);
        decoded.ok_or_else(|| segment.damaged("a row of its time index has a wrong checksum"))
    })?;
    for (at, (cover_start, largest)) in times.iter().enumerate() {
        let ends_before = times.get(at + 1).is_some_and(|(next, _)| next.cmp(&from) != Ordering::Greater);
        if *largest < timestamp_ms || ends_before {
            continue;
        }
        let extents = index_row(segment, partition, *cover_start)?;
        let found = extents
            .into_iter()
            .find(|extent| extent.cover_end > from && extent.bytes() > 0 && extent.max_timestamp_ms >= timestamp_ms);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn index_row(segment: &Segment, partition: PartitionId, cover_start: u64) -> Result<Vec<Extent>, Fault> {
    segment.with_read(|snapshot| {
        let path = &segment.path;
        let table = snapshot.open_table(INDEX_TABLE).map_err(Fault::redb(path, "read"))?;
        let key = (partition.0, cover_start);
        let row = table.get(key).map_err(Fault::redb(path, "read"))?;
        let row = row.ok_or_else(|| segment.damaged("a row of its index is missing"))?;
        decode_index_row(segment, key, row.value())
    })
}

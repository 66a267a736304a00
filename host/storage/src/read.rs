//! Reads: from the tail where it reaches, from segments where it does not; by offset and by timestamp.
//!
//! Owns no data. What comes from a file is checked on the way: the part's place, the pieces' checksums, and the
//! coverage, so that a gap is told from a loss.
//!
//! Start at [`read`].

use bytes::Bytes;
use protocol::{Offset, PartitionId, RecordBatch, limits::DECOMPRESSED_BYTES_MAX, records};
use thiserror::Error;

use crate::{
    batches,
    fault::Fault,
    index::Extent,
    partitions::{Partition, PartitionState, Partitions, SegmentSpan},
    segment::Segment,
    tail,
};

/// How often a read is tried before it is told that the data is damaged.
const READS_MAX: usize = 4;

/// Record batches of one partition from an offset on, and how far they reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Runs of whole encoded batches, ascending. The first may begin before the offset asked for (it contains it).
    pub batches: Vec<Bytes>,
    /// Where to read on: behind everything that was covered, gaps included. Equal to the offset asked for (and
    /// `batches` empty) only at the high watermark.
    pub next_offset: Offset,
    /// The partition's high watermark when the read began.
    pub high_watermark: Offset,
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// There is no such partition (any more).
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The id.
        partition: PartitionId,
    },
    /// The offset is not there any more, or not there yet.
    #[error("offset {offset} of partition {partition} is outside [{log_start_offset}, {high_watermark}]")]
    OutOfRange {
        /// Whose.
        partition: PartitionId,
        /// What was asked for.
        offset: Offset,
        /// First offset still kept.
        log_start_offset: Offset,
        /// First offset not there yet.
        high_watermark: Offset,
    },
    /// The bytes on disk are not the ones that were written, or not in the place where they were. Nothing of them is
    /// served; other ranges and partitions are not affected.
    #[error("damaged data in `{file}`: {what}")]
    Damaged {
        /// The file that holds them.
        file: String,
        /// What did not match.
        what: String,
    },
    /// The disk did not answer.
    #[error("failed to read `{file}`: {cause}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        cause: String,
    },
}

/// Reads from memory alone; `None` where that does not suffice.
pub(crate) fn read_tail(
    partitions: &Partitions,
    id: PartitionId,
    from: Offset,
    max_bytes: usize,
) -> Option<ReadOutcome> {
    partitions.get(id)?.with(|state| {
        check_range(id, state, from).ok()?;
        tail_outcome(state, from, max_bytes)
    })
}

/// Reads whole batches from `from` on, about `max_bytes` of them.
pub(crate) fn read(
    partitions: &Partitions,
    id: PartitionId,
    from: Offset,
    max_bytes: usize,
) -> Result<ReadOutcome, ReadError> {
    let partition = partitions.get(id).ok_or(ReadError::UnknownPartition { partition: id })?;
    again_if_moved(|| match locate(&partition, from, max_bytes)? {
        Located::Tail(outcome) => Ok(outcome),
        Located::Segment { span, high_watermark } => {
            let outcome = read_segment(&span.segment, id, from, high_watermark, max_bytes);
            outcome.map_err(|fault| explain(partitions, id, from, fault))
        }
    })
}

/// Looks again where bytes are not what they should be: small ones move while their segment is written, and a segment may
/// have been replaced by the cleaner since it was looked up. What is damaged stays so.
fn again_if_moved<R>(mut read: impl FnMut() -> Result<R, ReadError>) -> Result<R, ReadError> {
    for _ in 1..READS_MAX {
        match read() {
            Err(ReadError::Damaged { .. } | ReadError::Io { .. }) => {}
            result => return result,
        }
    }
    read()
}

enum Located {
    Tail(ReadOutcome),
    Segment { span: SegmentSpan, high_watermark: Offset },
}

fn locate(partition: &Partition, from: Offset, max_bytes: usize) -> Result<Located, ReadError> {
    partition.with(|state| {
        check_range(partition.id, state, from)?;
        if let Some(outcome) = tail_outcome(state, from, max_bytes) {
            return Ok(Located::Tail(outcome));
        }
        let span = state.span_at(from.0).cloned().ok_or_else(|| ReadError::Damaged {
            file: "segments".into(),
            what: format!("no segment holds offset {from} of partition {}", partition.id),
        })?;
        Ok(Located::Segment { span, high_watermark: Offset(state.next_offset) })
    })
}

fn check_range(id: PartitionId, state: &PartitionState, from: Offset) -> Result<(), ReadError> {
    if (state.log_start..=state.next_offset).contains(&from.0) {
        return Ok(());
    }
    Err(ReadError::OutOfRange {
        partition: id,
        offset: from,
        log_start_offset: Offset(state.log_start),
        high_watermark: Offset(state.next_offset),
    })
}

/// The answer from memory, for an offset in range.
fn tail_outcome(state: &PartitionState, from: Offset, max_bytes: usize) -> Option<ReadOutcome> {
    let high_watermark = Offset(state.next_offset);
    if from == high_watermark {
        return Some(ReadOutcome { batches: Vec::new(), next_offset: from, high_watermark });
    }
    let answer = tail::read(&state.tail, from.0, max_bytes)?;
    Some(ReadOutcome { batches: answer.batches, next_offset: Offset(answer.next_offset), high_watermark })
}

/// A failure as the reader should see it: what was deleted while it read is out of range, not damaged.
fn explain(partitions: &Partitions, id: PartitionId, from: Offset, fault: Fault) -> ReadError {
    match partitions.get(id) {
        None => ReadError::UnknownPartition { partition: id },
        Some(partition) => match partition.with(|state| check_range(id, state, from)) {
            Err(out_of_range) => out_of_range,
            Ok(()) => fault.into(),
        },
    }
}

fn read_segment(
    segment: &Segment,
    id: PartitionId,
    from: Offset,
    high_watermark: Offset,
    max_bytes: usize,
) -> Result<ReadOutcome, Fault> {
    let mut extents = segment.extents_from(id, from.0, max_bytes)?;
    // The index may be ahead of the watermark by a commit that is being published.
    extents.retain(|extent| extent.cover_end <= high_watermark.0);
    check_coverage(segment, id, from.0, &extents)?;
    // What is damaged is told to whoever asks for it, and not to whoever comes near it.
    let runs = segment.read_sound_extents(&extents)?;
    let mut outcome = ReadOutcome { batches: Vec::new(), next_offset: from, high_watermark };
    let mut left = max_bytes;
    for (extent, run) in extents.iter().zip(&runs) {
        let first = outcome.batches.is_empty();
        let taken = batches::take(run, from.0, left, first).map_err(|what| segment.damaged(what))?;
        left = left.saturating_sub(taken.batches.len());
        if !taken.batches.is_empty() {
            outcome.batches.push(taken.batches);
        }
        outcome.next_offset = Offset(taken.stopped_at.unwrap_or(extent.cover_end));
        if taken.stopped_at.is_some() {
            break;
        }
    }
    Ok(outcome)
}

/// Whether the extents cover `from` and what follows without a hole.
fn check_coverage(segment: &Segment, id: PartitionId, from: u64, extents: &[Extent]) -> Result<(), Fault> {
    let begins = extents.first().is_some_and(|first| (first.cover_start..first.cover_end).contains(&from));
    let tiles = extents.windows(2).all(|pair| pair[0].cover_end == pair[1].cover_start);
    if begins && tiles {
        return Ok(());
    }
    Err(segment.damaged(format!("its index has a hole in partition {id} at or after offset {from}")))
}

/// The first record at or after a time.
pub(crate) fn offset_for_timestamp(
    partitions: &Partitions,
    id: PartitionId,
    timestamp_ms: i64,
) -> Result<Option<Offset>, ReadError> {
    let partition = partitions.get(id).ok_or(ReadError::UnknownPartition { partition: id })?;
    again_if_moved(|| find_time(partitions, &partition, timestamp_ms))
}

fn find_time(partitions: &Partitions, partition: &Partition, timestamp_ms: i64) -> Result<Option<Offset>, ReadError> {
    let id = partition.id;
    let (spans, log_start, end) = partition.with(|state| (state.spans.clone(), state.log_start, state.next_offset));
    for SegmentSpan { segment, span } in spans.iter().filter(|span| span.span.max_timestamp_ms >= timestamp_ms) {
        let start = log_start.max(span.cover_start);
        let found = time_in_segment(segment, id, start..end, timestamp_ms);
        let found = found.map_err(|fault| explain(partitions, id, Offset(start), fault))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn time_in_segment(
    segment: &Segment,
    id: PartitionId,
    range: std::ops::Range<u64>,
    timestamp_ms: i64,
) -> Result<Option<Offset>, Fault> {
    let mut from = range.start;
    while let Some(extent) = segment.extent_at_time(id, from, timestamp_ms)? {
        if extent.cover_end > range.end {
            break;
        }
        from = extent.cover_end;
        for run in segment.read_extents(std::slice::from_ref(&extent))? {
            let found = time_in_run(&run, range.start, timestamp_ms).map_err(|what| segment.damaged(what))?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// The first record of a run at or after an offset and a time.
fn time_in_run(run: &Bytes, from: u64, timestamp_ms: i64) -> Result<Option<Offset>, &'static str> {
    for span in batches::walk(run) {
        let span = span?;
        if span.next_offset <= from || span.max_timestamp_ms < timestamp_ms {
            continue;
        }
        let batch = run.slice(span.start..span.end);
        let offset = time_in_batch(batch, from, timestamp_ms).unwrap_or_else(|| Offset(span.base_offset.max(from)));
        return Ok(Some(offset));
    }
    Ok(None)
}

/// The record itself. `None` when the records cannot be looked at (they unfold to more than the limit, say): then the
/// batch's first offset serves, which is early and never late.
fn time_in_batch(batch: Bytes, from: u64, timestamp_ms: i64) -> Option<Offset> {
    let batch = RecordBatch::decode(batch).ok()?;
    let header = batch.header();
    if header.attributes.log_append_time() {
        return None;
    }
    let section = batch.records_section(DECOMPRESSED_BYTES_MAX).ok()?;
    for record in records(&section) {
        let record = record.ok()?;
        let offset = header.base_offset.plus(u64::from(record.offset_delta));
        if offset.0 >= from && header.timestamp(record.timestamp_delta) >= timestamp_ms {
            return Some(offset);
        }
    }
    None
}

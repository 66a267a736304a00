//! Walks record batches by their fixed header: as much of the v2 format as a log has to know.
//!
//! Owns no checksums: the batches' own are checked where they come in, and the store has its own for what lies on disk.
//! Every length is checked all the same before it is used.
//!
//! ```text
//! 0 base_offset i64 | 8 batch_length i32 (bytes behind this field) | 16 magic | 23 last_offset_delta i32
//! 35 max_timestamp i64 | ... | 61 records; big endian
//! ```

use bytes::Bytes;

/// Bytes of the fixed header.
const HEADER_BYTES: usize = 61;

/// One batch in a run, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSpan {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) base_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) max_timestamp_ms: i64,
}

/// Iterates over the batches of a run; an error ends it.
pub(crate) fn walk(run: &[u8]) -> impl Iterator<Item = Result<BatchSpan, &'static str>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == run.len() {
            return None;
        }
        let span = span_at(run, at);
        at = span.as_ref().map_or(run.len(), |span| span.end);
        Some(span)
    })
}

fn span_at(run: &[u8], start: usize) -> Result<BatchSpan, &'static str> {
    let header = run.get(start..start + HEADER_BYTES).ok_or("a record batch is cut off")?;
    let int = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| (i64::from(int(at)) << 32) | i64::from(int(at + 4) as u32);
    let behind = usize::try_from(int(8)).map_err(|_| "a record batch has a negative length")?;
    let end = start + 12 + behind;
    if behind + 12 < HEADER_BYTES || end > run.len() {
        return Err("a record batch is cut off");
    }
    let base_offset = u64::try_from(long(0)).map_err(|_| "a record batch has a negative offset")?;
    let last_delta = u64::try_from(int(23)).map_err(|_| "a record batch has a negative offset delta")?;
    Ok(BatchSpan { start, end, base_offset, next_offset: base_offset + last_delta + 1, max_timestamp_ms: long(35) })
}

/// What is taken of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whole batches; empty when the rest of the run is a gap.
    pub(crate) batches: Bytes,
    /// Behind the last batch taken, or `None` when the run was taken to its end.
    pub(crate) stopped_at: Option<u64>,
}

/// The batches of a run from the one that holds `from` on, about `max_bytes` of them; the first in any case if
/// `first_always`.
pub(crate) fn take(run: &Bytes, from: u64, max_bytes: usize, first_always: bool) -> Result<Taken, &'static str> {
    let mut taken: Option<(usize, usize, u64)> = None;
    for span in walk(run) {
        let span = span?;
        if span.next_offset <= from {
            continue;
        }
        let start = taken.map_or(span.start, |(start, ..)| start);
        let first = taken.is_none() && first_always;
        if span.end - start > max_bytes && !first {
            let (batches, stopped_at) = match taken {
                Some((start, end, next)) => (run.slice(start..end), next),
                None => (Bytes::new(), span.base_offset.max(from)),
            };
            return Ok(Taken { batches, stopped_at: Some(stopped_at) });
        }
        taken = Some((start, span.end, span.next_offset));
    }
    let batches = taken.map_or_else(Bytes::new, |(start, end, _)| run.slice(start..end));
    Ok(Taken { batches, stopped_at: None })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A batch as far as the log can tell: header and filling.
    pub(crate) fn batch(base: u64, count: u32, timestamp: i64, bytes: usize) -> Vec<u8> {
        let mut batch = vec![0x5a; bytes.max(HEADER_BYTES)];
        let behind = (batch.len() - 12) as i32;
        batch[0..8].copy_from_slice(&base.to_be_bytes());
        batch[8..12].copy_from_slice(&behind.to_be_bytes());
        batch[23..27].copy_from_slice(&(count as i32 - 1).to_be_bytes());
        batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
        batch
    }

    fn run() -> Bytes {
        [batch(10, 5, 1, 100), batch(15, 5, 2, 200), batch(25, 1, 3, 100)].concat().into()
    }

    #[test]
    fn a_run_is_walked_batch_by_batch() {
        let spans: Result<Vec<_>, _> = walk(&run()).collect();
        let spans = spans.unwrap();
        assert_eq!(spans.iter().map(|span| span.base_offset).collect::<Vec<_>>(), [10, 15, 25]);
        assert_eq!(spans.last().unwrap().next_offset, 26);
        assert!(walk(&run()[..399]).any(|span| span.is_err()));
        assert!(walk(&run()[..350]).any(|span| span.is_err()));
    }

    #[test]
    fn taking_begins_with_the_batch_that_holds_the_offset() {
        let taken = take(&run(), 16, 1000, true).unwrap();
        assert_eq!(taken, Taken { batches: run().slice(100..400), stopped_at: None });
        let taken = take(&run(), 12, 100, true).unwrap();
        assert_eq!(taken, Taken { batches: run().slice(..100), stopped_at: Some(15) });
        let taken = take(&run(), 16, 10, true).unwrap();
        assert_eq!(taken, Taken { batches: run().slice(100..300), stopped_at: Some(20) });
        let taken = take(&run(), 16, 10, false).unwrap();
        assert_eq!(taken, Taken { batches: Bytes::new(), stopped_at: Some(16) });
        let taken = take(&run(), 26, 10, true).unwrap();
        assert_eq!(taken, Taken { batches: Bytes::new(), stopped_at: None });
    }
}

//! The loops over a batch, one per kind of function; [`guest!`](crate::guest) calls the one that fits.
//!
//! Each says which record is in hand before it calls the function, so that the host knows which one a trap belongs to.

pub use crate::answer::Answer;
use crate::{Batch, BatchMalformed, NewValue, Outcome, Record, Records, Verdict, answer::Bases, exports::set_cursor};

/// What a kind of function makes of a batch; its answer is laid out when all addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laid {
    /// Kept, dropped, patched.
    Bitmap,
    /// Whole records.
    Records,
}

/// What is to be laid out, where the batch could be read.
pub type Processed = Result<Laid, BatchMalformed>;

impl Laid {
    pub(crate) fn finish(self, answer: &mut Answer, bases: Bases) -> &[u8] {
        match self {
            Laid::Bitmap => answer.finish_bitmap(bases),
            Laid::Records => answer.finish_records(bases),
        }
    }
}

/// Keeps the records that a function says `true` of.
///
/// # Errors
/// Where the batch is malformed.
#[inline(always)]
pub fn filter<O: Outcome<bool>>(
    batch: &Batch<'_>,
    answer: &mut Answer,
    mut keep: impl FnMut(&Record<'_>) -> O,
) -> Processed {
    answer.begin_bitmap(batch.record_count());
    for record in batch.records() {
        let record = record?;
        set_cursor(record.index());
        match keep(&record).outcome() {
            Ok(true) => answer.keep_bit(record.index()),
            Ok(false) => {}
            Err(failure) => answer.fail(record.index(), &failure),
        }
    }
    Ok(Laid::Bitmap)
}

/// Gives every record the value that a function writes.
///
/// # Errors
/// Where the batch is malformed.
#[inline(always)]
pub fn map<O: Outcome<()>>(
    batch: &Batch<'_>,
    answer: &mut Answer,
    mut map: impl FnMut(&Record<'_>, &mut NewValue<'_>) -> O,
) -> Processed {
    filter_map(batch, answer, |record, value| map(record, value).outcome().map(|()| Verdict::Replace))
}

/// Keeps, changes or drops each record, as a function says.
///
/// # Errors
/// Where the batch is malformed.
#[inline(always)]
pub fn filter_map<O: Outcome<Verdict>>(
    batch: &Batch<'_>,
    answer: &mut Answer,
    mut decide: impl FnMut(&Record<'_>, &mut NewValue<'_>) -> O,
) -> Processed {
    answer.begin_bitmap(batch.record_count());
    for record in batch.records() {
        let record = record?;
        set_cursor(record.index());
        answer.with_new_value(record.index(), |value| decide(&record, value).outcome());
    }
    Ok(Laid::Bitmap)
}

/// Puts in each record's place what a function pushes.
///
/// # Errors
/// Where the batch is malformed.
#[inline(always)]
pub fn flat_map<O: Outcome<()>>(
    batch: &Batch<'_>,
    answer: &mut Answer,
    mut expand: impl FnMut(&Record<'_>, &mut Records<'_>) -> O,
) -> Processed {
    answer.begin_records(batch.record_count());
    for record in batch.records() {
        let record = record?;
        set_cursor(record.index());
        answer.with_records(&record, |records| expand(&record, records).outcome());
    }
    Ok(Laid::Records)
}

//! What `weir_process` returns: decisions about the input's records.
//!
//! ```text
//! 0  u32  kind
//! 4  u32  count
//! 8  body, by kind:
//!
//! 0 KEEP_ALL  nothing                                           count = the input's record_count
//! 1 DROP_ALL  nothing                                           count = the input's record_count
//! 2 BITMAP    bitmap                                            count = the input's record_count
//! 3 PATCH     bitmap, then per kept record, in order:           count = the input's record_count
//!               u32 address | u32 length                        its new value; length UNCHANGED or NULL says so
//! 4 RECORDS   count x { u32 source | u16 target | u16 flags | u32 address | u32 length }
//!
//! then, to the end of the output, nothing or failures:
//! u32 count | count x { u32 record | u16 code | u16 0 | u32 address | u32 length }
//! ```
//! - **bitmap**: bit `i % 8` (from the lowest) of byte `i / 8` says that record `i` is kept; `count / 8` bytes, rounded up,
//!   then zeros to a multiple of 4. Bits behind the last record are ignored.
//! - **RECORDS** are whole records, of any number: keys, headers and timestamps can change as well. `source` is the index of the
//!   input record it comes from and never descends; input records that no entry names are dropped. `target` 0 is the own
//!   topic, 1.. the transform's declared targets. `flags` are 0. Address and length name a record's **body**
//!   as [the input](crate::input) has it, without the length in front: an entry that points at the input's own body
//!   passes that record on without a copy. Its timestamp delta counts from the input's base timestamp; its offset delta is ignored, the
//!   host gives it its place.
//! - **failures** ascend, each record at most once. One overrides whatever else was decided for its record. The text is UTF-8,
//!   for people; what is too long is cut off. Codes are the plugin's own, below [`HOST_CODES_START`](crate::HOST_CODES_START).

use core::fmt;

use crate::{Span, field};

/// Numbers of the kinds.
pub mod kind {
    /// Every record stays as it is.
    pub const KEEP_ALL: u32 = 0;
    /// No record stays.
    pub const DROP_ALL: u32 = 1;
    /// The records of the bitmap stay as they are.
    pub const BITMAP: u32 = 2;
    /// The records of the bitmap stay, some with a new value.
    pub const PATCH: u32 = 3;
    /// Whole records take the input's place.
    pub const RECORDS: u32 = 4;
}

/// In a patch, the length that says: the value stays.
pub const UNCHANGED: u32 = 0xffff_ffff;

/// In a patch, the length that says: the value becomes null.
pub const NULL: u32 = 0xffff_fffe;

/// Bytes of kind and count.
pub const HEADER_LEN: usize = 8;

/// Bytes of one kept record in a patch.
pub const PATCH_ENTRY_LEN: usize = 8;

/// Bytes of one entry of RECORDS, and of one failure.
pub const ENTRY_LEN: usize = 16;

/// Bytes of the bitmap of so many records, padding included.
#[must_use]
pub const fn bitmap_len(record_count: u32) -> usize {
    (record_count as usize).div_ceil(8).next_multiple_of(4)
}

/// The first bytes of an output.
#[must_use]
pub fn encode_header(kind: u32, count: u32) -> [u8; HEADER_LEN] {
    pair(kind, count)
}

/// One kept record of a patch.
#[must_use]
pub fn encode_patch(value: Patch) -> [u8; PATCH_ENTRY_LEN] {
    match value {
        Patch::Unchanged => pair(0, UNCHANGED),
        Patch::Null => pair(0, NULL),
        Patch::Value(span) => pair(span.address, span.length),
    }
}

/// What a patch makes of one kept record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// Leaves it.
    Unchanged,
    /// Takes it away.
    Null,
    /// Puts this in its place.
    Value(Span),
}

/// One whole record of an output of kind RECORDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordEntry {
    /// Index of the input record it comes from.
    pub source: u32,
    /// 0 for the own topic, else the number of a declared target.
    pub target: u16,
    /// 0; other bits are for later versions.
    pub flags: u16,
    /// The record's body.
    pub body: Span,
}

impl RecordEntry {
    /// As it stands in an output.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_LEN] {
        entry(self.source, self.target, self.flags, self.body)
    }

    /// From its place in an output.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> RecordEntry {
        let (source, target, flags, body) = split_entry(bytes);
        RecordEntry { source, target, flags, body }
    }
}

/// A record the guest could not do its work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureEntry {
    /// Index of the input record.
    pub record: u32,
    /// A number of the plugin's own.
    pub code: u16,
    /// Why, for people.
    pub text: Span,
}

impl FailureEntry {
    /// As it stands in an output.
    #[must_use]
    pub fn encode(self) -> [u8; ENTRY_LEN] {
        entry(self.record, self.code, 0, self.text)
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> FailureEntry {
        let (record, code, _, text) = split_entry(bytes);
        FailureEntry { record, code, text }
    }
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    bytes[4..].copy_from_slice(&second.to_le_bytes());
    bytes
}

fn entry(first: u32, second: u16, third: u16, span: Span) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    bytes[4..6].copy_from_slice(&second.to_le_bytes());
    bytes[6..8].copy_from_slice(&third.to_le_bytes());
    bytes[8..].copy_from_slice(&pair(span.address, span.length));
    bytes
}

fn split_entry(bytes: &[u8; ENTRY_LEN]) -> (u32, u16, u16, Span) {
    let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, e0, e1, e2, e3] = *bytes;
    let span = Span { address: u32::from_le_bytes([d0, d1, d2, d3]), length: u32::from_le_bytes([e0, e1, e2, e3]) };
    (u32::from_le_bytes([a0, a1, a2, a3]), u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]), span)
}

/// A decoded output: of the right lengths, its indices in range and in order. Its spans are not checked yet.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// What is decided.
    pub decisions: Decisions<'a>,
    /// What failed, overriding it.
    pub failures: Failures<'a>,
}

/// What an output decides.
#[derive(Debug, Clone, Copy)]
pub enum Decisions<'a> {
    /// Every record stays as it is.
    KeepAll,
    /// No record stays.
    DropAll,
    /// Some stay as they are.
    Bitmap(Bitmap<'a>),
    /// Some stay, and of those some with a new value: one [`Patch`] per kept record.
    Patch {
        /// Which stay.
        kept: Bitmap<'a>,
        /// What becomes of their values.
        patches: Patches<'a>,
    },
    /// Whole records take the input's place.
    Records(Records<'a>),
}

impl<'a> Output<'a> {
    /// Reads an output about an input of `record_count` records.
    ///
    /// # Errors
    /// Where it is not laid out as this module draws it.
    pub fn decode(output: &'a [u8], record_count: u32) -> Result<Output<'a>, OutputError> {
        let (kind, count) = header(output).ok_or(OutputError::Cut)?;
        if kind != kind::RECORDS && count != record_count {
            return Err(OutputError::CountWrong { count, record_count });
        }
        let body = &output[HEADER_LEN..];
        let (decisions, rest) = match kind {
            kind::KEEP_ALL => (Decisions::KeepAll, body),
            kind::DROP_ALL => (Decisions::DropAll, body),
            kind::BITMAP => {
                let (kept, rest) = Bitmap::split(body, record_count)?;
                (Decisions::Bitmap(kept), rest)
            }
            kind::PATCH => {
                let (kept, rest) = Bitmap::split(body, record_count)?;
                let (patches, rest) = chunks::<PATCH_ENTRY_LEN>(rest, kept.kept_count())?;
                (Decisions::Patch { kept, patches: Patches(patches) }, rest)
            }
            kind::RECORDS => {
                let (entries, rest) = chunks::<ENTRY_LEN>(body, count)?;
                (Decisions::Records(Records::check(entries, record_count)?), rest)
            }
            _ => return Err(OutputError::KindUnknown { kind }),
        };
        Ok(Output { decisions, failures: Failures::decode(rest, record_count)? })
    }
}

fn header(output: &[u8]) -> Option<(u32, u32)> {
    Some((field::u32(output, 0)?, field::u32(output, 4)?))
}

fn chunks<const N: usize>(bytes: &[u8], count: u32) -> Result<(&[[u8; N]], &[u8]), OutputError> {
    let len = usize::try_from(u64::from(count) * N as u64).map_err(|_| OutputError::Cut)?;
    let (entries, rest) = bytes.split_at_checked(len).ok_or(OutputError::Cut)?;
    Ok((entries.as_chunks().0, rest))
}

/// Which records are kept.
#[derive(Debug, Clone, Copy)]
pub struct Bitmap<'a> {
    /// Without padding.
    bytes: &'a [u8],
    record_count: u32,
}

impl<'a> Bitmap<'a> {
    fn split(body: &'a [u8], record_count: u32) -> Result<(Bitmap<'a>, &'a [u8]), OutputError> {
        let (padded, rest) = body.split_at_checked(bitmap_len(record_count)).ok_or(OutputError::Cut)?;
        Ok((Bitmap { bytes: &padded[..record_count.div_ceil(8) as usize], record_count }, rest))
    }

    /// Whether the record of this index is kept; `false` behind the last.
    #[must_use]
    pub fn is_kept(&self, record: u32) -> bool {
        record < self.record_count && self.bytes[record as usize / 8] >> (record % 8) & 1 == 1
    }

    /// How many are kept.
    #[must_use]
    pub fn kept_count(&self) -> u32 {
        let all: u32 = self.bytes.iter().map(|byte| byte.count_ones()).sum();
        let behind = match (self.record_count % 8, self.bytes.last()) {
            (1.., Some(last)) => (last >> (self.record_count % 8)).count_ones(),
            _ => 0,
        };
        all - behind
    }

    /// For each record in order, whether it is kept.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + use<'a> {
        let bytes = self.bytes;
        (0..self.record_count as usize).map(move |record| bytes[record / 8] >> (record % 8) & 1 == 1)
    }
}

/// The new values of the kept records.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a>(&'a [[u8; PATCH_ENTRY_LEN]]);

impl<'a> Patches<'a> {
    /// One per kept record, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Patch> + use<'a> {
        self.0.iter().map(|&[a0, a1, a2, a3, l0, l1, l2, l3]| {
            match (u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes([l0, l1, l2, l3])) {
                (_, UNCHANGED) => Patch::Unchanged,
                (_, NULL) => Patch::Null,
                (address, length) => Patch::Value(Span { address, length }),
            }
        })
    }
}

/// The entries of an output of kind RECORDS.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a>(&'a [[u8; ENTRY_LEN]]);

impl<'a> Records<'a> {
    fn check(entries: &'a [[u8; ENTRY_LEN]], record_count: u32) -> Result<Records<'a>, OutputError> {
        let records = Records(entries);
        let mut last = 0;
        for entry in records.iter() {
            if entry.source < last || entry.source >= record_count {
                return Err(OutputError::IndexWrong { index: entry.source });
            }
            if entry.flags != 0 {
                return Err(OutputError::FlagsUnknown { flags: entry.flags });
            }
            last = entry.source;
        }
        Ok(records)
    }

    /// In order; sources never descend and are below the input's record count.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordEntry> + use<'a> {
        self.0.iter().map(RecordEntry::decode)
    }
}

/// The failures at the end of an output.
#[derive(Debug, Clone, Copy)]
pub struct Failures<'a>(&'a [[u8; ENTRY_LEN]]);

impl<'a> Failures<'a> {
    fn decode(rest: &'a [u8], record_count: u32) -> Result<Failures<'a>, OutputError> {
        if rest.is_empty() {
            return Ok(Failures(&[]));
        }
        let count = field::u32(rest, 0).ok_or(OutputError::Cut)?;
        let (entries, rest) = chunks(&rest[4..], count)?;
        if !rest.is_empty() {
            return Err(OutputError::BytesLeft { count: rest.len() });
        }
        let failures = Failures(entries);
        let mut next = 0;
        for failure in failures.iter() {
            if failure.record < next || failure.record >= record_count {
                return Err(OutputError::IndexWrong { index: failure.record });
            }
            next = failure.record + 1;
        }
        Ok(failures)
    }

    /// In order; records ascend and are below the input's record count.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FailureEntry> + use<'a> {
        self.0.iter().map(FailureEntry::decode)
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How an output breaks the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputError {
    /// It is shorter than its counts say.
    Cut,
    /// There is something behind its end.
    BytesLeft {
        /// How many bytes.
        count: usize,
    },
    /// No such kind.
    KindUnknown {
        /// What it says.
        kind: u32,
    },
    /// It speaks of another number of records than the input has.
    CountWrong {
        /// What it says.
        count: u32,
        /// What the input has.
        record_count: u32,
    },
    /// An index is out of range or out of order.
    IndexWrong {
        /// Which.
        index: u32,
    },
    /// A flag that this version does not know.
    FlagsUnknown {
        /// What it says.
        flags: u16,
    },
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputError::Cut => write!(f, "output is shorter than its counts say"),
            OutputError::BytesLeft { count } => write!(f, "output has {count} bytes behind its end"),
            OutputError::KindUnknown { kind } => write!(f, "output is of kind {kind}, which is none of 0 to 4"),
            OutputError::CountWrong { count, record_count } => {
                write!(f, "output is about {count} records, the input has {record_count}")
            }
            OutputError::IndexWrong { index } => write!(f, "output names record {index} out of range or out of order"),
            OutputError::FlagsUnknown { flags } => write!(f, "output has unknown flags {flags:#06x}"),
        }
    }
}

impl core::error::Error for OutputError {}

#[cfg(test)]
mod tests;

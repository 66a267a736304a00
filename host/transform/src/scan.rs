//! Finds the parts of records in a records section, fast, for moving bytes about.
//!
//! Owns positions only; what the parts mean is `protocol`'s. Sections that come here were validated, but every access
//! is checked all the same: `None` where the bytes are not what they should be.
//!
//! ```text
//! at      body                              offset_at    key_at        value_at             headers_at       end
//! |       |                                 |            |             |                    |                |
//! v len   | attributes | timestamp_delta    | offset     | key_len key | value_len value    | headers        |
//! ```

use protocol::varint;

/// The first parts of a record: cheap to find, and enough to copy it or to know its place and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) body: usize,
    pub(crate) offset_at: usize,
    pub(crate) key_at: usize,
    pub(crate) end: usize,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: u32,
}

/// Where the record behind the one at `at` begins.
#[inline]
pub(crate) fn next(section: &[u8], at: usize) -> Option<usize> {
    let (length, body) = signed(section, at)?;
    let end = body.checked_add(usize::try_from(length).ok()?)?;
    (end <= section.len()).then_some(end)
}

/// The head of the record at `at`.
#[inline]
pub(crate) fn head(section: &[u8], at: usize) -> Option<Head> {
    let (length, body) = signed(section, at)?;
    let end = body.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= section.len())?;
    head_of_body(section, body, end)
}

/// The head of a record whose body lies at `[body, end)`.
#[inline]
pub(crate) fn head_of_body(section: &[u8], body: usize, end: usize) -> Option<Head> {
    let section = section.get(..end)?;
    let (timestamp_delta, offset_at) = signed(section, body.checked_add(1)?)?;
    let (offset_delta, key_at) = signed(section, offset_at)?;
    Some(Head { body, offset_at, key_at, end, timestamp_delta, offset_delta: u32::try_from(offset_delta).ok()? })
}

/// Where the value of the record with this head begins (its length) and ends.
#[inline]
pub(crate) fn value(section: &[u8], head: &Head) -> Option<(usize, usize)> {
    let section = section.get(..head.end)?;
    let value_at = behind_bytes(section, head.key_at)?;
    Some((value_at, behind_bytes(section, value_at)?))
}

/// The end of the length-prefixed bytes at `at`; a length of -1 is null and has none.
#[inline]
fn behind_bytes(section: &[u8], at: usize) -> Option<usize> {
    let (length, start) = signed(section, at)?;
    let end = start.checked_add(usize::try_from(length.max(0)).ok()?)?;
    (end <= section.len()).then_some(end)
}

/// A zigzag varint and where it ends.
#[inline]
fn signed(section: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut rest = section.get(at..)?;
    let value = varint::read_i64(&mut rest)?;
    Some((value, section.len() - rest.len()))
}

//! The records of an uncompressed section, read in place.
//!
//! Never copies and never allocates. A [`RecordView`] that exists is well formed, its headers included.

#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

use bytes::Bytes;

use super::varint;
use crate::{BatchError, BatchHeader, Header, Record, limits::HEADERS_MAX};

/// Walks the records of an uncompressed section.
///
/// After an error nothing follows: the place of the next record is not known.
#[must_use]
pub const fn records(section: &[u8]) -> RecordIter<'_> {
    RecordIter { rest: section, index: 0 }
}

/// See [`records`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: u32,
}

impl<'a> RecordIter<'a> {
    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(never)]
    fn next_of_any_kind(&mut self) -> Result<RecordView<'a>, BatchError> {
        match split_record(self.rest) {
            Ok((record, rest)) => {
                self.rest = rest;
                self.index += 1;
                Ok(record)
            }
            Err(fault) => {
                self.rest = &[];
                Err(fault.at(self.index))
            }
        }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    // Inlined everywhere: a walk that needs a part of each record does not pay for the view of the whole, which is wide.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some((record, rest)) = split_short_record(self.rest) {
            self.rest = rest;
            self.index += 1;
            return Some(Ok(record));
        }
        Some(self.next_of_any_kind())
    }
}

/// What is wrong with a record, before it is known which one it is. Small, so that the good way stays quick.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Malformed(&'static str),
    TooManyHeaders(usize),
}

impl Fault {
    #[cold]
    fn at(self, index: u32) -> BatchError {
        match self {
            Fault::Malformed(what) => BatchError::MalformedRecord { index, what },
            Fault::TooManyHeaders(headers) => BatchError::TooManyHeaders { index, headers },
        }
    }
}

/// One record, borrowed from its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset, counted from the batch's base offset.
    pub offset_delta: u32,
    /// Its timestamp, counted from the batch's base timestamp; see [`BatchHeader::timestamp`].
    pub timestamp_delta: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone where the topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: HeadersView<'a>,
    /// The record as encoded, its length included: runs of these can be copied into another section as they are.
    pub raw: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Bytes of key, value and headers: what `max_record_bytes` limits.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.encoded.len()
    }

    /// The record with bytes of its own: one allocation, which key, value and headers share.
    #[must_use]
    pub fn to_record(&self, header: &BatchHeader) -> Record {
        let raw = Bytes::copy_from_slice(self.raw);
        // Everything borrowed lies within `raw`, so its place in the copy is its distance from the beginning.
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr() - self.raw.as_ptr().addr();
            raw.slice(start..start + part.len())
        };
        self.map_record(header, place)
    }

    /// The record as slices of the section it was read from: no copy, but it keeps the whole section in memory.
    ///
    /// # Panics
    /// When `section` is not the one this record was read from.
    #[must_use]
    pub fn to_record_in(&self, header: &BatchHeader, section: &Bytes) -> Record {
        self.map_record(header, |part| section.slice_ref(part))
    }

    fn map_record(&self, header: &BatchHeader, place: impl Fn(&'a [u8]) -> Bytes) -> Record {
        Record {
            key: self.key.map(&place),
            value: self.value.map(&place),
            headers: self.headers.map(|(name, value)| Header { name: place(name), value: value.map(&place) }).collect(),
            timestamp: header.timestamp(self.timestamp_delta),
        }
    }
}

/// The headers of a record, in order: names (UTF-8 by convention, not checked) and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadersView<'a> {
    count: u32,
    encoded: &'a [u8],
}

impl<'a> HeadersView<'a> {
    /// How many are left.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for HeadersView<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        Some(split_header(&mut self.encoded).expect("headers were checked when the record was read"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for HeadersView<'_> {}

/// Takes the first record off a section if its numbers are short, as nearly all are: half the work of
/// [`split_record`], which decides about every record that is refused here.
#[inline(always)]
fn split_short_record(section: &[u8]) -> Option<(RecordView<'_>, &[u8])> {
    let window = section.first_chunk()?;
    let mut at = 0;
    let length = varint::read_short(window, &mut at)?;
    let end = at + (length >> 1) as usize;
    at += 1; // attributes, which mean nothing yet
    let timestamp_delta = varint::read_short(window, &mut at)?;
    let offset_delta = varint::read_short(window, &mut at)?;
    let key = varint::read_short(window, &mut at)?;
    if (length | offset_delta) & 1 != 0 {
        return None; // odd is negative
    }
    let (raw, rest) = section.split_at_checked(end)?;
    let (key, body) = split_short_part(key, raw.get(at..)?)?;
    let (value, body) = match *body {
        [a, ref body @ ..] if a < 0x80 => split_short_part(a.into(), body)?,
        [a, b, ref body @ ..] if b < 0x80 => split_short_part(u32::from(a & 0x7f) | u32::from(b) << 7, body)?,
        _ => return None,
    };
    let headers = match body {
        [0] => HeadersView::default(),
        _ => split_headers(body).ok()?,
    };
    let timestamp_delta = i64::from(varint::unzigzag32(timestamp_delta));
    Some((RecordView { offset_delta: offset_delta >> 1, timestamp_delta, key, value, headers, raw }, rest))
}

/// Takes a key or value off the front whose length is this varint, still zigzag: 1 is null, any other odd one invalid.
#[inline(always)]
fn split_short_part(length: u32, bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if length & 1 != 0 {
        return (length == 1).then_some((None, bytes));
    }
    let (part, rest) = bytes.split_at_checked((length >> 1) as usize)?;
    Some((Some(part), rest))
}

/// Takes the first record off a section.
fn split_record(section: &[u8]) -> Result<(RecordView<'_>, &[u8]), Fault> {
    let mut after_length = section;
    let length = varint::read_i32(&mut after_length).ok_or(Fault::Malformed("its length cannot be read"))?;
    let length = usize::try_from(length).map_err(|_| Fault::Malformed("its length is negative"))?;
    let (mut body, rest) = after_length.split_at_checked(length).ok_or(Fault::Malformed("it is cut off"))?;
    let raw = section.get(..section.len() - rest.len()).ok_or(Fault::Malformed("it is cut off"))?;

    let (_attributes, after) = body.split_first().ok_or(Fault::Malformed("it is empty"))?;
    body = after;
    let timestamp_delta = varint::read_i64(&mut body).ok_or(Fault::Malformed("its timestamp cannot be read"))?;
    let offset_delta = varint::read_i32(&mut body).ok_or(Fault::Malformed("its offset cannot be read"))?;
    let offset_delta = u32::try_from(offset_delta).map_err(|_| Fault::Malformed("its offset is negative"))?;
    let key = split_nullable(&mut body).ok_or(Fault::Malformed("its key does not fit"))?;
    let value = split_nullable(&mut body).ok_or(Fault::Malformed("its value does not fit"))?;
    let headers = split_headers(body)?;
    Ok((RecordView { offset_delta, timestamp_delta, key, value, headers, raw }, rest))
}

/// Takes a length and as many bytes off the front; the outer `None` when they are not there.
#[inline(always)]
fn split_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::read_i32(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (part, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(part))
}

fn split_headers(mut body: &[u8]) -> Result<HeadersView<'_>, Fault> {
    let count = varint::read_i32(&mut body).ok_or(Fault::Malformed("its header count cannot be read"))?;
    let count = u32::try_from(count).map_err(|_| Fault::Malformed("its header count is negative"))?;
    if count as usize > HEADERS_MAX {
        return Err(Fault::TooManyHeaders(count as usize));
    }
    let mut rest = body;
    for _ in 0..count {
        split_header(&mut rest).ok_or(Fault::Malformed("a header does not fit"))?;
    }
    if !rest.is_empty() {
        return Err(Fault::Malformed("bytes are left over behind its headers"));
    }
    Ok(HeadersView { count, encoded: body })
}

fn split_header<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let name = split_nullable(bytes)??;
    Some((name, split_nullable(bytes)?))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::{
        collection::vec,
        prelude::*,
        test_runner::{Config, RngSeed},
    };

    use super::*;
    use crate::{BatchBuilder, Compression, HEADER_BYTES, Offset};

    proptest! {
        #![proptest_config(Config { cases: 2_000, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() })]

        #[test]
        fn the_short_way_gives_what_the_long_way_gives(
            sizes in (0..200u32, prop_oneof![0..200i64, any::<i64>()], 0..300usize, 0..9_000usize),
            headers in 0..3usize,
            nulls in any::<[bool; 2]>(),
            change in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
            more in vec(any::<u8>(), 0..20),
        ) {
            let (offset_delta, timestamp, key, value) = sizes;
            let (key, value) = (vec![1; key], vec![2; value]);
            let mut builder = BatchBuilder::new(Compression::None);
            builder.timestamps(0, 0);
            let (key, value) = ((!nulls[0]).then_some(&key[..]), (!nulls[1]).then_some(&value[..]));
            let headers = std::iter::repeat_n((&b"name"[..], Some(&b"value"[..])), headers);
            builder.append_parts(offset_delta, timestamp, key, value, headers).unwrap();
            let mut section = builder.finish(Offset::ZERO).unwrap().bytes()[HEADER_BYTES..].to_vec();
            section.extend(more);
            if let Some((place, byte)) = change {
                let place = place.index(section.len().min(40));
                section[place] = byte;
            }
            let long = split_record(&section).ok();
            let short = split_short_record(&section);
            prop_assert!(short.is_none() || short == long);
            // The common case must not fall to the long way unseen.
            let common = change.is_none() && (0..8_192).contains(&timestamp) && value.is_none_or(|value| value.len() < 8_192);
            prop_assert!(!common || section.len() < 16 || short.is_some());
        }
    }
}

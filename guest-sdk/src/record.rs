//! Views of the input: the batch and its records, read in place.
//!
//! Owns the reading of Kafka's v2 record bodies on the guest's side. Never copies a byte of them and never trusts a
//! length: what is cut or wrong is [`BatchMalformed`], which fails the batch.
//!
//! The layout is drawn in [`abi::input`].

use std::fmt;

use abi::input::InputHeader;

/// One batch, as `weir_process` got it.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    header: InputHeader<'a>,
    topic: &'a str,
    /// The whole input's length: the records section reaches to its end.
    input_len: usize,
    section: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the header of an input.
    ///
    /// # Errors
    /// Where it is no input of this ABI.
    pub fn decode(input: &'a [u8]) -> Result<Batch<'a>, BatchMalformed> {
        let (header, section) = InputHeader::decode(input).ok_or(BatchMalformed)?;
        let topic = str::from_utf8(header.topic).map_err(|_| BatchMalformed)?;
        Ok(Batch { header, topic, input_len: input.len(), section })
    }

    /// The topic the batch goes to.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition it goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.header.partition
    }

    /// How many records it has.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// Its records, in order. After an `Err` there is nothing more to read.
    #[inline(always)]
    #[must_use]
    pub fn records(&self) -> RecordIter<'a, '_> {
        RecordIter { batch: self, rest: self.section, index: 0 }
    }
}

/// An input that is not laid out as the ABI says: a fault of the host, or of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMalformed;

impl fmt::Display for BatchMalformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("input is not a record batch of this abi")
    }
}

impl std::error::Error for BatchMalformed {}

/// See [`Batch::records`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a, 'b> {
    batch: &'b Batch<'a>,
    rest: &'a [u8],
    index: u32,
}

impl<'a, 'b> Iterator for RecordIter<'a, 'b> {
    type Item = Result<Record<'a>, BatchMalformed>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.batch.header.record_count {
            return None;
        }
        let index = self.index;
        self.index += 1;
        Some(Record::read(self.batch, index, &mut self.rest).ok_or(BatchMalformed))
    }
}

/// One record, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    index: u32,
    topic: &'a str,
    partition: u32,
    timestamp: i64,
    timestamp_delta: i64,
    offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
    /// Where its body begins in the input, and its length.
    body_at: u32,
    body_len: u32,
}

impl<'a> Record<'a> {
    #[inline(always)]
    fn read(batch: &Batch<'a>, index: u32, section: &mut &'a [u8]) -> Option<Record<'a>> {
        let body_len = usize::try_from(varint(section)?).ok()?;
        let (body, behind) = section.split_at_checked(body_len)?;
        *section = behind;

        let (_attributes, mut rest) = body.split_first()?;
        let timestamp_delta = varlong(&mut rest)?;
        let offset_delta = varint(&mut rest)?;
        let key = nullable_bytes(&mut rest)?;
        let value = nullable_bytes(&mut rest)?;
        Some(Record {
            index,
            topic: batch.topic,
            partition: batch.header.partition,
            timestamp: batch.header.base_timestamp.wrapping_add(timestamp_delta),
            timestamp_delta,
            offset: batch.header.base_offset.wrapping_add(i64::from(offset_delta)),
            key,
            value,
            headers: Headers(rest),
            body_at: (batch.input_len - behind.len() - body_len) as u32,
            body_len: body_len as u32,
        })
    }

    /// Its key.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its value; a record without one deletes its key (a tombstone).
    #[inline(always)]
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The value of its first header of this name; nothing where there is none, or where that one has no value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.name == name.as_bytes())?.value
    }

    /// Its timestamp, in milliseconds since 1970. This is a plugin's only clock.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Its place in the batch, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The topic it goes to.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition it goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Where its body lies: from the start of the input, and how long.
    pub(crate) fn body(&self) -> (u32, u32) {
        (self.body_at, self.body_len)
    }

    /// What its timestamp is counted from.
    pub(crate) fn base_timestamp(&self) -> i64 {
        self.timestamp.wrapping_sub(self.timestamp_delta)
    }
}

/// A record's headers, read when they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers(&[0]);

    /// The headers in order; a malformed one ends them.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let (count, mut rest) = self.split();
        (0..count).map_while(move |_| {
            let name = nullable_bytes(&mut rest)??;
            Some(Header { name, value: nullable_bytes(&mut rest)? })
        })
    }

    /// Their number, and their bytes.
    pub(crate) fn split(&self) -> (u32, &'a [u8]) {
        let mut rest = self.0;
        match varint(&mut rest).and_then(|count| u32::try_from(count).ok()) {
            Some(count) => (count, rest),
            None => (0, &[]),
        }
    }
}

/// One header: a named value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name, UTF-8 by convention.
    pub name: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// A length, and as many bytes; a length of -1 is null.
#[inline(always)]
fn nullable_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(bytes))
}

/// A zigzag varint of at most 32 bits. One and two bytes, which is nearly all there are, are read inline.
#[inline(always)]
fn varint(from: &mut &[u8]) -> Option<i32> {
    let unsigned = match **from {
        [first @ ..=0x7f, ref rest @ ..] => {
            *from = rest;
            u32::from(first)
        }
        [first, second @ ..=0x7f, ref rest @ ..] => {
            *from = rest;
            u32::from(first & 0x7f) | u32::from(second) << 7
        }
        _ => u32::try_from(long_varint(from, 5)?).ok()?,
    };
    Some((unsigned >> 1) as i32 ^ -((unsigned & 1) as i32))
}

/// A zigzag varint of at most 64 bits.
#[inline(always)]
fn varlong(from: &mut &[u8]) -> Option<i64> {
    let unsigned = match **from {
        [first @ ..=0x7f, ref rest @ ..] => {
            *from = rest;
            u64::from(first)
        }
        _ => long_varint(from, 10)?,
    };
    Some((unsigned >> 1) as i64 ^ -((unsigned & 1) as i64))
}

#[cold]
fn long_varint(from: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut unsigned = 0_u64;
    for (at, byte) in from.iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        unsigned |= bits << (7 * at);
        if byte & 0x80 == 0 {
            *from = &from[at + 1..];
            return Some(unsigned);
        }
    }
    None
}

/// Writes a zigzag varint of at most 64 bits; one of 32 bits is written alike.
pub(crate) fn push_varint(to: &mut Vec<u8>, value: i64) {
    let mut unsigned = ((value << 1) ^ (value >> 63)) as u64;
    while unsigned > 0x7f {
        to.push(unsigned as u8 | 0x80);
        unsigned >>= 7;
    }
    to.push(unsigned as u8);
}

/// Writes a length and the bytes, or -1.
pub(crate) fn push_nullable_bytes(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => push_varint(to, -1),
        Some(bytes) => {
            push_varint(to, bytes.len() as i64);
            to.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_are_read_as_they_are_written(value in any::<i64>(), shift in 0_u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(varlong(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(varlong(&mut &bytes[..bytes.len() - 1]), None);

            let mut rest = &bytes[..];
            prop_assert_eq!(varint(&mut rest), i32::try_from(value).ok());
        }
    }

    #[test]
    fn varints_without_an_end_are_refused() {
        assert_eq!(varlong(&mut &[0xff; 11][..]), None);
        assert_eq!(varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0][..]), None);
        assert_eq!(varlong(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]), None);
    }
}

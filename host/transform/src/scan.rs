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
#[inline(always)]
pub(crate) fn head(section: &[u8], at: usize) -> Option<Head> {
    short_head(section, at).or_else(|| any_head(section, at))
}

/// [`head`] where all numbers are short and the record is not one of the last bytes, as nearly always.
#[inline(always)]
fn short_head(section: &[u8], at: usize) -> Option<Head> {
    let window = section.get(at..)?.first_chunk()?;
    let mut place = 0;
    let length = varint::read_short(window, &mut place)?;
    let body = at + place;
    place += 1; // attributes
    let timestamp_delta = varint::read_short(window, &mut place)?;
    let offset_at = at + place;
    let offset_delta = varint::read_short(window, &mut place)?;
    let (end, key_at) = (body + (length >> 1) as usize, at + place);
    // Odd is negative; and what was read must be the record's own.
    let is_sound = (length | offset_delta) & 1 == 0 && key_at <= end && end <= section.len();
    let timestamp_delta = i64::from(varint::unzigzag32(timestamp_delta));
    is_sound.then_some(Head { body, offset_at, key_at, end, timestamp_delta, offset_delta: offset_delta >> 1 })
}

#[inline(never)]
fn any_head(section: &[u8], at: usize) -> Option<Head> {
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use protocol::{BatchBuilder, Compression, Offset, Record, records};

    use super::*;

    #[test]
    fn the_parts_of_a_record_are_where_its_view_has_them() {
        let mut builder = BatchBuilder::new(Compression::None);
        for (key, value) in
            [(None, None), (Some(vec![7; 70]), None), (None, Some(vec![1; 9_000])), (Some(vec![]), Some(vec![]))]
        {
            let (key, value) = (key.map(Into::into), value.map(Into::into));
            builder.append(&Record { key, value, headers: Vec::new(), timestamp: 1 << 40 }).unwrap();
        }
        let section = builder.finish(Offset::ZERO).unwrap().records_section(1 << 20).unwrap();
        let mut at = 0;
        for view in records(&section).map(Result::unwrap) {
            let head = head(&section, at).unwrap();
            assert_eq!(&section[at..head.end], view.raw);
            assert_eq!((head.offset_delta, head.timestamp_delta), (view.offset_delta, view.timestamp_delta));
            let (value_at, value_end) = value(&section, &head).unwrap();
            assert!(section[value_at..value_end].ends_with(view.value.unwrap_or_default()));
            assert_eq!(value_end, head.end - 1, "no headers are one byte");
            assert_eq!(next(&section, at), Some(head.end));
            at = head.end;
        }
        assert_eq!(at, section.len());
    }

    proptest! {
        #[test]
        fn the_short_way_finds_what_the_long_way_finds(bytes in vec(prop_oneof![Just(0), 0..40_u8, any::<u8>()], 0..60), at in 0..20_usize) {
            let (short, long) = (short_head(&bytes, at), any_head(&bytes, at));
            // The short way leaves the end of a section, and long numbers, to the other one.
            prop_assert!(short.is_none() || short == long, "{short:?} {long:?}");
            let common = bytes.len() >= at + 16 && bytes[at..at + 16].iter().all(|byte| *byte < 0x80);
            prop_assert!(!common || short == long);
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(&Record::new("key", "value", 5)).unwrap();
        let section = builder.finish(Offset::ZERO).unwrap().records_section(1 << 20).unwrap();
        for length in 0..section.len() {
            assert_eq!(next(&section[..length], 0), None);
            assert_eq!(head(&section[..length], 0), None);
            assert_eq!(head_of_body(&section, 1, length.min(3)), None);
        }
        // A negative length.
        assert_eq!(next(&[1], 0), None);
    }
}
